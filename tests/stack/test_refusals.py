"""What goes wrong ends the run, at once where it can, with a sentence that says what to change."""

import pytest

from tests.patience import STACK_TEST
from tests.stack.launch import run

pytestmark = [pytest.mark.stack, pytest.mark.timeout(STACK_TEST)]


@pytest.mark.parametrize(
    ("overrides", "environment", "says"),
    [
        (["srpo.topk=100000"], {}, "more than the model's vocabulary"),
        ([], {"VERL_USE_EXTERNAL_PLUGINS": "none"}, "did not load the plugin"),
    ],
)
def test_refused_before_ray_starts(overrides, environment, says, stack_model, tmp_path):
    result = run(tmp_path, stack_model, overrides=overrides, environment=environment)
    assert result.returncode not in (0, -9)
    assert says in result.log
    assert "Started a local Ray instance" not in result.log


def test_a_plugin_that_cannot_be_imported_shows_its_own_traceback(stack_model, tmp_path):
    broken = tmp_path / "broken" / "srpo_verl_probe"
    broken.mkdir(parents=True)
    hook = tmp_path / "broken" / "sitecustomize.py"
    hook.write_text("import sys\nsys.modules['srpo_verl.training.registered_losses'] = None\n")
    environment = {"PYTHONPATH": f"{hook.parent}"}
    result = run(tmp_path / "run", stack_model, environment=environment)
    assert result.returncode not in (0, -9)
    assert "registered_losses" in result.log
    assert "Traceback" in result.log


@pytest.mark.nightly
def test_a_reward_function_that_raises_ends_the_run_with_its_message(stack_model, tmp_path):
    result = run(tmp_path, stack_model, overrides=["reward.custom_reward_function.name=raising"])
    assert result.returncode not in (0, -9)
    assert "this grader is broken" in result.log
