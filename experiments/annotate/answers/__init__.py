"""What people answered about the images of a folder, and what was asked: the state on disk."""
