"""Methods as settings, and whole runs of a few steps."""

import json
from dataclasses import asdict

import pytest

from laboratory.experiments import ABLATIONS, MAIN
from laboratory.grid import work
from laboratory.methods import algorithm, method_overrides
from laboratory.run import RunSpec, record_path, run
from laboratory.start_policy import StartPolicy
from srpo_verl.config import METHODS, settings
from tests.compose import compose
from workflows.tiny.start import build
from workflows.tiny.warmup import WarmUp

SMALL = StartPolicy(
    0, train=40, validation=6, test=6, warm_up=WarmUp(steps=100, clean_steps=80, batch=24, teacher_batch=8)
)


def departures(method: str) -> set[str]:
    """The keys in which the laboratory's method differs from the shipped one, but for the headings."""
    ours, shipped = asdict(algorithm(method)), asdict(settings(compose(method, ["platform=cpu"]).srpo))
    ours["teacher"]["sections"] = shipped["teacher"]["sections"]
    return {key for key in ours if ours[key] != shipped[key]}


def test_every_compared_method_is_a_shipped_config():
    assert {*MAIN, *ABLATIONS} == set(METHODS)
    for method in METHODS:
        assert departures(method) <= {"grad_norm_freq", "denominator"}, method
        assert algorithm(method).denominator == "all_tokens"
    with pytest.raises(ValueError, match="choose one of"):
        method_overrides("ppo")


@pytest.mark.slow
def test_a_run_is_reproducible_and_not_repeated(tmp_path):
    spec = RunSpec("main", "srpo", 1e-3, 0, steps=4, eval_every=2)
    texts = []
    for name in ("one", "other"):
        path = run(spec, tmp_path / name, SMALL)
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert [line["kind"] for line in lines] == ["run", "eval", "train", "eval", "train", "eval"]
        assert lines[-1]["step"] == 4
        assert lines[-1]["accuracy"] <= lines[-1]["pass@4"] <= lines[-1]["pass@16"]
        assert lines[2]["srpo/routed_share"] > 0
        # Seconds are the machine's; all else is the seed's.
        texts.append([{k: v for k, v in line.items() if "seconds" not in k} for line in lines])
    assert texts[0] == texts[1]
    changed = path.stat().st_mtime_ns
    assert run(spec, tmp_path / "other", SMALL) == path
    assert path.stat().st_mtime_ns == changed
    assert not build(tmp_path / "other" / "start" / "0", SMALL)


@pytest.mark.slow
def test_methods_of_other_papers_run_by_name(tmp_path):
    """Those whose parts are not SRPO's: references, states, soft routes, modulators, a contrast."""
    for method in ("opsd", "drift", "rlcsd"):
        path = run(RunSpec("family", method, 1e-3, 0, steps=3, eval_every=3), tmp_path, SMALL)
        train = [json.loads(line) for line in path.read_text().splitlines()][2]
        assert train["kind"] == "train"
        assert train["actor/grad_norm"] > 0
        assert (train["srpo/routed_share"] > 0) == (method != "rlcsd")


@pytest.mark.parametrize("method", ["sdpg", "drift"])
def test_settings_with_nodes_and_lists_reach_the_laboratory(method):
    assert departures(method) <= {"grad_norm_freq", "denominator"}


def test_a_grid_skips_what_is_done(tmp_path, monkeypatch):
    done = []

    def pretend(spec, folder):
        done.append(spec.seed)
        record_path(folder, spec).write_text("{}")

    monkeypatch.setattr("laboratory.grid.run", pretend)
    specs = [RunSpec("main", "srpo", 1e-4, seed) for seed in range(3)]
    path = record_path(tmp_path, specs[1])
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    work(specs, tmp_path)
    work(specs, tmp_path)
    assert done == [0, 2]
