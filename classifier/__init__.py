"""Sort pictures at scale: collect, learn, judge, serve, correct, learn again.

Ground floor: `errors`, `files`, `logs`, `console`. First floor: `images`, `engines`, `bundle`.
Three wings that never import each other: `collecting`, `learning`, `serving`.
"""

__version__ = "0.1.0"
