"""From search words to checked images on disk.

Finding: `bing/` asks Bing's image search, page after page.
Downloading: `web.fetch` makes one safe download; `robots` is what hosts forbid, `politeness`
how often they are asked.
Keeping: `candidates` validates what came, `class_folder` decides where it goes; `journal` and
`download_history` record what was tried, `original_history` what the first generation tried, and
`export` prints it.
`options` and `plan` read what the user asks for, `targets` holds it; `run` and its `pipeline` of
workers do it, and `outcome` counts it.
"""
