"""Keeps a run whole and lawful: verify, repair, remove."""
