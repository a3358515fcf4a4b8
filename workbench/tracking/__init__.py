"""Where a run is shown beside its own directory. Nothing here can end a run."""
