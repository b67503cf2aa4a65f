"""Classify images at scale: collect, learn, predict, serve, correct, learn again.

Base: `errors`, `cores`, `files`, `class_folders`, `logs`, `console`. Shared: `web`, `images`,
`model`, `prediction`, `explaining`, `feedback`, `intervals`. Three wings that never import each
other: `collecting`, `learning`, `serving`. CONTRIBUTING.md has the map.
"""

__version__ = "0.1.0"
