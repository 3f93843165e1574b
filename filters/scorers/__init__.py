"""Encoders and heads: pixels and texts to score columns."""
