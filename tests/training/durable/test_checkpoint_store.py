"""Checkpoint folders under kills, full disks, pruning and going back: real files, real errors."""

import builtins
import itertools
import json
import os
import resource
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpo_verl.base.lease import take
from srpo_verl.training.durable import checkpoint_store as store


def save(root: Path, step: int, run: str = "run", **contents) -> store.Checkpoint:
    folder = store.step_folder(root, step)
    store.begin(folder, step)
    (folder / "actor").mkdir()
    (folder / "actor" / "model.pt").write_bytes(bytes([step % 256]) * 1000)
    (folder / "data.pt").write_bytes(b"data")
    return store.finish(folder, step=step, run=run, **contents)


def steps(root: Path) -> list[int]:
    return [checkpoint.step for checkpoint in store.complete(root)]


def test_marker_tracker_and_sizes(tmp_path):
    checkpoint = save(tmp_path, 3, guards={"a": 1})
    again = store.inspect(tmp_path / "global_step_3")
    assert again.marker == checkpoint.marker
    assert again.marker["files"] == {"actor/model.pt": 1000, "data.pt": 4}
    assert again.bytes == 1004
    assert (tmp_path / "latest_checkpointed_iteration.txt").read_text() == "3"
    assert store.rewrite(again, guards={"a": 2}).marker["guards"] == store.inspect(again.folder).marker["guards"]


def save_and_die(root: Path, deadly: int) -> bool:
    """In a forked child: steps 2 (there is one of an older run) and 4, pruned to one checkpoint; SIGKILL before the
    file operation number `deadly`. Returns whether the child survived."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    calls = 0

    def dying(function):
        def wrapped(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return wrapped

    for name in ("rename", "replace", "fsync", "mkdir", "unlink", "rmdir"):
        setattr(os, name, dying(getattr(os, name)))
    builtins.open = dying(builtins.open)
    save(root, 2)
    save(root, 4)
    store.prune(root, run="run", keep=1)
    os._exit(0)


def test_a_kill_at_any_file_operation_leaves_a_whole_newest_checkpoint(tmp_path):
    newest, survived, deadly = [], False, 0
    while not survived:
        deadly += 1
        folder = tmp_path / f"kill_{deadly}"
        folder.mkdir()
        save(folder, 1)
        save(folder, 2, run="older")
        survived = save_and_die(folder, deadly)
        found = store.complete(folder)
        newest.append(found[-1].step)
        assert store.newest(folder) == found[-1]
        for checkpoint in found:
            assert (checkpoint.folder / "actor" / "model.pt").read_bytes() == bytes([checkpoint.step]) * 1000
        # The next save cleans up what the kill left.
        save(folder, 6)
        store.prune(folder, run="run", keep=2)
        assert not store.broken(folder)
        assert not list(folder.glob(".discarded_*"))
    assert deadly > 40
    # The older run's step 2, then its replacement's absence, then the new step 2, then step 4.
    assert [step for step, _ in itertools.groupby(newest)] == [2, 1, 2, 4]


@pytest.mark.parametrize("damage", ["missing", "truncated", "garbled_marker", "no_marker", "unfinished"])
def test_damage_is_named_and_the_older_one_is_taken(tmp_path, damage):
    save(tmp_path, 2)
    folder = save(tmp_path, 4).folder
    match damage:
        case "missing":
            (folder / "data.pt").unlink()
        case "truncated":
            os.truncate(folder / "actor" / "model.pt", 10)
        case "garbled_marker":
            (folder / store.MARKER).write_text("{")
        case "no_marker":
            (folder / store.MARKER).unlink()
        case "unfinished":
            (folder / store.MARKER).write_text(json.dumps({"complete": False, "step": 4}))
    assert steps(tmp_path) == [2]
    (reason,) = store.broken(tmp_path).values()
    says = {
        "missing": "data.pt is missing",
        "truncated": "has 10 bytes instead of 1000",
        "garbled_marker": "cannot be read",
        "no_marker": "nothing says that it is whole",
        "unfinished": "the save was interrupted",
    }
    assert says[damage] in str(reason)
    store.prune(tmp_path, run="run", keep=None)
    assert folder.exists() == (damage != "unfinished")  # only what the marker itself calls unfinished is removed


def test_newest_is_the_last_saved_not_the_largest_step(tmp_path):
    """Going back to step 2 and training on: the abandoned step 8 is not what a resume takes."""
    save(tmp_path, 8, run="abandoned")
    save(tmp_path, 2)
    assert steps(tmp_path) == [8, 2]


def test_pruning_keeps_the_best_and_other_runs(tmp_path):
    save(tmp_path, 1, run="other")
    best = save(tmp_path, 2)
    assert store.note_validation(best, 0.9)
    for step in (4, 6, 8):
        assert not store.note_validation(save(tmp_path, step), 0.5)
        store.prune(tmp_path, run="run", keep=2)
    assert steps(tmp_path) == [1, 2, 6, 8]
    assert store.read_best(tmp_path) == {"run": "run", "step": 2, "accuracy": 0.9}
    # A better one takes its place, and the former best may go.
    store.note_validation(save(tmp_path, 10), 0.95)
    store.prune(tmp_path, run="run", keep=2)
    assert steps(tmp_path) == [1, 8, 10]


def test_a_best_that_was_saved_again_is_judged_again(tmp_path):
    store.note_validation(save(tmp_path, 2), 0.9)
    assert store.note_validation(save(tmp_path, 2), 0.1)
    assert store.read_best(tmp_path)["accuracy"] == 0.1
    assert store.note_validation(save(tmp_path, 4), 0.2)


def test_a_file_size_limit_keeps_the_old_checkpoint_and_the_old_marker(tmp_path):
    """RLIMIT_FSIZE 0: every write fails with an OSError, as on a full disk."""
    before = save(tmp_path, 2)
    folder = store.step_folder(tmp_path, 4)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            store.begin(folder, 4)
        with pytest.raises(OSError, match="File too large"):
            store.rewrite(before, guards={"new": True})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert steps(tmp_path) == [2]
    assert store.inspect(before.folder).marker == before.marker
    assert [path.name for path in before.folder.iterdir() if path.name.startswith(".")] == []


@given(
    history=st.lists(st.tuples(st.integers(1, 9), st.sampled_from("ab"), st.booleans()), max_size=12),
    keep=st.integers(1, 3),
)
def test_pruning_never_takes_the_newest_nor_the_best(history, keep, tmp_path_factory):
    root = tmp_path_factory.mktemp("history")
    for step, run, validated in history:
        checkpoint = save(root, step, run=run)
        if validated:
            store.note_validation(checkpoint, step / 10)
        best = store.read_best(root)
        store.prune(root, run=run, keep=keep)
        kept = store.complete(root)
        assert kept[-1].marker == checkpoint.marker
        assert store.read_best(root) == best
        assert len([other for other in kept if other.run == run]) <= keep + 1


def test_a_checkpoint_that_somebody_reads_is_not_removed(tmp_path):
    for step in (1, 2):
        store.begin(tmp_path / f"global_step_{step}", step)
        store.finish(tmp_path / f"global_step_{step}", step=step, run="run")
    with take(tmp_path / "global_step_1", what="merging"):
        assert store.prune(tmp_path, run="run", keep=1) == []
    assert store.prune(tmp_path, run="run", keep=1) == [tmp_path / "global_step_1"]
