"""Peak memory of log-probs without logits, forward and backward: `python -m benchmarks.output_layer_peak ROWS [DTYPE]`.

V = 151,936 and H = 1,024 (Qwen3-0.6B), 101 ids per row and the entropy. Beyond the gradients, in bytes and in logits.
"""

from __future__ import annotations

import sys

import torch

from benchmarks.divergence import VOCABULARY, K
from benchmarks.harness import peak_bytes
from benchmarks.whole_loss import HIDDEN
from srpo_verl.core import linear_log_probs


def main(rows: int, dtype: torch.dtype) -> None:
    hidden = torch.randn(rows, HIDDEN).to(dtype).requires_grad_()
    weight = (torch.randn(VOCABULARY, HIDDEN) / HIDDEN**0.5).to(dtype).requires_grad_()
    ids = torch.randint(0, VOCABULARY, (rows, K + 1))

    def step() -> object:
        found = linear_log_probs(hidden, weight, ids, with_entropy=True)
        return torch.autograd.grad(found.log_probs.sum() + found.entropy.sum(), (hidden, weight))

    beyond = peak_bytes(step) - (hidden.numel() + weight.numel()) * dtype.itemsize
    print(
        f"{beyond / 1e6:.1f} MB beyond the gradients, {beyond / (rows * VOCABULARY * dtype.itemsize):.4f} of the logits"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), getattr(torch, sys.argv[2] if len(sys.argv) > 2 else "float32"))
