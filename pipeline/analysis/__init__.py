"""Questions to a run: why, what if, how much."""
