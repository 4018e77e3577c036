"""Results: what counts as passed, the exit status, and the way through JSON and the page."""

import json

import pytest

from workflows.gpu_check.page import REHEARSAL, markdown_page
from workflows.gpu_check.result import Check, Outcome, Peak, Report, Stage, read_report

PASSED = Check("exact", Outcome.PASSED, 1.5, figures={"one_pass": "3.1 ms"}, said=["off by 2e-8"])
FAILED = Check("waits", Outcome.FAILED, 0.5, "it waits <9> times | per row")
SKIPPED = Check("two ranks", Outcome.SKIPPED, reason="needs 2 GPUs")


def report(*stages, platform="gpu"):
    return Report(
        platform, "2026-01-02T03:04:05+0000", {"gpu": "1 x NVIDIA X", "versions": {"torch": "2.11"}}, list(stages)
    )


@pytest.mark.parametrize(
    ("stage", "outcome", "status"),
    [
        (Stage(checks=[PASSED, SKIPPED]), Outcome.PASSED, 0),
        (Stage(checks=[PASSED, FAILED]), Outcome.FAILED, 1),
        (Stage(checks=[SKIPPED]), Outcome.NOT_RUN, 3),
        (Stage(reason="vllm is not installed"), Outcome.NOT_RUN, 3),
        (Stage(checks=[PASSED], reason="not done after 9 s"), Outcome.FAILED, 1),
        (Stage(), Outcome.NOT_RUN, 3),
    ],
)
def test_a_stage_counts_as_what_it_did(stage, outcome, status):
    assert stage.outcome is outcome
    assert report(stage).exit_status == status


def test_a_failure_is_worse_than_what_did_not_run_and_nothing_is_no_success():
    assert report(Stage(reason="no vllm"), Stage(checks=[FAILED])).exit_status == 1
    assert report(Stage(reason="no vllm"), Stage(checks=[PASSED])).exit_status == 3
    assert report().exit_status == 3


def test_the_report_comes_back_from_json():
    stage = Stage("core", "the loss", [PASSED, FAILED], [Peak("update", 11.0, 10.0)], 12.0, 300.0, log="core.log")
    before = report(stage, Stage("stack", reason="no vllm"))
    content = json.loads(json.dumps(before.as_dict()))
    assert read_report(content) == before
    assert (content["stages"][0]["outcome"], content["stages"][1]["outcome"]) == ("failed", "not run")
    with pytest.raises(ValueError, match="format 99"):
        read_report({**content, "format": 99})


@pytest.mark.parametrize(("planned", "near"), [(114.9, True), (115.1, False), (85.1, True), (84.9, False)])
def test_near_is_within_15_percent_of_what_was_measured(planned, near):
    assert Peak("update", planned, 100.0).near is near


def test_the_page_says_everything_and_nothing_breaks_its_tables():
    stage = Stage("core", "the loss", [PASSED, FAILED, SKIPPED], [Peak("update", 2**30, 2 * 2**30)], 12.0, 300.0)
    page = markdown_page(report(stage, Stage("stack", "all of it", reason="not installed here: vllm")))
    assert REHEARSAL not in page
    assert "1 x NVIDIA X" in page
    assert "| core | **failed** | 1 | 1 | 1 | 12 of 300 |" in page
    assert "| update | 1.00 | 2.00 | -50% | **not near** |" in page
    assert "| exact | passed | 1.5 | one_pass 3.1 ms<br>off by 2e-8 |" in page
    assert "it waits &lt;9> times \\| per row" in page
    assert "Not run: not installed here: vllm" in page
    assert REHEARSAL in markdown_page(report(stage, platform="cpu"))
