"""docs/tutorials/read-one-step.md and its pictures show what `python -m laboratory.one_step` gives."""

import re
from pathlib import Path

import pytest
import torch

from laboratory.one_group import one_step
from laboratory.one_step_figures import draw
from laboratory.one_step_text import told, widest
from srpo_verl.core import generalized_jsd

TUTORIALS = Path(__file__).resolve().parents[2] / "docs" / "tutorials"
PAGE = (TUTORIALS / "read-one-step.md").read_text()
PICTURES = ("group", "tokens", "top_k")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def step():
    return one_step()


def texts(svg: Path) -> list[str]:
    """All that is written in a picture; the shapes are matplotlib's."""
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg.read_text())


def test_every_block_of_the_page_is_what_the_command_prints(step):
    blocks = re.findall(r"```text\n(.*?)\n```", PAGE, re.DOTALL)
    assert len(blocks) == 8
    printed = told(step)
    for block in blocks:
        assert block in printed


def test_every_long_number_of_the_prose_is_in_the_output(step):
    prose = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
    numbers = re.findall(r"\d\.\d{4}", prose)
    assert len(numbers) >= 5
    printed = told(step)
    assert all(number in printed for number in numbers)


def test_the_pictures_show_these_numbers(step, tmp_path):
    draw(step, tmp_path)
    for name in PICTURES:
        assert f"images/{name}.svg" in PAGE
        shown = texts(TUTORIALS / "images" / f"{name}.svg")
        assert len(shown) > 4
        assert shown == texts(tmp_path / f"{name}.svg")


def test_the_parts_add_up(step):
    total = sum(step.policy_gradient(row) for row in range(4) if not step.plan.routed[row])
    for routed in step.routed:
        total += float((routed.divergence * routed.weight * routed.importance).sum())
    assert step.loss == pytest.approx(total / sum(map(len, step.responses)), abs=1e-5)
    weights = torch.cat([routed.weight for routed in step.routed])
    assert float(weights.mean()) == pytest.approx(1.0, abs=1e-6)


def test_the_divergence_follows_from_the_table_of_one_token(step):
    routed = step.routed[0]
    at = widest(routed)
    sides = [
        torch.cat([side[at], 1 - side[at].sum(0, keepdim=True)]).log() for side in (routed.student, routed.teacher)
    ]
    assert float(generalized_jsd(0.5)(*sides)) == pytest.approx(float(routed.divergence[at]), abs=1e-5)
