"""What the commands do, desk side: no torch here; bench work is started as a process."""
