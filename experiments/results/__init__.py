"""The results of a grid as values without layout: frames, statistics, comparisons, costs."""
