"""The process that does a run: a run directory in, results out. Composition of the bench happens here only."""
