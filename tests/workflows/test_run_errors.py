"""The reason of a failure is found among the noise."""

from pathlib import Path

from workflows.run_errors import explain, find_exceptions

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


def test_without_any_exception_the_last_lines():
    assert explain("\n".join(f"line {i}" for i in range(30)), tail=2) == "line 28\nline 29"
    assert explain("") == "the log is empty"
