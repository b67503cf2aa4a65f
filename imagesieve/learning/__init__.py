"""Learning: from a data folder to a new model version."""
