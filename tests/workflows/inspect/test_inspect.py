"""`srpo inspect` on a run: which step, and what it says where there is none."""

import gzip

import pytest
from typer.testing import CliRunner

from srpo_verl.config import SRPOConfig
from tests.workflows.inspect.dumps import write_run, write_step
from tests.workflows.report.run_folders import config, write_start
from workflows.cli import app
from workflows.inspect.dumped_steps import read_step
from workflows.inspect.page import build_page


def inspect(*arguments):
    found = CliRunner().invoke(app, ["inspect", *map(str, arguments)])
    return found.exit_code, found.output.replace("\n", " ")


def test_the_last_step_by_default_or_the_one_that_is_asked_for(tmp_path):
    run = write_run(tmp_path / "run")
    code, said = inspect(run)
    assert (code, "step-10.html" in said) == (0, True)
    assert "Step 10 of run" in (run / "step-10.html").read_text()
    code, _ = inspect(run, "--step", 5, "--out", tmp_path / "new" / "page.html")
    assert code == 0
    assert "Step 5 of run" in (tmp_path / "new" / "page.html").read_text()


def test_a_step_without_a_dump(tmp_path):
    code, said = inspect(write_run(tmp_path / "run"), "--step", 7)
    assert code == 1
    assert "step 7 was not dumped (srpo.inspect_freq=5); 2 steps were, the last ones: 5, 10" in said


def test_a_run_that_dumps_nothing_says_what_to_set(tmp_path):
    code, said = inspect(write_run(tmp_path / "run", steps=()))
    assert code == 1
    assert f"Start or resume it with srpo.inspect_dir={tmp_path}/run/inspect" in said


def test_a_run_that_has_not_come_so_far(tmp_path):
    run = write_run(tmp_path / "run")
    for file in (run / "inspect").iterdir():
        file.unlink()
    code, said = inspect(run)
    assert code == 1
    assert "the first is step 5, and the run is at 1" in said


def test_no_run(tmp_path):
    code, said = inspect(tmp_path)
    assert code == 1
    assert "holds no run" in said


def test_a_damaged_file_is_named(tmp_path):
    run = write_run(tmp_path / "run")
    whole = (run / "inspect" / "10.json.gz").read_bytes()
    (run / "inspect" / "10.json.gz").write_bytes(whole[: len(whole) // 2])
    code, said = inspect(run)
    assert code == 1
    assert "10.json.gz is damaged" in said
    assert inspect(run, "--step", 5)[0] == 0


def test_of_several_starts_the_later_ones_step_is_shown(tmp_path):
    run = write_run(tmp_path / "run")
    settings = config("srpo", seed=0, steps=20, inspect_dir=str(run / "inspect"), inspect_freq=5)
    write_start(run, settings, [], time="20260102-000000")
    write_step(run / "inspect", 10, SRPOConfig(route="all"))
    assert read_step(run)["settings"]["route"] == "all"
    assert read_step(run, 5)["settings"]["route"] == "incorrect"


def test_a_run_that_was_moved(tmp_path):
    run = write_run(tmp_path / "run").rename(tmp_path / "elsewhere")
    assert read_step(run)["step"] == 10


def test_no_text_of_the_run_is_markup(tmp_path):
    text = build_page(write_run(tmp_path / "run")).read_text()
    # Ours: the data and three scripts.
    assert text.count("<script") == text.count("</script>") == 4
    assert "<img" not in text


@pytest.mark.parametrize("content", [b"[]", b'{"version": 99}'])
def test_another_version(tmp_path, content):
    run = write_run(tmp_path / "run")
    (run / "inspect" / "10.json.gz").write_bytes(gzip.compress(content))
    code, said = inspect(run)
    assert code == 1
    assert "no dump of this version" in said
