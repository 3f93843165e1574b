"""`python -m pipeline.cli`: the same as `pipeline`."""

from pipeline.cli.app import main

main()
