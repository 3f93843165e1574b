"""Reading the tables, lines and tars of other people, and the list of the files that a run was made from."""
