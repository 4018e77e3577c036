"""Runs `python -m verl.trainer.main_ppo` on a random tiny model: verl, Ray, vLLM and FSDP2, in their own processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tests.patience import RUN

REPOSITORY = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HYDRA_FULL_ERROR": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}


@dataclass
class Run:
    """A finished run."""

    folder: Path
    returncode: int
    log: str

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The `data` of every line of the metrics file, with `step`."""
        lines = (self.folder / "metrics.jsonl").read_text().splitlines()
        return [{"step": line["step"], **line["data"]} for line in map(json.loads, lines)]

    @property
    def steps(self) -> list[dict[str, Any]]:
        """Training steps only."""
        return [line for line in self.metrics if "training/global_step" in line]

    @property
    def teacher_prompts(self) -> list[dict[str, Any]]:
        files = sorted((self.folder / "teacher_prompts").glob("*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def write_data(folder: Path, rows: int = 32, *, rollouts: Sequence[int] | None = None) -> Path:
    """A data set of `rows` prompts; `rollouts` gives the number of rollouts of each prompt, in turn."""
    path = folder / (f"data_{rows}.parquet" if rollouts is None else "unequal.parquet")
    if not path.exists():
        records = [
            {
                "data_source": "checksum",
                "prompt": [{"role": "user", "content": f"{n} + {n}?"}],
                "ability": "math",
                "reward_model": {"style": "rule", "ground_truth": str(2 * n)},
                "extra_info": {"index": n, "split": "train"},
                **({} if rollouts is None else {"__rollout_n__": rollouts[n % len(rollouts)]}),
            }
            for n in range(rows)
        ]
        pd.DataFrame(records).to_parquet(path)
    return path


def run(
    folder: Path,
    model: Path,
    *,
    config: str = "srpo",
    steps: int = 2,
    overrides: Sequence[str] = (),
    environment: dict[str, str] | None = None,
    timeout: float = RUN,
    kill_after_step: int | None = None,
) -> Run:
    """Train `steps` steps into `folder`. Kills the whole process group at `timeout` seconds (returncode -9).

    `kill_after_step`: SIGKILL to the driver and everything of it as soon as that step has been logged.
    """
    log = folder / "log.txt"
    arguments = command(folder, model, config=config, steps=steps, overrides=overrides)
    with open(log, "w") as file:
        process = subprocess.Popen(
            arguments,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=settings(folder, environment),
            cwd=folder,
            start_new_session=True,
        )
        try:
            returncode = _wait(process, timeout, folder / "metrics.jsonl", kill_after_step)
        except subprocess.TimeoutExpired:
            returncode = -signal.SIGKILL
        finally:
            # Ray's own processes outlive a driver that was killed.
            _kill_group(process.pid)
    return Run(folder, returncode, log.read_text(errors="replace"))


def command(
    folder: Path, model: Path, *, config: str = "srpo", steps: int = 2, overrides: Sequence[str] = ()
) -> list[str]:
    """The command line of a run of `steps` steps into `folder`, which is created."""
    folder.mkdir(parents=True, exist_ok=True)
    data = write_data(model.parent)
    return [
        sys.executable,
        "-m",
        "verl.trainer.main_ppo",
        f"--config-name={config}",
        f"hydra.run.dir={folder}/hydra",
        "platform=cpu",
        # Not a cluster that happens to run on this machine.
        "+ray_kwargs.ray_init.address=local",
        f"actor_rollout_ref.model.path={model}",
        f"data.train_files={data}",
        f"data.val_files={data}",
        "data.train_batch_size=4",
        "data.max_prompt_length=64",
        "data.max_response_length=16",
        "data.filter_overlong_prompts=false",
        "data.apply_chat_template_kwargs={}",
        "actor_rollout_ref.rollout.n=4",
        "actor_rollout_ref.rollout.max_model_len=256",
        "actor_rollout_ref.rollout.val_kwargs.n=1",
        "actor_rollout_ref.actor.ppo_mini_batch_size=4",
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=1024",
        "actor_rollout_ref.actor.optim.lr=1e-3",
        "actor_rollout_ref.actor.optim.lr_warmup_steps=0",
        "srpo.topk=16",
        f"srpo.dump_dir={folder}/teacher_prompts",
        "reward.custom_reward_function.path=pkg://tests.stack.reward",
        "trainer.logger=[console,file]",
        f"trainer.default_local_dir={folder}/checkpoints",
        "trainer.val_before_train=false",
        "trainer.save_freq=-1",
        "trainer.test_freq=-1",
        "trainer.resume_mode=disable",
        f"trainer.total_training_steps={steps}",
        *overrides,
    ]


def settings(folder: Path, environment: dict[str, str] | None = None) -> dict[str, str]:
    """The environment of a run into `folder`."""
    result = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(REPOSITORY)}
    result["VERL_FILE_LOGGER_PATH"] = str(folder / "metrics.jsonl")
    result.pop("PYTHONDONTWRITEBYTECODE", None)
    result.update(environment or {})
    return result


def _wait(process: subprocess.Popen, timeout: float, metrics: Path, kill_after_step: int | None) -> int:
    if kill_after_step is None:
        return process.wait(timeout)
    deadline = time.monotonic() + timeout
    while process.poll() is None and time.monotonic() < deadline:
        if metrics.exists() and f'"step":{kill_after_step},' in metrics.read_text():
            _kill_group(process.pid)
            break
        time.sleep(0.05)
    return process.wait(max(0.1, deadline - time.monotonic()))


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
