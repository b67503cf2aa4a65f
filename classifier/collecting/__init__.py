"""From search words to checked pictures on disk.

`search` reads Bing's result pages, `fetch` makes one safe download, `journal` remembers what was
tried, and `collect` runs them together until a class folder holds enough good pictures.
"""
