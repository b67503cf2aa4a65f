"""From search words to checked images on disk.

Finding: `queries` and `result_page` speak Bing's language, `search` reads page after page.
Downloading: `fetch` makes one safe download, `consent` and `hosts` know what others do not want.
Keeping: `candidates` checks what came, `shelf` decides where it goes, by what lies `on_disk`;
`journal` and `memory` remember what was tried, `records` tells of it, and `history` reads what the
first generation remembered. `plan`, `folders` and `targets` say what is wanted, `workers` and
`collect` bring it in, `outcome` and `view` show it; `options` is the command line.
"""
