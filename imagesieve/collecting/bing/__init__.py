"""Bing's image search: queries, result pages, and the four ways in which it fails."""
