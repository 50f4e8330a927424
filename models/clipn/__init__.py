"""CLIPN: the model, its weights, its texts, its stored features, and the training of a small one."""
