"""No run is overwritten by accident, and nothing that is not a run is deleted."""

import pytest

from workflows.run_folder import SUMMARY, claim_folder, mark


@pytest.fixture
def finished(tmp_path):
    folder = claim_folder(tmp_path / "demo")
    mark(folder, command=["x"], seed=0)
    (folder / SUMMARY).write_text("{}")
    return folder


def test_a_finished_run_stays_and_the_next_gets_a_number(finished):
    second = claim_folder(finished)
    assert second.name == "demo-2"
    mark(second, command=["x"], seed=0)
    (second / SUMMARY).write_text("{}")
    assert claim_folder(finished).name == "demo-3"
    assert (finished / SUMMARY).exists()


def test_force_replaces_a_finished_run(finished):
    assert claim_folder(finished, force=True) == finished
    assert not list(finished.iterdir())


def test_an_unfinished_run_is_replaced_unless_kept(finished):
    (finished / SUMMARY).unlink()
    assert claim_folder(finished, keep=True).name == "demo-2"
    assert claim_folder(finished) == finished


def test_a_folder_that_is_no_run_is_never_deleted(tmp_path):
    precious = tmp_path / "demo" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("mine")
    with pytest.raises(FileExistsError, match="name another --out"):
        claim_folder(tmp_path / "demo", force=True)
    assert claim_folder(tmp_path / "demo").name == "demo-2"
    assert precious.read_text() == "mine"
