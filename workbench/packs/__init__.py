"""Archives by which studies and runs travel: what goes into one, where it lies in it, and where it came from."""
