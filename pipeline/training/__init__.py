"""What the trainer uses: loader, checkpoints, optimiser, processes, sample sheets."""
