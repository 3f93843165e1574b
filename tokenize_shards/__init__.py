"""Pictures to VQ codes, codes to shards."""
