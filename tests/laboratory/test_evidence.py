"""Statistics, the rule for learning rates, and the page: it says what the records say."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from laboratory.evidence import PAGE, RECORDS, TABLES, fill
from laboratory.experiments import (
    RATES,
    ablations,
    chosen_rate,
    further_seeds,
    learning_rates,
    main,
    reduced,
    teachers,
)
from laboratory.results import read_records, with_clock
from laboratory.run import RunSpec, record_path
from laboratory.table_text import spread
from laboratory.tables import Evidence

REPOSITORY = Path(__file__).parents[2]


def write_record(
    folder: Path,
    spec: RunSpec,
    accuracies: list[float],
    seconds: float = 0.5,
    form: Sequence[float] = (),
    gains: Sequence[float] = (),
) -> None:
    evals = [
        {
            "kind": "eval",
            "step": 30 * i,
            "accuracy": accuracy,
            "strict": accuracy / 2,
            "form": form[i] if form else 1.0,
            "shown_accuracy": 0.75,
            "shown_form": form[min(i + 1, len(form) - 1)] if form else 1.0,
            "cpu_seconds": 15.0 * i,
            "sampled_tokens": 1000 * i,
            "teacher_tokens": 500 * i * (spec.method != "grpo"),
        }
        for i, accuracy in enumerate(accuracies)
    ]
    train = [
        {"kind": "train", "step": 30 * i, "seconds": seconds, "teacher_seconds": 0.1, "actor/entropy": 0.3 / i}
        for i in range(1, len(accuracies))
    ]
    for line, gain in zip(train, gains, strict=False):
        line["srpo/teacher_gain"] = gain
    path = record_path(folder, spec)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [{"kind": "run", **spec.__dict__}, *evals, *train]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_spread():
    values = [0.61, 0.66, 0.58, 0.70, 0.64]
    half = 2.776 * np.std(values, ddof=1) / np.sqrt(5)
    assert spread(values) == f"63.8 ± {100 * half:.1f}"
    assert spread([value - 0.5 for value in values], sign=True) == f"+13.8 ± {100 * half:.1f}"
    assert [spread([0.5]), spread([0.5, 0.6])] == ["50.0", "55.0"]
    assert "±" in spread([seed / 13 for seed in range(13)])


@pytest.fixture
def folder(tmp_path):
    for spec in learning_rates(tmp_path):
        peak = {"grpo": 5e-4, "sdpo": 1e-4, "srpo": 2e-4}[spec.method]
        write_record(tmp_path, spec, [0.4, 0.6 if spec.lr == peak else 0.55, 0.5])
    return tmp_path


def test_the_rate_is_the_one_with_the_best_peak_and_is_kept(folder):
    assert [chosen_rate(folder, method) for method in ("grpo", "sdpo", "srpo")] == [5e-4, 1e-4, 2e-4]
    write_record(folder, learning_rates(folder)[0], [0.4, 0.9])
    assert chosen_rate(folder, "grpo") == 5e-4


def test_ties_go_to_the_lower_rate(tmp_path):
    for spec in learning_rates(tmp_path):
        write_record(tmp_path, spec, [0.4, 0.6])
    assert chosen_rate(tmp_path, "grpo") == min(RATES)


def test_no_choice_without_every_rate(folder):
    record_path(folder, learning_rates(folder)[0]).unlink()
    with pytest.raises(FileNotFoundError, match="learning rate of grpo"):
        main(folder)


def test_ablations_inherit_the_rate_of_what_they_vary(folder):
    rates = {spec.method: spec.lr for spec in ablations(folder)}
    assert rates == {
        "srpo_routing_only": 2e-4,
        "advantage_mix": 2e-4,
        "sdpo_correct_only": 1e-4,
        "sdpo_incorrect_only": 1e-4,
    }


def test_rate_seeds_and_splits_are_apart(folder):
    assert {spec.split for spec in learning_rates(folder)} == {"validation"}
    assert {spec.split for spec in [*main(folder), *ablations(folder)]} == {"test"}
    assert not {spec.seed for spec in learning_rates(folder)} & {spec.seed for spec in main(folder)}


def test_paired_differences_and_budgets(folder):
    for spec in main(folder):
        gain = {"grpo": 0.0, "sdpo": 0.05, "srpo": 0.1}[spec.method]
        write_record(folder, spec, [0.4, 0.5 + gain, 0.6 + gain - 0.3 * (spec.method == "sdpo")])
    evidence = Evidence(folder / "records")
    paired = evidence.paired()
    assert "| SRPO - GRPO | 0, 1, 2, 3, 4 | +10.0 ± 0.0 | +10.0 ± 0.0 | +10.0 ± 0.0 |" in paired
    assert "| SDPO - GRPO | 0, 1, 2, 3, 4 | -5.0 ± 0.0 | -25.0 ± 0.0 | -10.0 ± 0.0 |" in paired
    assert (
        "| SRPO | 0.0002 | 0, 1, 2, 3, 4 | 40.0 ± 0.0 | 70.0 ± 0.0 | 70.0 ± 0.0 | 35.0 ± 0.0 | 100.0 ± 0.0 |"
        in evidence.main()
    )
    # GRPO reads no teacher tokens: at its 2000 tokens the others are at their first validation.
    tokens = evidence.budgets().split("equal tokens")[1]
    assert "| SDPO | 40.0 ± 0.0 | 40.0 ± 0.0 | 40.0 ± 0.0 | 55.0 ± 0.0 |" in tokens


def test_further_seeds_are_a_row_of_their_own(folder):
    for spec in [*main(folder), *further_seeds(folder)]:
        gain = 0.1 if spec.method == "srpo" and spec.experiment == "main" else 0.0
        write_record(folder, spec, [0.4, 0.5, 0.5 + gain])
    paired = Evidence(folder / "records").paired()
    assert "| SRPO - GRPO | 0, 1, 2, 3, 4 | +10.0 ± 0.0 |" in paired
    assert "| SRPO - GRPO | 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 | +5.0 ± 3.8 |" in paired


def test_a_fall_is_told_with_what_went_first(folder):
    """The teacher loses the form one validation before the student does; with a frozen teacher nothing falls."""
    for spec in [*main(folder), *further_seeds(folder), *teachers(folder)]:
        if spec.seed == 7 and spec.method == "srpo" and not spec.label:
            form, gains = [1.0, 1.0, 0.97, 0.4], [0.1, -0.02, -0.2]
            write_record(folder, spec, [0.4, 0.6, 0.5, 0.25], form=form, gains=gains)
        else:
            write_record(folder, spec, [0.4, 0.5, 0.6, 0.6], gains=[0.1, 0.08, 0.05])
    evidence = Evidence(folder / "records")
    rows = evidence.falls().splitlines()[2:]
    assert rows == ["| SRPO | 7 | 60.0 at 30 | 25.0 | 60 | 90 | 40.0 |"]
    frozen = next(row for row in evidence.teachers().splitlines() if row.startswith("| SRPO, frozen teacher - SRPO |"))
    assert "| 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 | +0.0 ± 0.0 | +3.5 ± 7.9 |" in frozen
    assert frozen.endswith("| 1 of 10 | none | 7 |")
    reading = next(row for row in evidence.reading().splitlines() if row.startswith("| SRPO |"))
    assert "| 75.0 → 75.0 (least 75.0) | 100.0 → 94.0 (least 40.0) | 0.100 → 0.025 | 40.0 |" in reading


def test_the_clock_is_the_methods_median_pace(folder):
    write_record(folder, main(folder)[0], [0.4, 0.5, 0.6], seconds=0.2)
    records = read_records(folder / "records" / "main")
    with_clock(records)
    assert [line["clock"] for line in records[0].evals] == pytest.approx([0.0, 6.0, 12.0])


def test_smollm2_runs_by_step_and_seed(tmp_path):
    folder = tmp_path / "through_verl" / "smollm2"
    folder.mkdir(parents=True)
    for seed, end in ((0, 0.5), (1, 0.25)):
        lines = [
            {"kind": "run", "method": "grpo", "lr": 1e-5, "seed": seed},
            {"kind": "eval", "step": 0, "accuracy": 0.125},
            {"kind": "train", "step": 1, "timing_s/step": 4.0},
            {"kind": "train", "step": 2, "timing_s/step": 6.0 + seed, "says_correct": 0.25 + seed / 4},
            {"kind": "eval", "step": 2, "accuracy": end},
        ]
        (folder / f"grpo-{seed}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "| GRPO | 1e-05 | 0, 1 | 12.5 / 12.5 | 50.0 / 25.0 | 5.0 | 0.00 | 37.5 |" in Evidence(tmp_path).smollm2()


def page_with_markers() -> str:
    return "\n".join(f"<!-- {name} -->\nstale\n<!-- end {name} -->" for name in TABLES)


def test_filling_replaces_and_is_stable(folder):
    evidence = Evidence(folder / "records")
    once = fill(page_with_markers(), evidence)
    assert "stale" not in once
    assert fill(once, evidence) == once
    with pytest.raises(ValueError, match="no markers <!-- rates -->"):
        fill(page_with_markers().replace("<!-- rates -->", ""), evidence)


def test_the_page_is_what_the_records_give():
    page = (REPOSITORY / PAGE).read_text()
    assert fill(page, Evidence(REPOSITORY / RECORDS)) == page, "run `python -m laboratory.evidence` and commit"


def test_the_reduced_laboratory_uses_the_published_rates(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    specs = reduced(Path("unused"))
    assert len(specs) == 6
    published = json.loads((REPOSITORY / RECORDS / "rates.json").read_text())
    assert {spec.method: spec.lr for spec in specs} == published
