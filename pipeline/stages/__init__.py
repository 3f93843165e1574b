"""filter, caption, pretokenize: their steps in order, how a stage runs, its manifest."""
