"""The tables against numbers worked out by hand."""

import math

import numpy as np
import pytest

from tests.workflows.report.run_folders import config, line, write_start
from workflows.report.budget_tables import ablation_table, accuracy_table, speed_table
from workflows.report.intervals import estimate, t_quantile
from workflows.report.paper_results import published
from workflows.report.reported_run import load_runs


def write(folder, method, seed, accuracies, *, seconds=10.0, source="chem"):
    """A run validated before training and after every step."""
    lines = [line(0, **{f"val-core/{source}/acc/mean@16": accuracies[0]})]
    for step, accuracy in enumerate(accuracies[1:], start=1):
        lines.append(line(step, timing_s__step=seconds, **{f"val-core/{source}/acc/mean@16": accuracy}))
    write_start(folder, config(method, seed=seed, steps=len(accuracies) - 1), lines)


def rows(table):
    return {
        (group.heading, row[0].text): [cell.plain for cell in row[1:]] for group in table.groups for row in group.rows
    }


def test_best_within_each_budget_mean_over_seeds_and_interval(tmp_path):
    write(tmp_path / "a", "srpo", 1, [0.40, 0.50, 0.70, 0.60])
    write(tmp_path / "b", "srpo", 2, [0.42, 0.54, 0.52, 0.80])
    write(tmp_path / "c", "grpo", 1, [0.40, 0.90, 0.10, 0.20], seconds=20.0)
    runs, notes = load_runs([tmp_path])
    assert notes == []
    table = accuracy_table(runs, [5.0, 10.0, 20.0, 30.0])
    # srpo: 50 and 54 -> 52, 70 and 54 -> 62, 70 and 80 -> 75; half-widths 12.706 * std / sqrt(2).
    assert rows(table) == {
        ("chem", "GRPO"): ["1", "40.0", "–", "–", "90.0", "90.0"],
        ("chem", "SRPO"): ["2", "41.0 ± 12.7", "–", "52.0 ± 25.4", "62.0 ± 101.6", "75.0 ± 63.5"],
    }
    assert table.title == "Best avg@16 (%) within a budget of training time"
    best = {(row[0].text, n) for group in table.groups for row in group.rows for n, c in enumerate(row) if c.best}
    assert best == {("SRPO", 4), ("GRPO", 5), ("GRPO", 6)}
    text = " ".join(table.notes)
    assert "single run" in text
    assert "optimistic" in text
    assert "val-core/chem/acc/mean@16" in text


def test_the_paper_stands_beside_runs_of_its_models_and_budgets(tmp_path):
    write(tmp_path / "a", "srpo", 1, [0.4, 0.5], seconds=3000.0, source="sciknoweval_chemistry")
    runs, _ = load_runs([tmp_path])
    assert runs[0].model == "Qwen/Qwen3-8B"
    table = accuracy_table(runs, [600.0, 3600.0, 18000.0])
    assert rows(table)["sciknoweval_chemistry", "SRPO, paper"] == ["1", "41.1", "–", "69.2", "81.8"]
    assert any("2604.02288" in note for note in table.notes)
    assert list(rows(accuracy_table(runs, [600.0]))) == [("sciknoweval_chemistry", "SRPO")]
    # Averages of Table 1, as the paper prints them.
    for model, method, averages in (
        ("Qwen3-8B", "GRPO", (61.8, 72.5, 74.0)),
        ("Qwen3-8B", "SDPO", (64.8, 71.1, 71.1)),
        ("Qwen3-8B", "SRPO", (66.9, 75.5, 77.4)),
        ("Qwen3-4B", "GRPO", (61.8, 68.4, 69.7)),
        ("Qwen3-4B", "SDPO", (65.0, 66.7, 66.7)),
        ("Qwen3-4B", "SRPO", (65.8, 71.2, 74.2)),
    ):
        known = [published(model, name, method) for name in ("chemistry", "physics", "biology", "materials", "tooluse")]
        for hours, average in zip((1, 5, 10), averages, strict=True):
            assert np.mean([values[3600.0 * hours] for values in known]) == pytest.approx(average, abs=0.06)
    assert published("Qwen3-14B", "chemistry", "SRPO") is None
    assert published("Qwen3-8B", "gsm8k", "SRPO") is None


def test_a_run_shorter_than_the_budget_is_marked(tmp_path):
    write(tmp_path / "a", "srpo", 1, [0.4, 0.5])
    table = accuracy_table(load_runs([tmp_path])[0], [10.0, 19.0, 21.0])
    # Less than a step is missing at 19 s: the run was stopped for that budget.
    assert rows(table)["chem", "SRPO"] == ["1", "40.0", "50.0", "50.0", "50.0†"]
    assert any(note.startswith("†") for note in table.notes)


def test_a_run_that_was_not_validated_in_time_is_left_out_of_the_mean_and_marked(tmp_path):
    write(tmp_path / "a", "srpo", 1, [0.4, 0.5, 0.6])
    write(tmp_path / "b", "srpo", 2, [0.4, 0.7, 0.8], seconds=15.0)
    table = accuracy_table(load_runs([tmp_path])[0], [10.0])
    assert rows(table)["chem", "SRPO"] == ["2", "40.0 ± 0.0", "50.0‡"]
    assert any(note.startswith("‡") for note in table.notes)


def test_step_0_is_no_result_of_training(tmp_path):
    write(tmp_path / "a", "srpo", 1, [0.9, 0.5])
    assert rows(accuracy_table(load_runs([tmp_path])[0], [10.0]))["chem", "SRPO"] == ["1", "90.0", "50.0"]


def test_average_is_over_the_benchmarks_that_all_methods_have(tmp_path):
    for seed, (x, y) in enumerate([(0.6, 0.8), (0.7, 0.9)]):
        write(tmp_path / f"x{seed}", "srpo", seed, [0.1, x], source="x")
        write(tmp_path / f"y{seed}", "srpo", seed, [0.1, y], source="y")
        write(tmp_path / f"gx{seed}", "grpo", seed, [0.1, 0.5], source="x")
    runs, _ = load_runs([tmp_path])
    table = ablation_table(runs, [10.0])
    assert rows(table)["", "SRPO"] == ["65.0 ± 63.5"]
    assert any("Left out" in note and note.endswith("y.") for note in table.notes)
    without_grpo = ablation_table([run for run in runs if run.method == "SRPO"], [10.0])
    # By seed: (60 + 80) / 2 and (70 + 90) / 2.
    assert rows(without_grpo)["", "SRPO"] == ["75.0 ± 63.5"]


def test_seconds_per_step_in_the_window(tmp_path):
    lines = [line(step, timing_s__step=float(10 * step), timing_s__save_checkpoint=5.0) for step in (1, 2, 3)]
    write_start(tmp_path, config("sdpo", seed=0, steps=3), lines)
    runs, _ = load_runs([tmp_path])
    assert rows(speed_table(runs, [20.0, 45.0])) == {("chemistry/train", "SDPO"): ["1", "10.00", "15.00"]}


def test_t_quantiles_are_those_of_the_distribution():
    for degrees in (1, 2, 7, 12, 30, 39, 400):
        x = np.linspace(0, t_quantile(degrees), 200_001)
        log_scale = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - 0.5 * math.log(degrees * math.pi)
        density = np.exp(log_scale) * (1 + x**2 / degrees) ** (-(degrees + 1) / 2)
        assert np.trapezoid(density, x) == pytest.approx(0.475, abs=2e-5)
    assert t_quantile(12) == pytest.approx(2.178813, abs=1e-6)
    assert t_quantile(39) == pytest.approx(2.022691, abs=1e-6)
    for count in (2, 13, 40):
        values = [float(number) for number in range(count)]
        found = estimate(values)
        assert found.half_width == pytest.approx(t_quantile(count - 1) * np.std(values, ddof=1) / math.sqrt(count))
    assert estimate([]) is None
    assert estimate([0.5]).half_width is None
