"""SRPO (sample-routed policy optimisation, arXiv 2604.02288) as an extension of verl.

`register` is the door for variants of the algorithm; `srpo_verl.core` holds the algorithm as pure functions.
"""

from srpo_verl.variants import register

__all__ = ["register"]
