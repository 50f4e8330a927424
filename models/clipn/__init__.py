"""CLIPN: the model, its weights, its texts, its stored features, and how a small one is trained."""
