"""Run directories: their paths, their making, their lock, and the table of all of them."""
