"""The evidence laboratory: every method on a task that fits on two cores, many seeds; results in docs/evidence.md."""
