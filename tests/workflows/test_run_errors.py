"""The reason of a failure is found among the noise."""

import ast
from pathlib import Path

from workflows.run_errors import TOLD, explain, find_exceptions

FAILED = Path(__file__).with_name("failed_run.log")


def test_innermost_exception_of_the_main_process():
    assert explain(FAILED.read_text()) == (
        "ValueError: srpo.topk=100 is above the vocabulary (64 entries):\n"
        "set srpo.topk to 64 or less\n"
        "  at /repo/srpo_verl/training/worker/objective.py:88 in __call__"
    )


def test_every_exception_with_who_printed_it():
    found = find_exceptions(FAILED.read_text())
    assert [(e.by_driver, e.of_ray) for e in found] == [(False, False), (True, True), (True, True), (True, False)]


def test_worker_exception_where_the_main_process_only_says_that_an_actor_died():
    log = (
        "(WorkerDict pid=3, ip=10.0.0.1) Traceback (most recent call last):\n"
        '(WorkerDict pid=3, ip=10.0.0.1)   File "/repo/worker.py", line 5, in init\n'
        "(WorkerDict pid=3, ip=10.0.0.1) FileNotFoundError: no model at /models/x [repeated 2x across cluster]\n"
        "Traceback (most recent call last):\n"
        '  File "/site/main_ppo.py", line 1, in main\n'
        "ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task.\n"
    )
    assert explain(log) == "FileNotFoundError: no model at /models/x\n  at /repo/worker.py:5 in init"
    only_ray = "".join(log.splitlines(keepends=True)[3:])
    assert explain(only_ray).startswith("ray.exceptions.ActorDiedError: The actor died unexpectedly")


def test_refusals_of_the_configuration_come_first_and_warnings_are_not_refusals():
    differs = "srpo: differs from the paper's Table 3: x = 1 (paper: 2)"
    log = f"srpo: warning: minor\n{differs}\nsrpo: rollout.n=1: set it to 8\n"
    assert explain(log) == "rollout.n=1: set it to 8"
    assert "warning" in explain("srpo: warning: minor\n")


def test_what_a_run_tells_of_itself_is_no_reason_to_fail():
    told = "".join(f"srpo: {beginning}of it\n" for beginning in TOLD)
    log = f"{told}(WorkerDict pid=3) srpo: note: passes over logits: plain\n{FAILED.read_text()}"
    assert explain(log) == explain(FAILED.read_text())


def test_every_line_that_is_not_told_in_passing_says_why_a_run_ends():
    """A new line of ours is a note, unless the run ends with it: else it would hide the reason of every failure."""
    ends = {
        ("driver_watch", "_say"),
        ("preflight", "_refuse"),
        ("run_lease", "look"),
        ("run_start", "_lost"),
        ("run_start", "_passed_on"),
        ("srpo_command", "_end_if"),
    }
    found = set()
    for path in (FAILED.parents[2] / "srpo_verl").rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef):
                continue
            for call in ast.walk(function):
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "print":
                    text = ast.unparse(call.args[0]).lstrip("f").strip("'\"") if call.args else ""
                    if text.startswith("srpo: ") and not text.removeprefix("srpo: ").startswith(TOLD):
                        found.add((path.stem, function.name))
    assert found == ends


def test_without_any_exception_the_last_lines():
    assert explain("\n".join(f"line {i}" for i in range(30)), tail=2) == "line 28\nline 29"
    assert explain("") == "the log is empty"
