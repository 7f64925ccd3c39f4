"""A believable project to look at, marked as demo everywhere and removable with one command."""
