"""Short runs of the real stack: their model, data and config, and the start of one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil

from workflows.gpu_check.card_memory import CardMemory
from workflows.gpu_check.machine import ROOT
from workflows.gpu_check.settings import NotRunError, Settings
from workflows.metrics_log import Record
from workflows.tiny.start import Start, build
from workflows.verl_run import RunFailed, RunFiles, RunOutcome, run_environment, verl_command, watch

TINY = "tiny"
SMOLLM2 = ROOT / "runs" / "smollm2" / "model"
# A share of the card that leaves room on a shared one, and whose cache is large enough to be seen going to sleep.
CARD_SHARE = 0.4
HOW_TO_GET_ONE = (
    "`python examples/smollm2/prepare.py --out runs/smollm2/model` makes it (with --gguf FILE where there is no "
    "network), --model FOLDER names another model, and --model tiny a random one that is made here"
)


@dataclass(frozen=True)
class Material:
    """Model and data of all runs."""

    model: Path
    train: Path
    test: Path
    tiny: bool


def material(settings: Settings) -> Material:
    """The model that was asked for. Raises NotRunError if it is not there."""
    if settings.model == TINY:
        folder = settings.folder / "tiny"
        build(folder, Start(), progress=False)
        return Material(folder / "model", folder / "train.parquet", folder / "test.parquet", tiny=True)
    model = Path(settings.model).expanduser().absolute() if settings.model else SMOLLM2
    if not (model / "config.json").is_file():
        raise NotRunError(f"{model} holds no model: {HOW_TO_GET_ONE}")
    data = settings.folder / "sums.parquet"
    write_sums(data)
    return Material(model, data, data, tiny=False)


def write_sums(path: Path) -> None:
    """Sums and differences of one digit, which a model of 135 million weights gets right now and then."""
    rows = [
        {
            "data_source": "smollm2_arithmetic",
            "prompt": [{"role": "user", "content": f"What is {a} {sign} {b}? Reply with the number only."}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": str(a + b if sign == "+" else a - b)},
            "extra_info": {"index": 20 * a + 2 * b + (sign == "-"), "split": "train"},
        }
        for a in range(10)
        for b in range(10)
        for sign in "+-"
    ]
    pd.DataFrame(rows).sample(frac=1, random_state=0).to_parquet(path)


def overrides(settings: Settings, found: Material, folder: Path, *, steps: int, save: int) -> list[str]:
    """Hydra's, of one run."""
    prompts = 8 if settings.gpu else 4
    return [
        f"platform={settings.platform}",
        f"actor_rollout_ref.model.path={found.model}",
        f"data.train_files={found.train}",
        f"data.val_files={found.test}",
        f"data.train_batch_size={prompts}",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={prompts}",
        "data.max_prompt_length=128",
        "data.max_response_length=48",
        "data.filter_overlong_prompts=false",
        "data.apply_chat_template_kwargs={}",
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=4096",
        "actor_rollout_ref.actor.optim.lr=1e-5",
        "actor_rollout_ref.actor.optim.lr_warmup_steps=2",
        "actor_rollout_ref.rollout.max_model_len=832",
        f"actor_rollout_ref.rollout.gpu_memory_utilization={CARD_SHARE}",
        *(["srpo.topk=20"] if found.tiny else []),
        "srpo.grad_norm_freq=0",
        f"srpo.dump_dir={folder}/teacher_prompts",
        # More than a small machine has: they are counted, not used.
        "ray_kwargs.ray_init.num_cpus=32",
        "trainer.n_gpus_per_node=1",
        "trainer.logger=[console,file]",
        f"trainer.default_local_dir={folder}/checkpoints",
        "trainer.val_before_train=false",
        "trainer.test_freq=-1",
        f"trainer.save_freq={save}",
        "trainer.resume_mode=auto",
        f"trainer.total_training_steps={steps}",
        f"hydra.run.dir={folder}/hydra",
    ]


@dataclass
class Ran:
    """A run that came to its end, or was killed as planned (`outcome` None)."""

    files: RunFiles
    records: list[Record]
    card: CardMemory
    outcome: RunOutcome | None
    failure: str = ""

    @property
    def steps(self) -> list[Record]:
        return [record for record in self.records if "training/global_step" in record.data]

    @property
    def sentences(self) -> list[str]:
        """What this project said in the log."""
        lines = self.files.log.read_text(errors="replace").splitlines()
        return [line[line.index("srpo: ") :] for line in lines if "srpo: " in line]


class _Follow:
    """Keeps the records, and kills the program of the run with SIGKILL once a step was logged."""

    def __init__(self, kill_after: int | None):
        self.records: list[Record] = []
        self.killed = False
        self._kill_after = kill_after

    def stage(self, name: str) -> None:
        print(f"    {name}", flush=True)

    def record(self, record: Record) -> None:
        self.records.append(record)
        if self._kill_after is not None and record.step >= self._kill_after and not self.killed:
            self.killed = True
            for child in psutil.Process().children():
                with suppress(psutil.NoSuchProcess, ProcessLookupError):
                    if os.getsid(child.pid) == child.pid:  # as `ProcessTree` starts it
                        child.kill()


def run(
    config: str,
    settings: Settings,
    words: Sequence[str],
    folder: Path,
    *,
    timeout: float,
    kill_after: int | None = None,
) -> Ran:
    """Train into `folder`; a failure is in the answer, not raised."""
    files, follow = RunFiles(folder), _Follow(kill_after)
    folder.mkdir(parents=True, exist_ok=True)
    env = {"HF_HUB_OFFLINE": "1", **run_environment(files, cpu=not settings.gpu)}
    with CardMemory() as card:
        try:
            outcome = watch(
                verl_command(config, {}, words), files=files, env=env, observer=follow, timeout=max(1.0, timeout)
            )
        except RunFailed as error:
            return Ran(files, follow.records, card, None, "" if follow.killed else str(error))
    return Ran(files, outcome.records, card, outcome)
