"""Hypothesis without deadlines: the first call of a torch operator is slow, and the machine may be shared."""

from hypothesis import settings

settings.register_profile("core", deadline=None)
settings.load_profile("core")
