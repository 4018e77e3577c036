"""The comparison of the family: its measures, its runs, its verdicts, and the page."""

import json
import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from statistics import mean

import pytest
import torch

from laboratory.answer_measures import answer_measures, expected_distinct, stated
from laboratory.claims import CLAIMS, Claim
from laboratory.comparison import MARK, NOTHING, PAGE, RECORDS, Comparison
from laboratory.experiments import (
    RATES,
    chosen_rate,
    family,
    family_rates,
    family_short,
    family_short_rates,
    learning_rates,
    short_rate,
)
from laboratory.family import CONTROLS, TITLES, compared, shown_reference
from laboratory.measure import Answers
from laboratory.methods import algorithm
from laboratory.page import renewed
from laboratory.results import read_records
from laboratory.run import RunSpec, record_path, run
from srpo_verl.config import FAMILY
from srpo_verl.core import SECTIONS
from tests.laboratory.test_evidence import write_record
from tests.laboratory.test_run import SMALL

REPOSITORY = Path(__file__).parents[2]
CLAIM = Claim("DRIFT ends above SRPO", "", "accuracy", "drift", "srpo")


@pytest.fixture
def at_home(monkeypatch):
    monkeypatch.chdir(REPOSITORY)


def write(folder: Path, method: str, ends: list[float], label: str = "") -> None:
    for seed, end in enumerate(ends):
        spec = RunSpec("family", method, 2e-4, seed, label=label)
        write_record(folder, spec, [0.3, 0.5, end])
        path = record_path(folder, spec)
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            if line["kind"] == "eval":
                line |= {"pass@4": 0.6, "pass@16": 0.7, "maj@16": 0.55, "distinct": 2.5, "distinct_questions": 40}
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def comparison(folder: Path) -> Comparison:
    return Comparison(folder / "records" / "family")


def test_expected_distinct_is_the_mean_over_all_draws():
    texts = ["a", "a", "a", "b", "b", "c"]
    for drawn in (1, 2, 4, 6):
        assert expected_distinct(texts, drawn) == pytest.approx(mean(len(set(d)) for d in combinations(texts, drawn)))
    assert expected_distinct(["a"] * 4, 4) == 1
    assert expected_distinct(list("abcd"), 4) == 4
    with pytest.raises(ValueError, match="4 texts cannot be drawn from 3"):
        expected_distinct(["a", "b", "c"], 4)


def test_measures_of_answers():
    """A question right half of the time, in two texts; one that is never right and states nothing once."""
    right, other = "so 1\n#### 1", "now 1\n#### 1"
    texts = [right, right, right, other, *["#### 2", "#### 3", "#### 4", "#### 5"], *["#### 9"] * 7, "nothing"]
    correct = torch.tensor([[True] * 4 + [False] * 4, [False] * 8])
    found = answer_measures(Answers([], texts, [], correct, correct, correct))
    assert found["pass@4"] == pytest.approx((1 - 1 / 70) / 2)
    assert (found["pass@8"], found["maj@8"]) == (0.5, 0.5)
    assert (found["distinct"], found["distinct_questions"]) == (2.0, 1)
    assert "distinct" not in answer_measures(Answers([], texts, [], correct, correct, correct & False))
    assert [stated(right), stated("nothing"), stated("#### 7\n#### 3")] == ["1", "", "3"]


def all_rows(seeds=range(5)) -> list[RunSpec]:
    return compared(lambda method: 1e-4, seeds, 480)


def test_every_method_and_control_on_every_seed_seed_by_seed():
    specs = all_rows()
    assert [spec.label or spec.method for spec in specs] == [*TITLES] * 5
    assert {*FAMILY} <= {*TITLES}
    assert [spec.seed for spec in specs] == sorted(spec.seed for spec in specs)
    assert {spec.split for spec in specs} == {"test"}
    assert len({spec.name for spec in specs}) == len(specs)


def test_a_control_changes_one_setting_of_its_method():
    for control in CONTROLS.values():
        ours, theirs = algorithm(control.method, control.overrides), algorithm(control.method)
        changed = {key for key in vars(ours) if vars(ours)[key] != vars(theirs)[key]}
        # The options are those of the parts that are named.
        assert len(changed - {"options"}) == 1, control


def test_what_a_teacher_is_shown_has_the_form_of_the_warm_up():
    """Under another heading the tiny model reads nothing."""
    for spec in all_rows(range(1)):
        sections = algorithm(spec.method, spec.overrides).sections()
        assert {sections[name] for name in sections if name != "question"} <= {SECTIONS["sibling"]}, spec.name


@pytest.mark.slow
def test_every_row_trains(tmp_path, at_home):
    """Two steps of each method and control from a hasty start: the records have all that the tables want."""
    for spec in all_rows(range(1)):
        run(replace(spec, steps=2, eval_every=2), tmp_path, SMALL)
    made = comparison(tmp_path)
    assert [*made.runs] == [*TITLES]
    for runs in made.runs.values():
        assert {"pass@4", "pass@16", "maj@16", "distinct_questions"} <= runs[0].evals[-1].keys()
        assert runs[0].train[0]["actor/grad_norm"] >= 0
    assert NOTHING not in made.tables().values()
    assert made.results().count(MARK) == 7


def test_the_full_protocol_wants_a_chosen_rate_for_each_method(tmp_path):
    with pytest.raises(FileNotFoundError, match="learning rate of grpo is not chosen: run learning_rates"):
        family(tmp_path)
    for spec in [*learning_rates(tmp_path), *family_rates(tmp_path)]:
        if spec.method != "opsd":
            write_record(tmp_path, spec, [0.3, 0.6 if spec.lr == 5e-4 and spec.method == "drift" else 0.5])
    with pytest.raises(FileNotFoundError, match="learning rate of opsd is not chosen: run family_rates"):
        family(tmp_path)
    for spec in family_rates(tmp_path):
        if spec.method == "opsd":
            write_record(tmp_path, spec, [0.3, 0.5])
    assert (chosen_rate(tmp_path, "drift"), chosen_rate(tmp_path, "srpo")) == (5e-4, min(RATES))
    assert len(family(tmp_path)) == 5 * len(TITLES)
    assert {spec.steps for spec in family(tmp_path)} == {480}
    assert {spec.seed for spec in family_rates(tmp_path)}.isdisjoint(spec.seed for spec in family(tmp_path))


def test_the_short_protocol_chooses_all_rates_alike_by_the_first_seed(tmp_path):
    with pytest.raises(FileNotFoundError, match="learning rate of grpo is not chosen: run family_short_rates"):
        family_short(tmp_path)
    searched = family_short_rates(tmp_path)
    assert {spec.name for spec in searched} < {s.name for s in (*learning_rates(tmp_path), *family_rates(tmp_path))}
    for spec in searched:
        write_record(tmp_path, spec, [0.3, 0.6 if spec.lr == 5e-4 and spec.method in ("sdpo", "rlcsd") else 0.5])
    short = family_short(tmp_path)
    assert {spec.method for spec in short if spec.lr == 5e-4} == {"sdpo", "rlcsd"}
    assert {spec.lr for spec in short} == {min(RATES), 5e-4}
    assert ({spec.seed for spec in short}, {spec.steps for spec in short}) == ({0, 1, 2, 3, 4}, {240})
    assert (short_rate(tmp_path, "rlcsd"), short_rate(tmp_path, "grpo")) == (5e-4, min(RATES))
    assert {spec.seed for spec in searched}.isdisjoint(spec.seed for spec in short)


@pytest.mark.parametrize(
    ("ends", "verdict"),
    [
        ([0.7, 0.71, 0.72], "seen"),
        ([0.4, 0.41, 0.42], "falsified"),
        ([0.4, 0.61, 0.75], "not settled"),
        ([0.7, 0.71], "too few seeds"),
        ([0.9], "too few seeds"),
        ([], "not run"),
    ],
)
def test_a_verdict_is_the_interval_of_the_paired_difference(tmp_path, ends, verdict):
    write(tmp_path, "srpo", [0.6, 0.6, 0.6])
    write(tmp_path, "drift", ends)
    runs = comparison(tmp_path).runs
    assert CLAIM.verdict(runs) == verdict
    assert (f"- {CLAIM.text}: {verdict}." in comparison(tmp_path).unseen()) == (verdict != "seen")


def test_tables_mark_references_and_name_what_did_not_run(tmp_path):
    write(tmp_path, "srpo", [0.6, 0.6, 0.2])
    write(tmp_path, "opsd", [0.5])
    write(tmp_path, "srpo", [0.7], label="srpo_alpha_0")
    made = comparison(tmp_path)
    rows = made.results().splitlines()[2:]
    assert rows[0].startswith("| SRPO | 56.7 ± 14.3 | 46.7 ± 57.4 | 60.0 ± 0.0 | 70.0 ± 0.0 | 55.0 ± 0.0 | 2.5 ")
    assert rows[0].endswith("| 40 | 1 of 3 |")
    assert [row.split(" | ")[0] for row in rows] == ["| SRPO", f"| OPSD {MARK}", "| SRPO, alpha 0"]
    assert "Not run: GRPO, SDPO, I-SDPO," in made.ran()
    assert made.budgets().startswith("Seeds 0.")
    assert {name for name in FAMILY if shown_reference(name)} == {"opsd", "i_sdpo", "rlsd", "sdpg", "srpo_sign_routed"}
    shown = {name for name, control in CONTROLS.items() if shown_reference(control.method, control.overrides)}
    assert shown == {"opsd_unclipped", "srpo_reference"}
    assert comparison(tmp_path / "none").results() == NOTHING


def test_claims_are_about_rows_of_the_table():
    for claim in CLAIMS:
        assert {claim.higher, claim.lower} <= {*TITLES}
        assert claim.measure in ("accuracy", "pass@16", "distinct")


def test_the_page_tells_the_protocol_that_the_code_runs(tmp_path):
    page = (REPOSITORY / PAGE).read_text()
    rates = family_rates(tmp_path)
    assert "{1e-4, 2e-4, 5e-4}" in page
    assert sorted({spec.lr for spec in rates}) == [1e-4, 2e-4, 5e-4]
    assert ({spec.split for spec in rates}, len({spec.seed for spec in rates})) == ({"validation"}, 3)
    assert "**Full** (`family`): 480 steps, five seeds" in page
    assert "**Short** (`family_short`): 240 steps, and rates chosen on the first of these seeds" in page
    assert {spec.seed for spec in family_short_rates(tmp_path)} == {100}


def test_the_published_runs_have_the_rates_that_the_published_search_chose(tmp_path):
    for name in ("learning_rates", "family_rates"):
        shutil.copytree(REPOSITORY / RECORDS.parent / name, tmp_path / "records" / name)
    records = read_records(REPOSITORY / RECORDS)
    assert {record.label for record in records} == {*TITLES}
    for record in records:
        assert record.spec["lr"] == short_rate(tmp_path, record.spec["method"]), record.label


def test_the_page_is_what_the_records_give():
    page = (REPOSITORY / PAGE).read_text()
    tables = Comparison(REPOSITORY / RECORDS).tables()
    assert renewed(page, tables) == page, "run `python -m laboratory.comparison` and commit"
    with pytest.raises(ValueError, match="no markers <!-- claims -->"):
        renewed(page.replace("<!-- claims -->", ""), tables)
