"""Serving: a model version judges pictures, for the command line and over HTTP."""
