"""The run's record says whose reward functions graded, and a change of one changes what it says."""

from importlib.metadata import EntryPoint

import pytest

from reward_fns import registry
from srpo_verl.training.durable import reward_sources as module
from srpo_verl.training.durable.reward_sources import reward_sources
from tests.compose import compose

PATH = "reward.custom_reward_function.path"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A module with a grader, which an entry point names."""
    (tmp_path / "my_graders.py").write_text("one = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    points = [EntryPoint("mine", "my_graders", module.GROUP)]
    monkeypatch.setattr(module, "entry_points", lambda group: points if group == module.GROUP else [])
    return tmp_path / "my_graders.py"


def test_packages_with_graders_by_their_sources(package):
    before = reward_sources(compose("srpo"))
    assert list(before) == ["my_graders"]
    assert before["my_graders"].startswith("sha256 ")
    package.write_text("one = 2\n")
    assert reward_sources(compose("srpo")) != before


def test_a_function_of_ones_own_in_their_place(package, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def compute_score(): ...\n")
    found = reward_sources(compose("srpo", [f"{PATH}={file}"]))
    assert list(found) == [f"{file}:compute_score"]
    with_scheme = reward_sources(compose("srpo", [f"{PATH}=file://{file}"]))
    assert list(with_scheme.values()) == list(found.values())
    by_module = reward_sources(compose("srpo", [f"{PATH}=pkg://my_graders"]))
    assert list(by_module) == ["pkg://my_graders:compute_score"]
    assert list(by_module.values()) != list(found.values())


def test_the_group_is_the_one_that_graders_are_found_by():
    """Neither of the two packages may import the other."""
    assert module.GROUP == registry.ENTRY_POINT_GROUP


def test_our_own_and_missing_ones(monkeypatch):
    monkeypatch.setattr(module, "entry_points", lambda group: [])
    assert reward_sources(compose("srpo")) == {}
    assert reward_sources(compose("srpo_agent_tiny")) == {}
    assert reward_sources(compose("srpo", [f"{PATH}=null"])) == {}
    assert reward_sources(compose("srpo", [f"{PATH}=pkg://no_such_module"])) == {
        "pkg://no_such_module:compute_score": "sha256 unknown"
    }
