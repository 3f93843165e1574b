"""Rules that keep or drop rows, and what they need: fetch, scorers, duplicates. Importing this package registers every
filter."""

from filters import aesthetic, aspect, language, nsfw, similarity, size, text, watermark

__all__ = ["aesthetic", "aspect", "language", "nsfw", "similarity", "size", "text", "watermark"]
