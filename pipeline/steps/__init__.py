"""What is done: select, fetch, score, dedup, decide, caption, encode, t5, pack, index."""
