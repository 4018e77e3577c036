"""What SRPO costs, as ratios measured in one run: `make bench`, `make bench-check`."""
