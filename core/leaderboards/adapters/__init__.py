"""Outside systems: the public files of boards."""
