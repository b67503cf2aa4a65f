"""The rig of `downloads.py`: a fake Bing with its hosts, the rivals, measuring and judging."""
