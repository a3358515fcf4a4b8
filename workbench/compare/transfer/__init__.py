"""How much training from scratch an adapter is worth: figures with their status, never a number without one."""
