"""Killable worker processes: run an importable function under a deadline, from any thread.

A fork server (``server.py``) imports what the work needs once; its children do the work and can be killed and
replaced in milliseconds. The deadline is CPU time, so a busy machine does not turn right answers into wrong ones; a
wall-clock limit of four times as much catches what sleeps.
"""

from reward_fns.workers.pool import Died, Failed, TimedOut, WorkerPool, call_in_worker

__all__ = ["Died", "Failed", "TimedOut", "WorkerPool", "call_in_worker"]
