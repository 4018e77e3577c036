"""A grid of runs: benchmarks x models x methods x seeds, each run a folder whose state is read from what is in it."""
