"""How good is it: reconstruction, recall of planted duplicates, the planted truth."""
