"""Open-set splits: which classes are ID, which images start labelled, which are in the pool."""
