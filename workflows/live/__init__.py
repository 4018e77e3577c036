"""Runs that are going on, seen from outside: `srpo attach`, `srpo stop`, `srpo status`."""
