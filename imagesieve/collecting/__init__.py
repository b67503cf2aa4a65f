"""From search words to checked images on disk.

`options` and `plan` read what the user asks for, `targets` holds it, and `run` does it: `bing/`
finds images, `robots` and `politeness` say whether and when hosts are asked, `class_folder`
validates what came and decides where it goes, `journal` records it, `outcome` counts it.
"""
