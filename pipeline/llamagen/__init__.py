"""Export to and import from the layout of LlamaGen's scripts."""
