"""The command line, the recipe, the stages and the trainer."""
