"""Words of the English language as negatives: texts that say what an image is not."""
