"""The laboratory behind docs/evidence.md: GRPO, SDPO and SRPO side by side on two CPU cores; not installed."""
