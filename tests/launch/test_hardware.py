"""What cannot run on a machine is refused in a sentence; attention kernels are those that are installed."""

import socket
import subprocess
import sys
from dataclasses import replace
from importlib import metadata

import pytest
from omegaconf import OmegaConf
from transfer_queue.controller import TransferQueueController
from transfer_queue.storage.simple_storage import SimpleStorageUnit
from verl.single_controller.ray.base import ResourcePoolManager

from srpo_verl.launch import hardware
from srpo_verl.launch.hardware import ATTENTION, Machine, choose_attention, needed_cpus, old_driver, problems
from tests.compose import compose
from tests.patience import PROCESS

EIGHT = Machine(gpus=8, cpu_set=False, cpus=64, driver="580.65.06", cuda="13.0")
LAPTOP = Machine(gpus=0, cpu_set=True, cpus=16)


@pytest.fixture(autouse=True)
def distributions(monkeypatch):
    """Names of those that seem to be installed beside what is."""
    names = {"flash-attn"}
    real = metadata.version

    def version(name):
        if name in ("flash-attn", "flash-attn-3", "flash-attn-4", "kernels"):
            if name not in names:
                raise metadata.PackageNotFoundError(name)
            return "2.8.3"
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return names


@pytest.mark.parametrize(
    ("overrides", "machine"),
    [
        ([], EIGHT),
        (["platform=cpu"], LAPTOP),
        (["platform=cpu", "trainer.n_gpus_per_node=4"], LAPTOP),
        (["trainer.nnodes=4"], replace(LAPTOP, cluster="10.0.0.1:6379")),
        (["trainer.n_gpus_per_node=1"], replace(EIGHT, gpus=1, cpus=13)),
        (
            ["trainer.n_gpus_per_node=1", "transfer_queue.backend.SimpleStorage.num_data_storage_units=1"],
            replace(EIGHT, cpus=6),
        ),
    ],
)
def test_what_can_run_passes(overrides, machine):
    assert list(problems(compose("srpo", overrides), machine)) == []


@pytest.mark.parametrize(
    ("overrides", "machine", "says"),
    [
        (["platform=cpu"], replace(EIGHT, gpus=0), "`make venv`"),
        (["platform=cpu"], replace(LAPTOP, gpus=1), "CUDA_VISIBLE_DEVICES="),
        ([], replace(LAPTOP, cpus=64), "add platform=cpu, or install the GPU set"),
        ([], replace(EIGHT, gpus=0), "no GPU is visible here"),
        ([], replace(EIGHT, gpus=0, driver="570.86.15"), "driver is 570.86.15, and torch for CUDA 13.0 needs 580"),
        ([], replace(EIGHT, gpus=4), "wants 8 GPUs and 4 are visible here: set trainer.n_gpus_per_node=4"),
        (["trainer.nnodes=2"], EIGHT, "wants 16 GPUs and 8 are visible"),
        ([], replace(EIGHT, cpus=33), "has 33 logical CPUs and the run reserves 34"),
        (["trainer.n_gpus_per_node=1"], replace(EIGHT, cpus=12), "ray_kwargs.ray_init.num_cpus=13"),
        (["platform=cpu"], replace(LAPTOP, cpus=2), "the run reserves 6"),
        ([f"+{ATTENTION}=flash_attention_3"], EIGHT, "needs flash-attn-3, which is not installed"),
    ],
)
def test_what_cannot_run_is_refused_with_what_mends_it(overrides, machine, says):
    found = list(problems(compose("srpo", overrides), machine))
    assert len(found) == 1
    assert says in found[0]


def test_the_mended_config_passes():
    config = compose("srpo", ["trainer.n_gpus_per_node=1", "ray_kwargs.ray_init.num_cpus=13"])
    assert hardware.this_machine(config).cpus == 13
    assert list(problems(config, replace(EIGHT, gpus=1, cpus=hardware.this_machine(config).cpus))) == []


def test_every_pool_and_process_that_holds_a_cpu_counts():
    pool = ["reward.reward_model.enable_resource_pool=true", "reward.reward_model.nnodes=1"]
    assert needed_cpus(compose("srpo")) == 8 * 3 + 8 + 1 + 1
    assert needed_cpus(compose("srpo", pool)) == 16 * 3 + 8 + 1 + 1
    assert needed_cpus(compose("srpo", ["reward.reward_manager.name=remote", "reward.num_workers=3"])) == 34 + 9
    assert needed_cpus(compose("srpo", ["transfer_queue.backend.storage_backend=MooncakeStore"])) == 26


def test_the_installed_packages_reserve_what_is_counted():
    assert ResourcePoolManager.__dataclass_fields__["max_colocate_count"].default == hardware.CPUS_PER_GPU
    for actor in (TransferQueueController, SimpleStorageUnit):
        assert actor._default_options["num_cpus"] == hardware.CPUS_PER_QUEUE_ACTOR


@pytest.mark.parametrize(
    ("driver", "cuda", "old"),
    [("570.86.15", "13.0", True), ("580.65.06", "13.0", False), ("535.1", "12.8", False), (None, "13.0", False),
     ("570.86.15", None, False), ("570.86.15", "99.0", False), ("unknown", "13.0", False)],
)  # fmt: skip
def test_drivers(driver, cuda, old):
    assert bool(old_driver(driver, cuda)) == old


def test_the_driver_is_what_nvidia_smi_says(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert hardware.driver_version() is None
    program = tmp_path / "nvidia-smi"
    for script, expected in (("echo 580.65.06; echo 580.65.06", "580.65.06"), ("exit 9", None), ("true", None)):
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        assert hardware.driver_version() == expected


@pytest.mark.parametrize(
    ("overrides", "there", "chosen"),
    [
        ([], {"flash-attn"}, None),
        ([], {"flash-attn-3", "kernels"}, "flash_attention_3"),
        ([], {"kernels"}, "flash_attention_2"),
        ([], set(), "sdpa"),
        ([f"+{ATTENTION}=eager"], set(), "eager"),
        ([f"+{ATTENTION}=flash_attention_2"], set(), "flash_attention_2"),
        (["platform=cpu"], set(), "sdpa"),
    ],
)
def test_what_is_installed_decides_unless_the_config_does(distributions, monkeypatch, overrides, there, chosen):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    distributions.clear()
    distributions.update(there)
    config = compose("srpo", overrides)
    before = OmegaConf.select(config, ATTENTION)
    sentence = choose_attention(config)
    assert OmegaConf.select(config, ATTENTION) == chosen
    assert bool(sentence) == (before != chosen)


@pytest.mark.parametrize(("offline", "chosen"), [("0", "flash_attention_2"), ("1", "sdpa")])
def test_kernels_of_the_hub_need_the_hub(distributions, monkeypatch, offline, chosen):
    distributions.clear()
    distributions.add("kernels")
    monkeypatch.setenv("HF_HUB_OFFLINE", offline)
    config = compose("srpo")
    assert ("from the hub" in choose_attention(config)) == (chosen != "sdpa")
    assert OmegaConf.select(config, ATTENTION) == chosen


def test_a_gpu_set_without_gpus_is_told_of_the_cpu_set():
    (said,) = problems(compose("srpo"), replace(EIGHT, gpus=0))
    assert "`make venv`" in said


def test_verls_main_gets_what_was_chosen(tmp_path):
    """Hydra copies the config for `main` after `on_run_start` and before `on_job_start`."""
    program = (
        "import hydra, verl\n"
        "from srpo_verl.launch import hardware\n"
        "from srpo_verl.launch.preflight import Preflight\n"
        "hardware.installed = lambda name: False\n"
        "Preflight.on_job_start = lambda self, config, **_: None\n"
        "@hydra.main(config_path='pkg://verl.trainer.config', config_name='srpo', version_base=None)\n"
        "def main(config):\n"
        "    print('main got', config.actor_rollout_ref.model.override_config)\n"
        "main()\n"
    )
    (tmp_path / "program.py").write_text(program)
    command = [sys.executable, tmp_path / "program.py", f"hydra.run.dir={tmp_path}/run"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PROCESS)
    assert "main got {'attn_implementation': 'sdpa'}" in result.stdout, result.stderr[-2000:]
    assert "srpo: note: flash-attn is not installed" in result.stderr


def test_the_price_of_sdpa_is_said_in_bytes(distributions):
    distributions.clear()
    assert "1.2 GiB or more for 20480 tokens" in choose_attention(compose("srpo"))
    fixed = ["actor_rollout_ref.actor.use_dynamic_bsz=false", "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=2"]
    assert "for 20480 tokens" in choose_attention(compose("srpo", fixed))
    assert "mask" not in choose_attention(compose("srpo", ["actor_rollout_ref.model.use_remove_padding=false"]))


def test_named_flash_attention_is_refused_with_its_command(distributions):
    distributions.clear()
    config = compose("srpo", [f"+{ATTENTION}=flash_attention_2"])
    assert hardware.INSTALL_FLASH in next(problems(config, EIGHT))
    distributions.add("kernels")  # transformers fetches them from the hub
    assert list(problems(config, EIGHT)) == []


def test_the_cluster_that_a_run_joins(monkeypatch, tmp_path):
    named = compose("srpo", ["+ray_kwargs.ray_init.address=10.0.0.1:6379"])
    own = compose("srpo", ["+ray_kwargs.ray_init.address=local"])
    monkeypatch.setattr(hardware, "running_cluster", lambda: "127.0.0.1:6379")
    assert hardware.joined_cluster(named) == "10.0.0.1:6379"
    assert hardware.joined_cluster(own) is None
    assert hardware.joined_cluster(compose("srpo")) == "127.0.0.1:6379"
    monkeypatch.setattr(hardware, "running_cluster", lambda: None)
    assert hardware.joined_cluster(compose("srpo")) is None
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    assert hardware.joined_cluster(compose("srpo")) == "10.0.0.2:6379"


def test_a_cluster_that_a_run_would_join_unasked(tmp_path):
    word = tmp_path / "ray_current_cluster"
    assert hardware.running_cluster(tmp_path) is None
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        word.write_text(address)
        assert hardware.running_cluster(tmp_path) == address
    assert hardware.running_cluster(tmp_path) is None
    word.write_text("garbage")
    assert hardware.running_cluster(tmp_path) is None
