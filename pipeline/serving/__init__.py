"""Draw pictures for a page and a JSON endpoint: a queue whose requests share one decode."""
