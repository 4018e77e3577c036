"""verl's side of SRPO: the trainer (driver), the worker (GPU processes), and what travels between them."""
