"""A finished run as files for others: its forms, what holds them together, and what they say of themselves."""
