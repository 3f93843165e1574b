"""What a run holds on disk: shards, tables, ledgers, journals, manifests."""
