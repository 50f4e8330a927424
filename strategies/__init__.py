"""Query strategies: from what is known of the pool to the images to be labelled next."""
