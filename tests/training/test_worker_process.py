"""The ranks of `run_ranks`: what is raised when one of them dies."""

import os

import pytest
import torch

from tests.training import tiny_model
from tests.training.worker_process import run_ranks

pytestmark = pytest.mark.needs_cpu_set


def abort_on_the_last_rank(worker, rank, world, payload):
    if rank == world - 1:
        os.write(2, b"terminate called: the pipes are frozen\n")
        os.abort()
    torch.distributed.barrier()


def test_a_rank_that_dies_of_a_signal_is_raised_with_what_it_wrote(tmp_path):
    with pytest.raises(torch.multiprocessing.ProcessExitedException, match=r"process 1 .* SIGABRT") as raised:
        run_ranks(abort_on_the_last_rank, 2, tiny_model.build(tmp_path))
    first, second = raised.value.__notes__
    assert "the pipes are frozen" not in first
    assert second.startswith("rank_1.stderr:\n")
    assert "the pipes are frozen" in second
    assert "in abort_on_the_last_rank" in second  # where it was
