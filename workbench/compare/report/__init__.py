"""The report of a comparison: one HTML file that opens anywhere, made from a verdict and its evidence."""
