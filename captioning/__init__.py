"""Recaption the curated pictures."""
