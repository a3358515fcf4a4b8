"""Starting the worker: always the same process on the same run directory."""
