"""verl 0.9.1 and vLLM on a machine without a GPU. Loaded by the plugin only where there is none."""
