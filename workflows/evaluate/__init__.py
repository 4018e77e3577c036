"""`srpo evaluate`: how good a model or checkpoint is on a data set, with vLLM."""
