"""Who may call: keys, hosts, rates, and the check that every request passes."""
