"""Reward functions of other projects in verl's contract, as they are: verl's own, and TRL's."""
