"""What the benchmarks of learning share: the first generation, our own way, and how both run."""
