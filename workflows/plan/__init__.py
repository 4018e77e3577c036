"""`srpo plan`: memory and seconds per step of a config, before anything starts. Formulas: docs/planning.md."""
