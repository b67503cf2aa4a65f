"""Sort images at scale: collect, learn, judge, serve, correct, learn again.

Ground floor: `errors`, `cores`, `files`, `logs`, `console`. First floor: `images`, `fingerprints`,
`decisions`, `bundle`, `engines`.
Three wings that never import each other: `collecting`, `learning`, `serving`.
"""

__version__ = "0.1.0"
