"""Serving: a model version predicts images over HTTP, and people correct it."""
