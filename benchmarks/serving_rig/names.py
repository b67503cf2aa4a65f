"""What is measured, by name."""

OURS = "ours"
OLD_ROUTE = "old route"
FIRST = "first generation"
BARE = "bare"

PARTS = {"ours": OURS, "old-route": OLD_ROUTE, "first-generation": FIRST, "bare": BARE}

AIM_TO_FIRST = 8.0  # times its answers a second
AIM_TO_BARE = 0.85  # of its images a second
AIM_PROBE_MS = 100.0
