"""Triton kernels against float64 and the plain code: on a GPU, or on a CPU through Triton's interpreter.

The interpreter is chosen when Triton is imported, so a process of its own runs these tests, and those of the functions
that use the kernels, with TRITON_INTERPRET=1.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from srpo_verl.core import Selection, choose_kernels, kernel_choice, listed_log_probs, student_topk, target_statistics
from srpo_verl.core.listed_log_probs import RunningSoftmax, everywhere

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
runs_kernels = pytest.mark.skipif(
    not (INTERPRETED or DEVICE == "cuda"), reason="kernels run on a GPU, or interpreted, in the test below"
)
# The interpreter cuts bits off where a GPU rounds to the nearest.
ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}


@pytest.mark.skipif(INTERPRETED or DEVICE == "cuda", reason="the kernels run in this process")
@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
def test_by_tritons_interpreter():
    folder = Path(__file__).parent
    files = [__file__, folder / "test_targets.py", folder / "test_listed_log_probs.py"]
    files += [f"{folder / 'test_linear_log_probs.py'}::test_a_divergence_of_them_and_frozen_weights"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, files)]
    command += ["-k", "not extra_memory and not narrower_logits"]  # the interpreter's own memory and rounding
    done = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout


@pytest.fixture
def kernels(monkeypatch):
    """The module, with columns in blocks of 16, so that a few columns are several blocks."""
    found = pytest.importorskip("srpo_verl.core.kernels")
    monkeypatch.setattr(found, "_BLOCK", 16)
    return found


def logits_of(rows, columns, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (4 * torch.randn(rows, columns, generator=generator, dtype=torch.float64)).to(DEVICE, dtype)


def sums_of(kernels, logits, **options):
    dtype = torch.promote_types(logits.dtype, torch.float32)
    rows = options.get("rows")
    sums = RunningSoftmax(len(logits) if rows is None else len(rows), dtype, logits.device)
    kernels.add_to_softmax(logits, sums.maximum, sums.z, sums.u, with_entropy=True, **options)
    return sums


def assert_sums(sums, logits, *, within):
    log_p = logits.double().log_softmax(-1)
    entropy = torch.special.entr(log_p.exp()).sum(-1)
    torch.testing.assert_close(sums.maximum + sums.z.log(), logits.double().logsumexp(-1).to(sums.z.dtype), **within)
    torch.testing.assert_close(sums.entropy(), entropy.to(sums.z.dtype), **within)


@runs_kernels
@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("columns", [1, 7, 16, 40])
def test_normaliser_and_entropy_in_one_read(kernels, dtype, columns):
    logits = logits_of(5, columns, dtype)
    within = {"atol": 1e-12, "rtol": 1e-12} if dtype == torch.float64 else {"atol": 2e-6, "rtol": 2e-6}
    assert_sums(sums_of(kernels, logits), logits, within=within)


@runs_kernels
def test_rows_by_number_in_any_order_of_memory(kernels):
    wide = logits_of(6, 50, torch.float32)
    rows = torch.tensor([4, 0, 5], device=DEVICE)
    within = {"atol": 2e-6, "rtol": 2e-6}
    for logits in (wide[:, 3:40], wide.T.contiguous().T, wide[::2].repeat(2, 1)):
        assert_sums(sums_of(kernels, logits, rows=rows), logits[rows], within=within)
    none = sums_of(kernels, wide, rows=rows[:0])
    assert none.z.shape == (0,)


@runs_kernels
def test_pieces_of_columns_add_up(kernels):
    logits = logits_of(3, 45, torch.float64)
    sums = RunningSoftmax(3, torch.float64, logits.device)
    for part in (slice(0, 20), slice(20, 21), slice(21, 45)):
        kernels.add_to_softmax(logits[:, part], sums.maximum, sums.z, sums.u, with_entropy=True)
    assert_sums(sums, logits, within={"atol": 1e-12, "rtol": 1e-12})


def hostile():
    """Minus infinity, first, last and everywhere; huge; infinite; not a number."""
    logits = logits_of(6, 40, torch.float32)
    logits[0, :20] = logits[0, 39] = -torch.inf
    logits[1] = -torch.inf
    logits[2] = 3e38
    logits[3, 7] = 1e30
    logits[4, 30] = torch.inf
    logits[5, 35] = torch.nan
    return logits


@runs_kernels
def test_odd_logits_give_what_the_plain_code_gives(kernels, monkeypatch):
    logits = hostile()
    found = sums_of(kernels, logits)
    monkeypatch.setattr(kernel_choice, "_wanted", False)
    plain = RunningSoftmax(6, torch.float32, logits.device)
    plain.add(logits, slice(None), with_entropy=True)
    for one, other in ((found.log_z(), plain.log_z()), (found.entropy(), plain.entropy())):
        other = other[:4]  # at infinity and NaN both must not be finite, and no more
        torch.testing.assert_close(one[:4], other, equal_nan=True, atol=1e-6, rtol=1e-6)
    assert not found.log_z()[4:, 1].isfinite().any()


@runs_kernels
@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("with_entropy", [False, True])
@pytest.mark.parametrize("in_place", [False, True])
def test_the_gradient_is_written_once(kernels, dtype, with_entropy, in_place, monkeypatch):
    logits = logits_of(5, 40, dtype)
    logits[2, 3] = -torch.inf
    sums = sums_of(kernels, logits)
    wide = sums.z.dtype
    total, slope = (logits_of(5, 1, wide, seed)[:, 0] for seed in (1, 2))
    of_entropy = (slope, sums.entropy()) if with_entropy else None
    expected = torch.empty(logits.shape, dtype=torch.float64, device=DEVICE)
    monkeypatch.setattr(kernel_choice, "_wanted", False)
    exact = [value.double() for value in (logits, sums.log_z(), total)]
    everywhere(*exact, None if of_entropy is None else (slope.double(), sums.entropy().double()), out=expected)
    out = logits if in_place else torch.full_like(logits, torch.nan)
    kernels.softmax_gradient(logits, sums.log_z(), total, of_entropy, out=out)
    torch.testing.assert_close(out.double(), expected, atol=1e-7, rtol=ROUNDING[dtype])


@runs_kernels
def test_the_functions_of_the_loss_use_them(kernels, monkeypatch):
    calls = []
    for name in ("add_to_softmax", "softmax_gradient"):
        real = getattr(kernels, name)
        monkeypatch.setattr(
            kernels, name, lambda *args, of=real, name=name, **more: (calls.append(name), of(*args, **more))
        )
    logits, rows = logits_of(5, 40, torch.float32).requires_grad_(), torch.arange(3, device=DEVICE)
    ids = student_topk(logits, rows, 4)
    target_statistics(logits, rows, ids)
    found = listed_log_probs(logits, Selection(torch.zeros(5, dtype=torch.int64, device=DEVICE), rows, ids))
    found.listed.sum().backward()
    assert calls == ["add_to_softmax", "add_to_softmax", "softmax_gradient"]


def test_which_are_used_is_said(monkeypatch):
    monkeypatch.setattr(kernel_choice, "_wanted", True)
    monkeypatch.setattr(kernel_choice, "_interpreted", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_kernels(True) == "PyTorch's operations: no CUDA GPU is visible"
    assert kernel_choice.kernels_for(torch.zeros(1, 1)) is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_kernels(False) == "PyTorch's operations: srpo.kernels=false"
    kernel_choice._kernels.cache_clear()
    monkeypatch.setitem(sys.modules, "srpo_verl.core.kernels", None)
    with pytest.raises(RuntimeError, match=r"or set srpo\.kernels=false"):
        choose_kernels(True)
