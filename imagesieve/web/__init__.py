"""Asking strangers' hosts over HTTP: `addresses` are checked, `connections` are pinned to them."""
