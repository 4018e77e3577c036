"""What a run is called follows from its settings, not from its name; the user has the last word."""

import pytest

from srpo_verl.config import FAMILY
from tests.compose import compose
from tests.workflows.report.run_folders import config, write_run, write_start
from workflows.report.config_differences import is_incidental
from workflows.report.labels import Labels, method_of
from workflows.report.reported_run import load_runs
from workflows.run_reader import Run


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("srpo", "SRPO"),
        ("srpo_tiny", "SRPO"),
        ("srpo_lora", "SRPO"),
        ("grpo", "GRPO"),
        ("sdpo", "SDPO"),
        ("srpo_routing_only", "SRPO, routing only"),
        ("advantage_mix", "Advantage Mix"),
        ("sdpo_correct_only", "SDPO, correct only"),
        ("sdpo_incorrect_only", "SDPO, incorrect only"),
        *FAMILY.items(),
    ],
)
def test_method_of_each_config(name, method, tmp_path):
    settings = compose(name)
    assert method_of(Run(tmp_path, [], settings, {}, 1, tmp_path)) == method
    if name == "srpo_tiny":
        settings.srpo.route, settings.srpo.policy_gradient = "none", "all"
        assert method_of(Run(tmp_path, [], settings, {}, 1, tmp_path)) == "GRPO"


def test_seeds_are_one_method_and_another_beta_is_not(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path / f"s{seed}", "srpo", seed=seed, steps=2)
    write_run(tmp_path / "b", "srpo", seed=0, steps=2, beta=2.0)
    # Another benchmark may have other settings: it is not the same experiment in any case.
    write_run(tmp_path / "p", "srpo", seed=0, steps=2, sources=("physics",), beta=3.0)
    runs, _ = load_runs([tmp_path])
    assert {run.name: (run.method, run.seed) for run in runs} == {
        "b": ("SRPO (beta=2.0)", "0"),
        "p": ("SRPO", "0"),
        "s0": ("SRPO", "0"),
        "s1": ("SRPO", "1"),
    }


@pytest.mark.parametrize(
    ("name", "incidental"),
    [
        ("data.seed", True),
        ("trainer.save_freq", True),
        ("trainer.test_freq", False),
        ("actor_rollout_ref.rollout.gpu_memory_utilization", True),
        ("actor_rollout_ref.actor.ppo_max_token_len_per_gpu", True),
        ("actor_rollout_ref.actor.optim.lr", False),
        ("actor_rollout_ref.rollout.val_kwargs.n", False),
        ("srpo.dump_freq", True),
        ("srpo.teacher.ema_rate", False),
    ],
)
def test_what_seeds_may_differ_in(name, incidental):
    assert is_incidental(name, ["1", "2"]) is incidental
    assert is_incidental(name, ["/a/model", "/b/model"])


def test_a_setting_of_a_later_version_does_not_tell_runs_apart(tmp_path):
    write_run(tmp_path / "old", "srpo", seed=0, steps=2)
    write_run(tmp_path / "new", "srpo", seed=1, steps=2, grace=0.5)
    assert {run.method for run in load_runs([tmp_path])[0]} == {"SRPO"}


@pytest.mark.parametrize(("kind", "name"), [("variants", "divergence=skew"), ("rewards", "my_graders")])
def test_two_versions_of_the_sources_are_two_experiments(tmp_path, kind, name):
    settings = config("srpo", seed=0, steps=1, divergence="skew")
    for n, digest in enumerate(("aaa", "aaa", "bbb")):
        record = {kind: {name: f"mine:skew, mine 0.1, sha256 {digest}"}}
        write_start(tmp_path / f"r{n}", settings, [], record=record)
    methods = [run.method for run in load_runs([tmp_path])[0]]
    assert methods == ["srpo", "srpo", f"srpo (sources of {name}=sha256 bbb)"]


def test_labels_of_the_user(tmp_path, monkeypatch):
    write_run(tmp_path / "a", "srpo", steps=2)
    write_run(tmp_path / "b", "srpo", steps=2, beta=2.0)
    pattern, labels = Labels.parse("*/b:method=Ours, beta 2".replace(", ", " "))
    given = {pattern: labels, "a": Labels(benchmark="Chemistry L3", seed="7", model="8B")}
    a, b = load_runs([tmp_path], labels=given)[0]
    assert (a.method, a.model, a.seed, list(a.held_out)) == ("SRPO", "8B", "7", ["Chemistry L3"])
    assert (b.method, b.model, list(b.held_out)) == ("Ours beta 2", "Qwen/Qwen3-8B", ["chemistry"])
    monkeypatch.chdir(tmp_path.parent)
    relative = {f"{tmp_path.name}/a": Labels(seed="8")}
    assert [run.seed for run in load_runs([tmp_path], labels=relative)[0]] == ["8", "0"]
    _, notes = load_runs([tmp_path], labels={"nothing": labels})
    assert notes == ["the label pattern 'nothing' matches no run"]
    for text in ("a", "a:b", "a:colour=red", ":method=x", "a:method="):
        with pytest.raises(ValueError, match="PATTERN:KEY=VALUE"):
            Labels.parse(text)


def test_a_local_model_is_named_by_what_says_something(tmp_path):
    for place, model in enumerate(("/data/tiny/model", "/data/Qwen3-8B", "Qwen/Qwen3-4B")):
        write_start(tmp_path / str(place), config("srpo", seed=0, steps=1, model=model), [])
    assert [run.model for run in load_runs([tmp_path])[0]] == ["tiny/model", "Qwen3-8B", "Qwen/Qwen3-4B"]


@pytest.mark.parametrize(
    ("name", "values"),
    [("srpo.options.every.copy_freq", ["1", "100"]), ("srpo.teacher.path", ["null", "Qwen/Qwen3-8B"])],
)
def test_settings_of_a_variant_are_never_taken_for_places_or_frequencies(name, values):
    assert not is_incidental(name, values)
