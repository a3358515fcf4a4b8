"""The optimizer's walk: TRL's trainers on our batches, our checkpoints, our records."""
