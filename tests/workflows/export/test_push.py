"""An export goes through the hub's own client to a stand-in for the hub: what, where, and who may see it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.patience import PROCESS
from tests.training import tiny_model
from tests.workflows.export import runs
from tests.workflows.export.fake_hub import TOKEN, FakeHub
from tests.workflows.report.run_folders import write_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    model = tiny_model.build(tmp_path_factory.mktemp("model"))
    return runs.write_trained(tmp_path_factory.mktemp("trained") / "run", model, 5)


@pytest.fixture
def hub():
    with FakeHub() as found:
        yield found


def push(hub, run, to, *more, token=TOKEN):
    """In a process of its own: the client reads its settings when it is imported. With a home without a login."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING_FACE_"))}
    env = {**kept, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(to.parent / "home"), "HF_HUB_DISABLE_XET": "1"}
    env |= {"HF_TOKEN": token} if token else {}
    words = ["export", str(run), "--to", str(to), "--push", "me/mine", *more]
    command = [sys.executable, "-m", "workflows.cli", *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=PROCESS)


def test_a_new_repository_is_private_and_holds_the_export(hub, run, tmp_path):
    done = push(hub, run, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert hub.repositories == {"me/mine": True}
    assert hub.files["me/mine"] == {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert hub.messages == ["srpo export: checkpoint of step 5"]
    said = done.stdout.splitlines()
    before = next(number for number, text in enumerate(said) if text.startswith("uploading"))
    assert f"to a new private repository {hub.endpoint}/me/mine:" in said[before]
    named = [text.split()[0] for text in said[before + 1 :] if text.startswith("  ")]
    assert sorted(named) == sorted(hub.files["me/mine"])
    assert said[-1] == f"{hub.endpoint}/me/mine"
    assert TOKEN not in done.stdout + done.stderr


def test_weights_of_an_earlier_export_do_not_stay_beside_the_new_ones(hub, run, tmp_path):
    hub.repositories["me/mine"] = True
    kept = {"notes.md": b"mine"}
    hub.files["me/mine"] = {**kept, "adapter_config.json": b"{}", "adapter_model.safetensors": b"old"}
    assert push(hub, run, tmp_path / "out").returncode == 0
    exported = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert hub.files["me/mine"] == {**kept, **exported}


def test_an_adapter_of_a_folder_is_not_pushed(hub, tmp_path):
    write_run(tmp_path / "run", "srpo", steps=2, model="/home/somebody/model")
    done = push(hub, tmp_path / "run", tmp_path / "out", "--adapter")
    assert done.returncode == 1
    assert "its base model is a folder, which is on no other machine" in done.stderr
    assert not hub.calls


def test_public_is_what_was_said(hub, run, tmp_path):
    assert push(hub, run, tmp_path / "out", "--public").returncode == 0
    assert hub.repositories == {"me/mine": False}


def test_a_public_repository_is_not_written_by_accident(hub, run, tmp_path):
    hub.repositories["me/mine"] = False
    done = push(hub, run, tmp_path / "out")
    assert done.returncode == 1
    assert "me/mine is public: say --public" in done.stderr
    assert not hub.files


def test_without_a_token_nothing_is_done(hub, run, tmp_path):
    done = push(hub, run, tmp_path / "out", token=None)
    assert done.returncode == 1
    assert "set HF_TOKEN, or log in with `hf auth login`" in done.stderr
    assert not hub.calls
    assert not (tmp_path / "out").exists()


def test_a_hub_that_cannot_be_reached_is_a_sentence(hub, run, tmp_path):
    with FakeHub() as gone:
        pass
    done = push(gone, run, tmp_path / "out")
    assert done.returncode == 1
    assert "Connection refused" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_the_hub_refuses_is_passed_on_and_the_export_stays(hub, run, tmp_path):
    done = push(hub, run, tmp_path / "out", token="hf_another")
    assert done.returncode == 1
    assert "401" in done.stderr
    assert f"The export is whole in {tmp_path / 'out'}" in done.stderr
    assert (tmp_path / "out" / "README.md").is_file()
    assert "Traceback" not in done.stderr
