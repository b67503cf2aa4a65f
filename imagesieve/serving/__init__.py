"""Serving: a model version judges images, for the command line and over HTTP."""
