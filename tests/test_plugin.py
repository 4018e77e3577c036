"""What verl loads: registered on import, light where it is not needed, honest when it cannot load."""

import os
import subprocess
import sys

import pytest

from tests.patience import PROCESS


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, timeout=PROCESS
    )


def test_importing_verl_registers_everything_on_demand():
    code = (
        "import sys, verl\n"
        "assert 'srpo_verl.plugin' in sys.modules\n"
        "assert 'srpo_verl.training.step.trainer' not in sys.modules, 'every process would pay for it'\n"
        "from verl.trainer.ppo.v1 import get_trainer_cls\n"
        "assert get_trainer_cls('srpo').__name__ == 'SRPOTrainer'\n"
        "assert get_trainer_cls('srpo_colocate_async').__name__ == 'SRPOColocateAsyncTrainer'\n"
        "assert get_trainer_cls('srpo_separate_async').__name__ == 'SRPOSeparateAsyncTrainer'\n"
        "from srpo_verl.plugin import check_registered\n"
        "check_registered()\n"
    )
    result = python(code)
    assert result.returncode == 0, result.stderr[-2000:]


@pytest.mark.parametrize("module", ["trainer", "async_trainers"])
def test_a_process_may_begin_with_a_trainer_of_ours(module):
    """As a package does whose trainer is a subclass of one."""
    code = (
        f"import srpo_verl.training.step.{module}\n"
        "from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY as modes\n"
        "assert {'srpo', 'srpo_colocate_async', 'srpo_separate_async'} <= set(modes)\n"
    )
    result = python(code)
    assert result.returncode == 0, result.stderr[-2000:]


def test_a_switched_off_plugin_is_named():
    code = (
        "import verl, sys\n"
        "import verl.trainer.ppo.core_algos as algos, verl.trainer.ppo.v1.trainer_base as base\n"
        "from srpo_verl import plugin\n"
        "algos.ADV_ESTIMATOR_REGISTRY.pop('srpo'); base.TRAINER_REGISTRY.pop('srpo', None)\n"
        "plugin.check_registered()\n"
    )
    result = python(code, VERL_USE_EXTERNAL_PLUGINS="none")
    assert result.returncode != 0
    assert "verl does not know SRPO's advantage estimator, trainer" in result.stderr


@pytest.fixture
def another_verl(monkeypatch):
    import verl

    from srpo_verl import plugin

    monkeypatch.setattr(verl, "__version__", "0.9.2")
    plugin._check_names.cache_clear()
    yield plugin
    plugin._check_names.cache_clear()


def test_another_verl_is_said_once_to_be_untested(another_verl, capsys):
    another_verl.check_registered()
    another_verl.check_registered()
    told = "srpo: warning: srpo_verl is tested with verl 0.9.1, and this is 0.9.2; every name"
    assert capsys.readouterr().err.count(told) == 1


def test_the_tested_verl_is_not_spoken_of(another_verl, monkeypatch, capsys):
    import verl

    monkeypatch.setattr(verl, "__version__", another_verl.TESTED_WITH)
    another_verl.check_registered()
    assert "tested with" not in capsys.readouterr().err


@pytest.mark.parametrize("version", ["0.9.1", "0.9.2"])
def test_a_verl_that_has_changed_under_us_is_refused_in_words(another_verl, monkeypatch, version):
    import verl

    from srpo_verl.verl_names import check

    monkeypatch.setattr(verl, "__version__", version)
    change = "PPOTrainer._balance_batch is not there (needed by training.step.trainer)"
    monkeypatch.setattr(check, "broken", lambda: [change])
    with pytest.raises(RuntimeError) as refused:
        another_verl.check_registered()
    assert str(refused.value).splitlines() == [
        f"srpo_verl is tested with verl 0.9.1, and this is {version}. It cannot be used with it:",
        f"  {change}",
    ]


def test_an_action_runs_once_after_the_import(tmp_path, monkeypatch):
    from srpo_verl.plugin import after_import

    (tmp_path / "probe_module.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    calls = []
    after_import("probe_module", lambda: calls.append(sys.modules["probe_module"].value))
    assert calls == []
    import probe_module  # noqa: F401

    assert calls == [1]
    after_import("probe_module", lambda: calls.append(2))
    assert calls == [1, 2]


def test_nothing_of_the_cpu_platform_loads_with_a_gpu():
    code = (
        "import torch, sys\n"
        "torch.cuda.is_available = lambda: True\n"
        "import srpo_verl.plugin\n"
        "print(sorted(m for m in sys.modules if m.startswith('srpo_verl.cpu')))\n"
    )
    result = python(code, VERL_USE_EXTERNAL_PLUGINS="none")
    assert result.stdout.strip().splitlines()[-1] == "[]", result.stderr[-1000:]


@pytest.mark.parametrize(("chosen", "taken"), [("", "cpu"), ("nvidia", "cuda")])
@pytest.mark.needs_cpu_set
def test_the_cpu_set_uses_the_cpu_where_nvidia_smi_answers(tmp_path, chosen, taken):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "VERL_PLATFORM": chosen}
    result = python("import verl; print(verl.plugin.platform.get_platform().device_name)", **environment)
    assert result.stdout.strip().splitlines()[-1] == taken, result.stderr[-2000:]
