"""Files -> rows -> examples -> token ids with a loss mask -> the batches of every optimizer step."""
