"""What a user writes: the settings of a trial and of a grid, checked strictly."""
