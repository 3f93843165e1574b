"""Rules that keep or drop rows, and what they need: fetch, scorers, duplicates."""
