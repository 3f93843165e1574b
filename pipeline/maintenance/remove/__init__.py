"""Take rows out of every file of a run, for good."""
