"""Ways to train, one file each; the table is `wsol.training.STRATEGIES`."""
