"""Query strategies: each picks, from what is known of the pool, the images to be labelled next."""
