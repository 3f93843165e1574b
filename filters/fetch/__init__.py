"""Valid URL: get foreign bytes safely and turn them into pictures."""
