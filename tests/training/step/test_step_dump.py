"""The file of a step to look at: its routes, sums and tokens against values by hand; what a full disk leaves."""

import errno
import gzip
import json
import math
from dataclasses import replace

import pytest
import torch

from srpo_verl.config import SRPOConfig
from srpo_verl.core import TeacherPrompt, generalized_jsd, topk_divergence
from srpo_verl.training.step import step_dump
from srpo_verl.training.step.routed_tokens import RoutedTokens
from srpo_verl.training.step.routing_plan import Rollout, build_plan
from srpo_verl.training.step.step_dump import (
    Looked,
    dump_step,
    groups_to_dump,
    step_contents,
    two_bucket_divergence,
)
from srpo_verl.training.step.step_signals import StepView, step_signals
from srpo_verl.training.step.teacher_prompts import LeftOut

H = {1: [0.0, math.log(2.0), 5.0], 2: [math.log(4.0), 0.0]}


def decode(ids):
    """One letter a token; 90 and 91 are the two bytes of one character."""
    ids = ids.tolist()
    return bytes(b for n in ids for b in ({90: b"\xc3", 91: b"\xa9"}.get(n) or chr(97 + n).encode())).decode(
        errors="replace"
    )


def rollouts():
    return [
        Rollout("a_0_0", 1.0, 2),
        Rollout("a_1_0", 0.0, 3),
        Rollout("a_2_0", 0.0, 2),
        Rollout("b_0_0", 0.0, 2),
        Rollout("b_1_0", 0.0, 2),
        Rollout("c_0_0", 0.0, 1, reward_info={"infra_error": 1}),
        Rollout("c_1_0", 1.0, 2),
        Rollout("c_1_1", 1.0, 2),
        Rollout("d_0_0", 0.0, 1, padding=True),
    ]


def view_of(srpo, *, tokens=True, left_out=LeftOut(), divergence=None):  # noqa: B008
    rows = rollouts()
    plan = build_plan(rows, srpo, group_size=3, step=10).without([*left_out.too_long])
    responses = [torch.arange(row.response_length) for row in rows]
    responses[1] = torch.tensor([90, 91, 3])
    masks = [torch.ones(row.response_length) for row in rows]
    # The third token of rollout 1 is a tool's.
    masks[1][2] = 0.0
    found = None
    if tokens:
        asked = plan.asked_rows()
        student = [torch.full((len(H[row]),), math.log(0.5)) for row in asked]
        teacher = [torch.full((len(H[row]),), math.log(0.25)) for row in asked]
        entropy = [torch.tensor(H[row]) for row in asked]
        importance = [torch.full((len(H[row]),), 0.5) for row in asked]
        found = RoutedTokens(asked, entropy, entropy, teacher, student, importance)
    rewards = torch.tensor([row.score for row in rows])
    signals = step_signals(plan, srpo, rewards=rewards, masks=masks, normalize_by_std=False, tokens=found)
    prompt = TeacherPrompt([20, 21])
    looked = Looked(
        scalar=plan.advantages(rewards, srpo, normalize_by_std=False),
        prompts=dict.fromkeys(plan.asked_rows(), prompt),
        left_out=left_out,
        questions={0: [7, 8]},
        divergence=divergence,
    )
    return StepView(plan, responses, masks, found, signals, decode), looked


def contents(srpo=None, **options):
    srpo = srpo or SRPOConfig()
    return step_contents(*view_of(srpo, **options), srpo)


def test_branches_and_their_reasons():
    found = {line["row"]: line for line in contents()["rollouts"]}
    # Padding is nowhere.
    assert sorted(found) == list(range(8))
    assert [found[row]["branch"] for row in range(8)] == ["reinforced", *["distilled"] * 2, *["neither"] * 5]
    assert found[1]["why"] == "route incorrect takes it, and the teacher is shown: sibling"
    assert (found[1]["sibling"], found[1]["sibling_row"], found[1]["provider"]) == (0, 0, "sibling")
    assert found[3]["why"].startswith("none of sibling has anything")
    assert found[3]["why"].endswith("its advantage is 0")
    assert found[5]["why"] == "the grader could not decide: it counts nowhere"
    assert found[5]["correct"] is None
    assert found[6]["why"].startswith("an earlier output of its session")
    assert found[0]["advantage"] == pytest.approx(2 / 3, rel=1e-5)


def test_what_other_routes_distil():
    found = contents()
    shares = {name: [line["shares"][name] for line in found["rollouts"]] for name in found["routes"]}
    assert found["routes"][0] == "incorrect"
    assert shares["incorrect"] == [0, 1, 1, 0, 0, 0, 0, 0]
    assert shares["none"] == [0] * 8
    # Nobody has a correct sibling but the two wrong ones, so neither does `correct` find anybody.
    assert shares["all"] == shares["incorrect"] == shares["sign_routed"]
    assert shares["correct"] == shares["all_wrong"] == [0] * 8
    assert shares["longest_wrong"] == [0, 1, 0, 0, 0, 0, 0, 0]


def test_a_row_without_a_teacher_prompt_is_distilled_on_no_route():
    found = contents(left_out=LeftOut(too_long=(2,)))
    line = found["rollouts"][2]
    assert set(line["shares"].values()) == {0.0}
    assert line["why"].startswith("no teacher prompt: the question alone is longer")


def test_weights_follow_from_the_sums_for_any_beta():
    """Tokens with H = 0, ln 2, ln 4, 0 and beta 1: raw weights 1, 1/2, 1/4, 1, whose mean is 11/16."""
    found = contents()
    place = found["betas"].index(1.0)
    lines = found["rollouts"]
    assert (lines[1]["sums"][place], lines[2]["sums"][place]) == (1.5, 1.25)
    assert (lines[1]["tokens"], lines[2]["tokens"]) == (2, 2)
    assert lines[1]["sums"][found["betas"].index(2.0)] == 1.25
    assert lines[1]["sums"][found["betas"].index(0.0)] == 2.0
    assert found["entropy_floor"] == 0.0
    trained = {detail["row"]: detail["signals"].get("trained_weight") for detail in found["details"]}
    # Times the importance weight of 1/2; a tool's token has none.
    assert trained[1] == [pytest.approx(8 / 11, rel=1e-5), pytest.approx(4 / 11, rel=1e-5), None]
    assert trained[2] == [pytest.approx(2 / 11, rel=1e-5), pytest.approx(8 / 11, rel=1e-5)]
    assert trained[0] is None


def test_a_beta_of_the_run_is_on_the_grid():
    found = contents(SRPOConfig(beta=0.7))
    place = found["betas"].index(0.7)
    assert found["rollouts"][1]["sums"][place] == pytest.approx(1 + 2**-0.7, rel=1e-5)


def test_tokens_prompts_and_characters_of_several_tokens():
    found = contents()
    detail = next(detail for detail in found["details"] if detail["row"] == 1)
    assert detail["pieces"] == ["", "é", "d"]
    assert detail["mask"] == [1, 1, 0]
    assert detail["ids"] == [90, 91, 3]
    # Both failed rollouts are shown the same prompt: it is there once.
    assert found["teacher_prompts"] == ["uv"]
    assert found["groups"][0] == {"uid": "a", "question": "hi", "rows": [0, 1, 2]}


def test_the_divergence_of_two_buckets_by_hand():
    """Student (1/2, 1/2), teacher (1/4, 3/4), middle (3/8, 5/8)."""
    expected = 0.5 * (0.5 * math.log(4 / 3) + 0.5 * math.log(4 / 5)) + 0.5 * (
        0.25 * math.log(2 / 3) + 0.75 * math.log(6 / 5)
    )
    found = contents()
    detail = next(detail for detail in found["details"] if detail["row"] == 2)
    assert detail["signals"]["two_bucket_divergence"] == [pytest.approx(expected, rel=1e-4)] * 2
    assert "divergence" not in detail["signals"]
    assert found["divergence"] == "two_buckets"


def test_the_divergence_of_the_loss_takes_its_place():
    """Of the rows that have one; a tool's token has none."""
    found = contents(divergence={1: torch.tensor([0.5, 0.25, 0.0])})
    signals = {detail["row"]: detail["signals"] for detail in found["details"]}
    assert found["divergence"] == "loss"
    assert signals[1]["divergence"] == [0.5, 0.25, None]
    assert all("divergence" not in signals[row] for row in signals if row != 1)
    assert all("two_bucket_divergence" not in of_row for of_row in signals.values())


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_two_buckets_never_exceed_the_whole_vocabulary(alpha):
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 200, 30, generator=generator, dtype=torch.float64).log_softmax(-1)
    whole = generalized_jsd(alpha)(student, teacher)
    two = two_bucket_divergence(student[:, 4], teacher[:, 4], alpha=alpha)
    assert bool((two <= whole + 1e-12).all())
    assert float(two.max()) > 0.01
    # Nor the top K and one bucket for the rest, where the token is among these.
    ids = student.topk(8).indices
    loss = topk_divergence(student.gather(-1, ids), teacher.gather(-1, ids), divergence=generalized_jsd(alpha))
    listed = (ids == 4).any(-1)
    assert bool((two <= loss + 1e-12)[listed].all())
    assert 20 < int(listed.sum()) < 180


def test_few_groups_and_the_distilled_ones_first():
    view, _ = view_of(SRPOConfig(route="none", policy_gradient="all"), tokens=False)
    assert list(groups_to_dump(view, 9)) == ["a", "b", "c"]
    renamed = [replace(row, key=row.key.replace("a_", "z_")) for row in rollouts()]
    plan = build_plan(renamed, SRPOConfig())
    view = StepView(plan, view.responses, view.masks, None, view.signals, decode)
    assert list(groups_to_dump(view, 2)) == ["z", "b"]
    assert groups_to_dump(view, 2)["z"] == [0, 1, 2]


def test_a_step_without_a_teacher_is_dumped():
    found = contents(SRPOConfig(route="none", policy_gradient="all"), tokens=False)
    assert all("sums" not in line for line in found["rollouts"])
    assert found["rollouts"][1]["why"] == "route none distils nobody"
    assert found["rollouts"][1]["branch"] == "reinforced"


def test_numbers_that_are_not_finite_are_none(tmp_path):
    srpo = SRPOConfig()
    view, looked = view_of(srpo)
    view.signals.advantages[0][0] = math.nan
    data = json.loads(gzip.decompress(dump_step(str(tmp_path), view, looked, srpo).read_bytes()))
    detail = next(detail for detail in data["details"] if detail["row"] == 0)
    assert detail["signals"]["advantage"] == [None, pytest.approx(2 / 3, rel=1e-5)]


def test_a_full_disk_leaves_the_older_file_and_a_sentence(tmp_path, monkeypatch, caplog):
    srpo = SRPOConfig()
    path = dump_step(str(tmp_path / "new"), *view_of(srpo), srpo)
    assert path == tmp_path / "new" / "10.json.gz"
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(step_dump, "write_atomically", full)
    assert dump_step(str(tmp_path / "new"), *view_of(srpo), srpo) is None
    assert "training goes on: [Errno 28] No space left" in caplog.text
    assert path.read_bytes() == before
