"""Run untrusted Python programs: input in, bytes out, the verdict elsewhere.

``backend(config)`` gives the backend for a configuration; a backend gives one :class:`Sample` per completion::

    with backend(SandboxConfig()).sample() as sample:
        outcome = sample.run_stdin(program, "1 2\\n")

What it does not cover: kernel bugs and hardware side channels. See docs/rewards.md for what each level covers.
"""

from reward_fns.sandbox.base import Backend, Outcome, Program, Sample
from reward_fns.sandbox.choose import backend
from reward_fns.sandbox.config import SandboxConfig

__all__ = ["Backend", "Outcome", "Program", "Sample", "SandboxConfig", "backend"]
