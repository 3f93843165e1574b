"""The kinds of captioners: models in this process, and what they share."""
