"""From a folder of photos to the images worth labelling: state, features, ranking, estimates and what is printed."""
