"""What is exported is the model of the checkpoint that was asked for; what cannot be exported is refused in words."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from typer.testing import CliRunner

from srpo_verl.base.lease import take
from srpo_verl.training.durable import checkpoint_store
from tests.patience import PROCESS
from tests.training import lora, tiny_model
from tests.workflows.evaluate import sharded_checkpoint
from tests.workflows.export import runs
from tests.workflows.fake_trainer import log_metrics
from workflows.cli import app
from workflows.evaluate.held_checkpoint import CheckpointError, hold
from workflows.export import export as module
from workflows.export.export import export

TOKENS = torch.tensor([[5, 60, 100, 7, 33]])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model.build(tmp_path_factory.mktemp("model"))


def logits(folder, **options):
    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(folder, **options)(TOKENS).logits


@pytest.mark.slow
def test_shards_of_two_ranks_become_the_actor_in_bfloat16(model, tmp_path):
    run = runs.write_trained(tmp_path / "run", model)
    step = checkpoint_store.step_folder(run, 10)
    checkpoint_store.begin(step, 10)
    command = [sys.executable, "-m", sharded_checkpoint.__name__, str(model), str(step), "2"]
    subprocess.run(command, check=True, timeout=PROCESS)
    (step / "store").unlink(missing_ok=True)
    shutil.copy(model / "generation_config.json", step / "actor" / "huggingface")
    checkpoint_store.finish(step, step=10, run=runs.TOKEN)
    done = export(run, tmp_path / "given" / "away")
    assert done.step == 10
    assert done.files.keys() >= {"README.md", "config.json", "generation_config.json", "model.safetensors"}
    assert done.files.keys() >= {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    assert [place.name for place in done.folder.parent.iterdir()] == ["away"]
    assert torch.equal(logits(done.folder), logits(model, dtype=torch.bfloat16))
    ours, theirs = AutoTokenizer.from_pretrained(done.folder), AutoTokenizer.from_pretrained(model)
    question = [{"role": "user", "content": "1+2="}]
    assert ours.apply_chat_template(question, add_generation_prompt=True) == theirs.apply_chat_template(
        question, add_generation_prompt=True
    )
    assert GenerationConfig.from_pretrained(done.folder).eos_token_id == theirs.eos_token_id


def test_the_checkpoint_that_was_asked_for(model, tmp_path):
    run = runs.write_trained(tmp_path / "run", model, 5)
    better = tiny_model.build(tmp_path / "better", seed=1)
    runs.write_checkpoint(run, 10, better, accuracy=0.9)
    runs.write_checkpoint(run, 15, model, accuracy=0.4)
    runs.begin_checkpoint(run, 20)  # the run is writing it
    taken = {
        name: export(run, tmp_path / name, **asked)
        for name, asked in {"newest": {}, "five": {"step": 5}, "best": {"best": True}}.items()
    }
    assert {name: done.step for name, done in taken.items()} == {"newest": 15, "five": 5, "best": 10}
    assert torch.equal(logits(tmp_path / "best"), logits(better))
    assert not torch.equal(logits(tmp_path / "newest"), logits(better))
    assert "| 5 |" in (tmp_path / "five" / "README.md").read_text()
    assert "| 10 |" not in (tmp_path / "five" / "README.md").read_text()


def test_a_run_that_goes_on_keeps_what_is_being_exported(model, tmp_path, monkeypatch):
    run = runs.write_trained(tmp_path / "run", model, 5, 10)
    copy, held = module.copy_model, []

    def copying(source, to):
        held.append(checkpoint_store.is_read(run / "global_step_5"))
        # What the run does after each save; step 10 is its newest.
        assert checkpoint_store.prune(run, run=runs.TOKEN, keep=1) == []
        copy(source, to)

    monkeypatch.setattr(module, "copy_model", copying)
    with take(run).keep():
        export(run, tmp_path / "out", step=5)
    assert held == [True]
    assert not (run / "global_step_5" / checkpoint_store.READERS).exists()


def test_readers_do_not_stand_in_each_others_way_and_a_removed_checkpoint_is_said(model, tmp_path):
    run = runs.write_trained(tmp_path / "run", model, 5, 10)
    with hold(run / "global_step_5", "evaluating"), hold(run / "global_step_5", "exporting"):
        assert export(run, tmp_path / "out", step=5).step == 5
        assert checkpoint_store.prune(run, run=runs.TOKEN, keep=1) == []
    assert checkpoint_store.prune(run, run=runs.TOKEN, keep=1) == [run / "global_step_5"]
    with pytest.raises(CheckpointError, match="has just been removed by its run"):
        hold(run / "global_step_5", "exporting")
    assert not (run / "global_step_5").exists()


def test_folders_of_other_names_are_no_checkpoints(model, tmp_path):
    run = runs.write_trained(tmp_path / "run", model, 5)
    assert export(run, run / "global_step_5_export").step == 5
    assert export(run, tmp_path / "out").step == 5


def test_the_card_is_of_the_start_that_trained_the_step(model, tmp_path):
    run = runs.write_trained(tmp_path / "run", model, 5)
    later = run / "srpo_run" / "99991231-000000"
    later.mkdir()
    (later / "config.yaml").write_text("actor_rollout_ref: {actor: {optim: {lr: 0.5}}}\ntrainer: {}\n")
    (later / "run.json").write_text("{}")
    with (later / "metrics.jsonl").open("w") as file:
        log_metrics(file, 21)
    card = (export(run, tmp_path / "out", step=5).folder / "README.md").read_text()
    assert "| learning rate | 0.5 |" not in card
    assert "| starts | 1 |" in card


def test_a_folder_whose_place_nothing_can_take_is_refused_before_anything_is_done(model, tmp_path, monkeypatch):
    run = runs.write_trained(tmp_path / "run", model, 5)
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    monkeypatch.chdir(tmp_path / "empty")
    for folder in (tmp_path / "link", tmp_path / "empty", Path()):
        with pytest.raises(FileExistsError, match="is a link, a mount or the folder you are in"):
            export(run, folder)


def test_a_failure_leaves_nothing(model, tmp_path, monkeypatch):
    run = runs.write_trained(tmp_path / "run", model, 5)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "copy_model", full)
    with pytest.raises(OSError, match="No space"):
        export(run, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["run"]


@pytest.fixture
def adapted(model, tmp_path):
    """A run that trained an adapter, its checkpoint merged; with the adapter's factors."""
    run = runs.write_trained(tmp_path / "run", model)
    actor = runs.begin_checkpoint(run, 5)
    (actor / "lora_train_meta.json").write_text(json.dumps({"r": lora.RANK, "lora_alpha": lora.ALPHA}))
    (actor / "huggingface" / "config.json").write_text("{}")
    torch.save({"model.layers.0.base_layer.weight": torch.zeros(1)}, actor / "model_world_size_1_rank_0.pt")
    checkpoint_store.finish(actor.parent, step=5, run=runs.TOKEN)
    factors = lora.write_adapter(model, tmp_path / "adapter")
    merged = actor / "hf_merged"
    tiny_model.build(merged, seed=3)
    shutil.copytree(tmp_path / "adapter", merged / "lora_adapter")
    return run, factors


def test_an_adapter_is_exported_merged_or_alone(model, adapted, tmp_path):
    from peft import PeftModel

    run, factors = adapted
    whole = export(run, tmp_path / "whole")
    assert torch.equal(logits(whole.folder), logits(run / "global_step_5" / "actor" / "hf_merged"))
    assert "adapter_model.safetensors" not in whole.files
    alone = export(run, tmp_path / "alone", adapter=True)
    assert "model.safetensors" not in alone.files
    assert {"adapter_model.safetensors", "tokenizer.json", "chat_template.jinja"} <= alone.files.keys()
    described = json.loads((alone.folder / "adapter_config.json").read_text())
    assert described["base_model_name_or_path"] == "Qwen/Qwen3-8B"
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model).double(), alone.folder)
    with torch.no_grad():
        found, expected = loaded(TOKENS).logits, lora.adapted(model, factors)(TOKENS).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)  # peft adds in float32
    assert float((found - logits(model)).abs().max()) > 0.01
    card = (alone.folder / "README.md").read_text()
    assert "library_name: peft" in card
    assert "PeftModel.from_pretrained" in card


def srpo(*words):
    return CliRunner().invoke(app, ["export", *map(str, words)])


def test_refusals_say_what_to_change(model, adapted, tmp_path):
    run, new = runs.write_trained(tmp_path / "whole", model, 5), tmp_path / "new"
    empty = runs.write_trained(tmp_path / "empty", model)
    (tmp_path / "nothing").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for words, code, said in (
        ((tmp_path / "nothing", "--to", new), 1, "holds no run"),
        ((empty, "--to", new), 1, "has no checkpoint yet (trainer.save_freq)"),
        ((run, "--to", tmp_path / "full"), 1, "is there and not empty: name another --to"),
        ((run, "--to", new, "--step", 7), 1, "no checkpoint of step 7; there are 5"),
        ((run, "--to", new, "--best"), 1, "has no best checkpoint"),
        ((run, "--to", new, "--best", "--step", 5), 2, "give one of them"),
        ((run, "--to", new, "--adapter"), 1, "the run trained all weights"),
        ((run, "--to", new, "--public"), 2, "give both, or neither"),
        ((run, "--to", new, "--push", "a/b/c"), 1, "name a repository as OWNER/NAME"),
    ):
        done = srpo(*words)
        assert (done.exit_code, said in " ".join(done.output.split())) == (code, True), done.output
    assert not new.exists()


def test_a_checkpoint_that_is_not_whole_or_taken_is_refused(model, tmp_path):
    run = runs.write_trained(tmp_path / "run", model, 5)
    runs.begin_checkpoint(run, 10)
    with pytest.raises(CheckpointError, match="is not whole"):
        export(run, tmp_path / "out", step=10)
    assert not (tmp_path / "out").exists()


def test_an_adapter_without_its_base_is_refused(adapted, tmp_path):
    run, _ = adapted
    actor = run / "global_step_5" / "actor"
    shutil.rmtree(actor / "hf_merged")
    torch.save({"model.layers.0.lora_A.default.weight": torch.zeros(1)}, actor / "model_world_size_1_rank_0.pt")
    checkpoint_store.finish(actor.parent, step=5, run=runs.TOKEN)
    for alone in (False, True):
        with pytest.raises(CheckpointError, match="holds the adapter alone"):
            export(run, tmp_path / "out", adapter=alone)
