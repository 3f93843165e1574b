"""Judge captions as a whole: what repeats over pictures, how they open, how long they are, which groups they name."""
