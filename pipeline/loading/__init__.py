"""Read code shards: an order that a seed fixes, windows of shards that stream, batches that any world shares."""
