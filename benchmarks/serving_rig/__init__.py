"""What the benchmarks of the service share: servers as processes, load, and slow callers."""
