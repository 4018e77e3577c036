"""The method of the page on the family, which is no part of the package: its invariant, by hand and in a step."""

import math
from pathlib import Path

import pytest
import torch

from srpo_verl.config import settings
from srpo_verl.training.step.routed_tokens import RoutedTokens
from srpo_verl.training.step.routing_plan import Rollout, build_plan
from srpo_verl.training.step.step_signals import step_signals

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "own_method"
NODE = {
    "variant_modules": ["surprise_sharing"],
    "asked": "correct",
    "weighting": "resolved_doubt",
    "modulator": "surprise_sharing",
}


def test_an_advantage_is_shared_out_by_surprise_and_keeps_its_mean(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    srpo = settings(NODE)
    plan = build_plan([Rollout(f"x_{n}_0", score, 2) for n, score in enumerate((1.0, 1.0, 0.0))], srpo)
    gaps = [torch.tensor([-math.log(3.0), 0.0]), torch.tensor([0.5, 0.5]), torch.tensor([0.0, 0.0])]
    tokens = RoutedTokens(
        [0, 1, 2],
        teacher_entropy=[torch.tensor([0.1, 1.0])] * 3,
        student_entropy=[torch.tensor([1.05, 0.5])] * 3,
        teacher_log_probs=[gap - 1.0 for gap in gaps],
        student_log_probs=[torch.full((2,), -1.0)] * 3,
    )
    found = step_signals(
        plan,
        srpo,
        rewards=torch.tensor([1.0, 1.0, 0.0]),
        masks=[torch.ones(2)] * 3,
        normalize_by_std=False,
        tokens=tokens,
    )
    # Surprises of log 3 and 0: shares of 3/4 and 1/4 of twice 1/3.
    assert found.advantages[0].tolist() == pytest.approx([0.5, 1 / 6])
    assert found.advantages[1].tolist() == pytest.approx([1 / 3, 1 / 3])
    assert found.advantages[2].tolist() == [0.0, 0.0]
    # .95 + .05 and .05, over their mean.
    assert found.weights[2].tolist() == pytest.approx([1.0 / 0.525, 0.05 / 0.525])


def test_it_is_as_short_as_the_page_says():
    assert len((FOLDER / "surprise_sharing.py").read_text().splitlines()) < 60
