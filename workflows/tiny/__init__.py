"""A start policy for two CPU cores: a tiny model and a verifiable task that it half knows, with faults by design."""
