"""What a run on this machine's CPU takes in memory, process by process, to hold `srpo plan` against.

    python -m benchmarks.plan_memory measure tiny --work /tmp/plan_memory      # a real run, 1 to 6 minutes
    python -m benchmarks.plan_memory table                                     # plan against measurement

`measure` trains for a few steps through verl, Ray and vLLM and reads the memory of every process of the run (PSS: pages
that processes share are counted once) twice a second. The peaks go to `benchmarks/plan_memory.json`.
Replies are scored by a coin (`coin_reward.py`), so that some are distilled in every step whatever the model can do.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from workflows.compose_config import compose_config
from workflows.plan.host import MIB, PROCESS_MIB, cpu_host
from workflows.plan.settings import lengths_of, settings_of
from workflows.plan.shapes import ModelShape, shape_of
from workflows.process_tree import ProcessTree
from workflows.tiny.model import Size, build_model, build_tokenizer
from workflows.tiny.start import Start, build
from workflows.verl_run import RunFiles, run_environment, verl_command

ROOT = Path(__file__).resolve().parent.parent
RECORD = Path(__file__).with_suffix(".json")
SMOLLM2 = str(ROOT / "examples" / "smollm2" / "srpo_smollm2.yaml")
# The title of a process (Ray sets it) begins or ends with this.
KINDS = {
    "ray::WorkerDict": "worker",
    "ray::SRPOWorker": "worker",
    "ray::vLLM": "rollout server",
    "VLLM::": "rollout engine",
    "ray::AgentLoop": "agent",
    "ray::RewardLoop": "reward",
    "ray::TaskRunner": "driver",
    "ray::SimpleStorage": "queue",
    "ray::TransferQueue": "queue",
    "ray::": "other Ray workers",
}


METRICS = ("prompt_length/mean", "response_length/mean", "srpo/routed_share", "timing_s/step")


@dataclass(frozen=True)
class Run:
    """One run to measure: which model, and how the config differs from its defaults."""

    config: str
    model: str
    overrides: tuple[str, ...] = ()
    steps: int = 3


MIDDLE = Size(hidden=512, layers=12, heads=8, kv_heads=4, head_dim=64, mlp=1536)
LONG = ("data.max_response_length=256", "actor_rollout_ref.rollout.max_model_len=1024")
RUNS = {
    "tiny": Run("srpo_tiny", "tiny"),
    "middle": Run("srpo_tiny", "middle", ("data.train_batch_size=8", "actor_rollout_ref.actor.ppo_mini_batch_size=8")),
    "middle, long": Run(
        "srpo_tiny",
        "middle",
        (
            "data.train_batch_size=8",
            "actor_rollout_ref.actor.ppo_mini_batch_size=8",
            "actor_rollout_ref.model.enable_gradient_checkpointing=true",
            *LONG,
        ),
    ),
    "smollm2": Run(SMOLLM2, "smollm2", steps=2),
    "smollm2, half the tokens": Run(
        SMOLLM2, "smollm2", ("actor_rollout_ref.actor.ppo_max_token_len_per_gpu=512",), steps=2
    ),
}


def kind_of(process: psutil.Process, driver: int) -> str:
    """Which part of a run a process is."""
    if process.pid == driver:
        return "main"
    title = " ".join(process.cmdline())
    for beginning, kind in KINDS.items():
        if title.startswith(beginning):
            return kind
    return "Ray daemons" if "/ray/" in title else "other"


class Peaks:
    """The largest memory of a run, in all and by kind of process, in bytes."""

    def __init__(self) -> None:
        self.total = 0
        self.at_total: dict[str, int] = {}
        self.of_kind: dict[str, int] = {}
        self.count: dict[str, int] = {}
        self.titles: dict[str, int] = {}
        self.series: list[tuple[float, dict[str, int]]] = []

    def read(self, tree: ProcessTree, now: float) -> None:
        sizes: dict[str, int] = {}
        count: dict[str, int] = {}
        for process in tree.members():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError):
                kind, size = kind_of(process, tree.process.pid), process.memory_full_info().pss
                sizes[kind] = sizes.get(kind, 0) + size
                count[kind] = count.get(kind, 0) + 1
                title = " ".join(process.cmdline())[:90]
                self.titles[title] = max(self.titles.get(title, 0), size)
        self.series.append((round(now, 1), sizes))
        for kind, size in sizes.items():
            self.of_kind[kind] = max(self.of_kind.get(kind, 0), size)
            self.count[kind] = max(self.count.get(kind, 0), count[kind])
        if (total := sum(sizes.values())) > self.total:
            self.total, self.at_total = total, sizes


def prepare(model: str, work: Path) -> Path:
    """The folder of model and data of a run, built once."""
    folder = work / model
    if (folder / "model" / "config.json").is_file():
        return folder
    if model == "smollm2":
        for script in (["prepare.py", "--out", str(folder / "model")], ["data.py", "arithmetic", "--out", str(folder)]):
            subprocess.run([sys.executable, str(ROOT / "examples" / "smollm2" / script[0]), *script[1:]], check=True)
        return folder
    start = Start(train=256, test=16)
    if model == "tiny":
        build(folder, start)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        start.write_data(folder)
        tokenizer = build_tokenizer(start.corpus(), MIDDLE)
        build_model(tokenizer, MIDDLE, seed=0).save_pretrained(folder / "model")
        tokenizer.save_pretrained(folder / "model")
    return folder


def overrides_of(run: Run, folder: Path, out: Path) -> list[str]:
    """The Hydra overrides of a measured run."""
    key = "smollm2" if run.config == SMOLLM2 else "tiny"
    return [
        f"{key}.folder={folder}",
        f"trainer.default_local_dir={out}/checkpoints",
        f"trainer.total_training_steps={run.steps}",
        "trainer.save_freq=-1",
        "trainer.test_freq=-1",
        "trainer.val_before_train=false",
        f"srpo.dump_dir={out}/teacher_prompts",
        "srpo.grad_norm_freq=0",
        "reward.custom_reward_function.path=pkg://benchmarks.coin_reward",
        f"hydra.run.dir={out}/hydra",
        "+ray_kwargs.ray_init.address=local",  # not a cluster that happens to run here
        *run.overrides,
    ]


def measure(name: str, work: Path, timeout: float = 1200) -> dict:
    """Train, and read the memory of all processes meanwhile. Raises RuntimeError if the run fails."""
    run, out = RUNS[name], work / "runs" / name.replace(", ", "_").replace(" ", "_")
    folder = prepare(run.model, work)
    out.mkdir(parents=True, exist_ok=True)
    files = RunFiles(out)
    for old in (files.log, files.metrics):
        old.unlink(missing_ok=True)
    overrides = overrides_of(run, folder, out)
    peaks, started = Peaks(), time.monotonic()
    env = run_environment(files, cpu=True)
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [env.get("PYTHONPATH")])])
    with ProcessTree(verl_command(run.config, {}, overrides), log=files.log, env=env) as tree:
        while (code := tree.poll()) is None:
            now = time.monotonic() - started
            peaks.read(tree, now)
            if now > timeout:
                raise RuntimeError(f"{name} was not done after {timeout:.0f} s; the log: {files.log}")
            time.sleep(0.5)
    if code != 0:
        raise RuntimeError(f"{name} failed with exit code {code}; the log: {files.log}")
    records = [json.loads(line) for line in files.metrics.read_text().splitlines()]
    steps = [{metric: record["data"][metric] for metric in METRICS} for record in records]
    (out / "peaks.json").write_text(json.dumps({"titles": peaks.titles, "series": peaks.series}))
    return {
        "overrides": list(run.overrides),
        "total": peaks.total,
        "at_total": peaks.at_total,
        "peak_of_kind": peaks.of_kind,
        "processes": peaks.count,
        "seconds": round(time.monotonic() - started),
        "shape": asdict(shape_of(str(folder / "model"))),
        "steps": steps,
    }


@dataclass(frozen=True)
class Comparison:
    """A run as planned and as measured, in bytes."""

    name: str
    parameters: int
    tokens: float
    worker: tuple[float, float]
    engine: tuple[float, float]
    total: tuple[float, float]
    # Before anything is known of the data: rollouts at their limits.
    worst_total: float


def compare(name: str, measured: dict, shape: ModelShape) -> Comparison:
    """The plan of a measured run for the mean lengths and the routed share that it had, and its peaks."""
    run = RUNS[name]
    config = compose_config(run.config, run.overrides)
    lengths, routed = mean_of(measured, "prompt_length/mean"), mean_of(measured, "srpo/routed_share")
    settings = settings_of(config, shape=shape)
    means = lengths_of(settings, response=mean_of(measured, "response_length/mean"), prompt=lengths)
    usual, worst = (cpu_host(settings, routed=routed, lengths=item) for item in (means, None))
    peaks = measured["peak_of_kind"]
    return Comparison(
        name=name,
        parameters=shape.parameters,
        tokens=settings.rollouts * (means.prompt + means.response),
        worker=(usual.worker.total, peaks["worker"]),
        engine=(PROCESS_MIB["rollout engine"] * MIB + usual.engine, peaks["rollout engine"]),
        total=(usual.total, measured["total"]),
        worst_total=worst.total,
    )


def mean_of(measured: dict, metric: str) -> float:
    """Mean of a metric over the steps of a measured run."""
    values = [record[metric] for record in measured["steps"]]
    return sum(values) / len(values)


def comparisons() -> list[Comparison]:
    """All recorded runs."""
    known = json.loads(RECORD.read_text())
    return [compare(name, known[name], ModelShape(**known[name]["shape"])) for name in RUNS if name in known]


def show_table() -> None:
    """Markdown: MiB as planned and as measured."""
    print("| run | million parameters | trainer worker | vLLM engine | whole run | whole run, worst case |")
    print("|---|---|---|---|---|---|")
    for item in comparisons():
        cells = [
            f"{planned / MIB:,.0f} / {found / MIB:,.0f} ({planned / found - 1:+.0%})"
            for planned, found in (item.worker, item.engine, item.total)
        ]
        worst = f"{item.worst_total / MIB:,.0f} ({item.worst_total / item.total[1] - 1:+.0%})"
        print(f"| {item.name} | {item.parameters / 1e6:.1f} | {' | '.join(cells)} | {worst} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("measure", "table"))
    parser.add_argument("names", nargs="*", help=f"runs to measure: {', '.join(RUNS)}; all by default")
    parser.add_argument("--work", type=Path, default=Path("/tmp/plan_memory"), help="models, data and logs")
    options = parser.parse_args()
    if options.action == "table":
        show_table()
        return
    for name in options.names or list(RUNS):
        result = measure(name, options.work)
        known = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
        known[name] = result
        RECORD.write_text(json.dumps(known, indent=1) + "\n")
        print(name, {kind: round(size / MIB) for kind, size in result["peak_of_kind"].items()}, flush=True)


if __name__ == "__main__":
    main()
