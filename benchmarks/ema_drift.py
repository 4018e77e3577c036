"""How far an EMA teacher drifts from its exact value in each form that its weights can be kept in.

    python -m benchmarks.ema_drift [--steps 1000] [--rate 0.05]

Weights of about 0.02 that move as under Adam, steps of one size each much like the one before. Printed: the distance of
each teacher to the one in float64 after the last step, as a share of the way that this one has gone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch

from srpo_verl.core import join, split

COUNT, SIZE, MOMENTUM = 200_000, 0.02, 0.9

Move = Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]


def in_float32(teacher: torch.Tensor, actor: torch.Tensor, rate: float) -> torch.Tensor:
    return teacher.lerp(actor, rate)


def in_three_bytes(teacher: torch.Tensor, actor: torch.Tensor, rate: float) -> torch.Tensor:
    return join(*split(teacher.lerp(actor, rate)))


def in_bfloat16(teacher: torch.Tensor, actor: torch.Tensor, rate: float) -> torch.Tensor:
    return teacher.lerp(actor, rate).to(torch.bfloat16).float()


def stochastically(teacher: torch.Tensor, actor: torch.Tensor, rate: float) -> torch.Tensor:
    """Rounded up or down to a bfloat16, with the probability that makes the mean exact."""
    bits = teacher.lerp(actor, rate).view(torch.int32) + torch.randint(0, 2**16, teacher.shape, dtype=torch.int32)
    return (bits & -(2**16)).view(torch.float32)


FORMS: dict[str, Move] = {
    "float32": in_float32,
    "bfloat16 + 1 byte": in_three_bytes,
    "bfloat16, stochastic rounding": stochastically,
    "bfloat16": in_bfloat16,
}


def drifts(learning_rate: float, *, steps: int, rate: float) -> dict[str, float]:
    """By form: || teacher - exact teacher || / || exact teacher - its start ||."""
    torch.manual_seed(0)
    actor = SIZE * torch.randn(COUNT, dtype=torch.float64)
    first, exact, direction = actor.clone(), actor.clone(), torch.randn(COUNT, dtype=torch.float64)
    teachers = {name: actor.float() for name in FORMS}
    for _ in range(steps):
        direction = MOMENTUM * direction + (1 - MOMENTUM**2) ** 0.5 * torch.randn(COUNT, dtype=torch.float64)
        actor = actor + learning_rate * direction
        exact = exact.lerp(actor, rate)
        teachers = {name: move(teachers[name], actor.float(), rate) for name, move in FORMS.items()}
    way = (exact - first).norm()
    return {name: float((teacher - exact).norm() / way) for name, teacher in teachers.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=0.05)
    arguments = parser.parse_args()
    for learning_rate in (1e-6, 1e-5):
        found = drifts(learning_rate, steps=arguments.steps, rate=arguments.rate)
        print(f"learning rate {learning_rate:g}: " + ", ".join(f"{name} {value:.2g}" for name, value in found.items()))


if __name__ == "__main__":
    main()
