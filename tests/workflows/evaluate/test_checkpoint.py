"""Which folder a name means, and checkpoints that are not whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from srpo_verl.training.durable import checkpoint_store
from workflows.cli import app
from workflows.evaluate.checkpoint import MERGED, check_whole, find_actor, resolve_model
from workflows.evaluate.held_checkpoint import CheckpointError


def write_checkpoint(folder: Path, *, ranks: int = 2) -> Path:
    """The files of `global_step_N/actor` with contents that only look right from outside."""
    actor = folder / "actor"
    (actor / "huggingface").mkdir(parents=True)
    (actor / "huggingface" / "config.json").write_text("{}")
    (actor / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": ranks}))
    for rank in range(ranks):
        torch.save({"w": torch.arange(1000)}, actor / f"model_world_size_{ranks}_rank_{rank}.pt")
    return actor


def write_model(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"x")
    return folder


def test_a_model_is_taken_as_it_is(tmp_path):
    assert resolve_model(str(write_model(tmp_path / "model"))) == str(tmp_path / "model")
    assert resolve_model("Qwen/Qwen3-8B") == "Qwen/Qwen3-8B"


def test_every_name_of_a_checkpoint_means_its_actor(tmp_path):
    actor = write_checkpoint(tmp_path / "run" / "global_step_10")
    write_checkpoint(tmp_path / "run" / "global_step_9")
    for path in (actor, actor.parent, tmp_path / "run"):
        assert find_actor(path) == actor
    shutil.move(tmp_path / "run", tmp_path / "demo" / "checkpoints")
    assert find_actor(tmp_path / "demo") == tmp_path / "demo" / "checkpoints" / "global_step_10" / "actor"


def test_the_newest_is_the_last_whole_one(tmp_path):
    """A save that was interrupted is passed over, and going back to an earlier step makes that the newest."""
    for step in (10, 4, 20):
        checkpoint_store.begin(tmp_path / f"global_step_{step}", step)
        write_checkpoint(tmp_path / f"global_step_{step}")
        if step < 20:
            checkpoint_store.finish(tmp_path / f"global_step_{step}", step=step, run="run")
    (tmp_path / "global_step_20" / "actor" / "fsdp_config.json").unlink()
    actor = find_actor(tmp_path)
    assert actor == tmp_path / "global_step_4" / "actor"
    check_whole(actor)
    for step in (4, 10):
        shutil.rmtree(tmp_path / f"global_step_{step}")
    with pytest.raises(CheckpointError, match=r"that is whole .*global_step_20: the save was interrupted"):
        find_actor(tmp_path)


def test_a_checkpoint_that_is_merged_already_or_holds_a_model_is_not_merged(tmp_path):
    actor = write_checkpoint(tmp_path / "global_step_1")
    write_model(actor / MERGED)
    assert resolve_model(str(tmp_path / "global_step_1")) == str(actor / MERGED)
    write_model(actor / "huggingface")
    assert resolve_model(str(actor)) == str(actor / "huggingface")


def cut_off(actor: Path) -> None:
    shard = actor / "model_world_size_2_rank_1.pt"
    shard.write_bytes(shard.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut_off, "rank_1.pt is cut off"),
        (lambda actor: (actor / "model_world_size_2_rank_1.pt").unlink(), r"rank_1\.pt is missing.*has 2 rank"),
        (lambda actor: (actor / "fsdp_config.json").unlink(), r"has no fsdp_config\.json"),
        (lambda actor: (actor / "fsdp_config.json").write_text("{"), "cannot be read"),
        (lambda actor: (actor / "huggingface" / "config.json").unlink(), r"has no config\.json"),
        (shutil.rmtree, "no actor folder: writing it did not end"),
    ],
)
def test_a_half_written_checkpoint_is_refused_in_words(damage, says, tmp_path):
    actor = write_checkpoint(tmp_path / "global_step_3")
    check_whole(actor)
    damage(actor)
    with pytest.raises(CheckpointError, match=says):
        resolve_model(str(tmp_path / "global_step_3"))


@pytest.mark.slow
def test_what_the_merger_says_is_passed_on(tmp_path):
    write_checkpoint(tmp_path / "global_step_3", ranks=1)
    with pytest.raises(CheckpointError, match=r"(?s)could not merge.*By hand: .* -m verl\.model_merger merge"):
        resolve_model(str(tmp_path / "global_step_3"))
    assert not list((tmp_path / "global_step_3" / "actor").glob(f"*{MERGED}*"))


def test_command_line_errors(tmp_path):
    import pandas as pd

    def srpo(model, data, *more):
        words = ["evaluate", str(model), str(data), "--out", str(tmp_path / "out"), *more]
        return CliRunner().invoke(app, words)

    data = tmp_path / "data.parquet"
    row = {"data_source": "mcq", "prompt": [{"role": "user", "content": "?"}], "reward_model": {"ground_truth": "A"}}
    pd.DataFrame([row]).to_parquet(data)
    nothing = srpo(tmp_path / "nothing", data)
    assert nothing.exit_code == 1
    assert "there is no such folder" in nothing.output
    (tmp_path / "empty").mkdir()
    assert "neither a Hugging Face model" in srpo(tmp_path / "empty", data).output
    assert "there is no such file" in srpo("a/b", tmp_path / "no.parquet").output
    assert srpo("a/b", data, "--chat-template-kwargs", "{").exit_code == 2
    assert srpo("a/b", data, "--reward-kwargs", "[]").exit_code == 2
    assert srpo("a/b", data, "--temperature", "0").exit_code == 1
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_that_a_run_is_writing_is_refused_by_its_own_name_too(tmp_path):
    folder = tmp_path / "global_step_3"
    checkpoint_store.begin(folder, 3)
    write_checkpoint(folder)
    with pytest.raises(CheckpointError, match=r"is not whole \(the save was interrupted\): wait for the run"):
        resolve_model(str(folder))
