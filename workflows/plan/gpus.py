"""What the makers' data sheets say of GPUs, as far as planning needs it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

GIB = 2**30


@dataclass(frozen=True)
class GPU:
    """Memory as the driver reports it; dense bfloat16 without sparsity; memory and link bandwidth per GPU."""

    name: str
    memory_gib: float
    tflops: float
    bandwidth_tbs: float
    # One direction, to the other GPUs of the node: NVLink, or PCIe.
    link_gbs: float

    @property
    def memory(self) -> float:
        """Bytes."""
        return self.memory_gib * GIB


GPUS = {
    gpu.name: gpu
    for gpu in (
        GPU("H20", 95.6, 148, 4.0, 450),
        GPU("H100", 79.6, 989, 3.35, 450),
        GPU("H200", 140.4, 989, 4.8, 450),
        GPU("H800", 79.6, 989, 3.35, 200),
        GPU("B200", 179.0, 2250, 8.0, 900),
        GPU("A100", 80.0, 312, 2.04, 300),
        GPU("A100-40G", 40.0, 312, 1.56, 300),
        GPU("A800", 80.0, 312, 2.04, 200),
        GPU("L40S", 45.0, 362, 0.86, 32),
        GPU("L20", 45.0, 119.5, 0.86, 32),
        GPU("A10", 22.5, 125, 0.60, 32),
        GPU("RTX4090", 24.0, 165, 1.01, 32),
    )
}


def gpu_called(name: str, total: float) -> GPU | None:
    """The row for a card, by the name and the bytes of memory that torch gives; with that memory.

    None for a card that is not in the table, and for a slice of one (MIG).
    """
    words = re.split(r"[^A-Za-z0-9]+", name.replace("RTX ", "RTX"))
    rows = [gpu for gpu in GPUS.values() if gpu.name.partition("-")[0] in words]
    if not rows or "MIG" in words:
        return None
    return replace(min(rows, key=lambda gpu: abs(gpu.memory - total)), memory_gib=total / GIB)


def gpu_of(name: str) -> GPU:
    """A GPU of the table, however it is capitalised. Raises ValueError with the known names."""
    for known, gpu in GPUS.items():
        if known.lower() == name.lower():
            return gpu
    raise ValueError(f"no data for the GPU {name!r}; known: {', '.join(GPUS)}")
