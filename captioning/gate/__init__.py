"""Judge captions one by one: what is measured of a text, which flags follow, and what becomes of a flagged caption."""
