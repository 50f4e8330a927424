"""Settings that a user writes, of a trial and of a grid, checked strictly."""
