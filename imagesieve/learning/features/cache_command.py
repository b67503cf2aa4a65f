"""`--cache-info` and `--clear-cache`: what is kept for later trainings."""

import argparse
import time

from imagesieve import console
from imagesieve.learning.features import store as feature_store
from imagesieve.learning.features.store import FeatureStore


def run(options: argparse.Namespace) -> int:
    """Say what the feature store of a model folder holds, or clear it."""
    store = FeatureStore(options.model_dir / feature_store.FOLDER_NAME, options.cache_limit * 1e9)
    if options.clear_cache:
        removed = store.clear()
        left = sum(holding.num_bytes for holding in store.holdings())
        if options.json:
            console.print_json({"folder": str(store.folder), "removed": removed, "left": left})
            return 0
        in_use = f"; {console.amount(left)} are in use" if left else ""
        print(f"Removed {console.amount(removed)} from {store.folder}{in_use}.")
        return 0
    holdings = store.holdings()
    if options.json:
        console.print_json(
            {
                "folder": str(store.folder),
                "holdings": [
                    {**dict(holding.about), "rows": holding.num_rows, "bytes": holding.num_bytes}
                    for holding in holdings
                ],
            }
        )
        return 0
    if not holdings:
        print(f"Nothing is kept in {store.folder}.")
        return 0
    rows = [
        (
            feature_store.describe(holding.about),
            holding.num_rows or "",
            console.amount(holding.num_bytes),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(holding.used_at)),
        )
        for holding in holdings
    ]
    print(console.table(["kept", "rows", "size", "last used"], rows))
    total = sum(holding.num_bytes for holding in holdings)
    print(f"{console.amount(total)} in {store.folder}; --clear-cache removes it.")
    return 0
