"""Pure functions of numbers: what a run costs. No files, no torch."""
