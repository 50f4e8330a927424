"""The image sets and who may see which label: readers, open-set splits, the pool and the oracle."""
