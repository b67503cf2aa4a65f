"""From search words to checked images on disk.

Finding: `bing/` asks Bing's image search. Downloading: `robots` is what hosts forbid, `politeness`
how often they are asked. Keeping: `candidates` validates what came, `class_folder` decides where it
goes; `journal`, `download_history` and `original_history` record what was tried, `export` prints
it. `options` and `plan` read what the user asks for, `targets` holds it, `run` does it,
`outcome` counts it.
"""
