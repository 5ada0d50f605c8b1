"""What the benchmarks share: the networks, the engines in their own processes, the machine's state, the report."""
