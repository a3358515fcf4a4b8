"""Studies: arms x seeds on one suite, what may differ between them, and the question."""
