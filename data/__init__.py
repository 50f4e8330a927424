"""What an image set is, and who may see which label: readers, open-set splits, the pool and the oracle."""
