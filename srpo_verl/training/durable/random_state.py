"""The random states of the driver as JSON: `random`, numpy and torch. The workers keep theirs in verl's checkpoint."""

from __future__ import annotations

import base64
import random
from typing import Any

import numpy as np
import torch


def get_random_state() -> dict[str, Any]:
    """JSON-ready states of this process."""
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [name, np.asarray(keys).tolist(), position, has_gauss, cached],
        "torch": base64.b64encode(torch.get_rng_state().numpy().tobytes()).decode(),
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put back what `get_random_state` returned."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(torch.frombuffer(bytearray(base64.b64decode(state["torch"])), dtype=torch.uint8))
