"""English words as negatives: texts of things that an image does not show."""
