"""The stage `stack`: GRPO, SDPO and SRPO through verl, Ray and vLLM, and a run that is killed and goes on."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig

from workflows.compose_config import compose_config
from workflows.gpu_check.planned import Measured, card, run_peaks
from workflows.gpu_check.result import Check, Outcome, Peak, Stage
from workflows.gpu_check.settings import NotRunError, Settings, need
from workflows.gpu_check.stack_runs import CARD_SHARE, Material, Ran, material, overrides, run
from workflows.metrics_log import Record, series
from workflows.plan.gpus import GIB, GPU

# verl's mean of |exp(rollout log-prob) - exp(actor's)| over the tokens. Both compute in bfloat16 on a GPU, with other
# kernels; in float32 on a CPU.
SAME_PROBABILITIES = {"gpu": 0.02, "cpu": 1e-3}
AGREEMENT = "training/rollout_probs_diff_mean"
# Of what vLLM may take of the card, the share that sleeping gives back: its cache and weights.
GIVEN_BACK = 0.5
FINITE = ("actor/pg_loss", "actor/grad_norm", "srpo/sdpo_loss", "srpo/divergence")


def stack(settings: Settings) -> Stage:
    """GRPO, SDPO and SRPO through verl, Ray and vLLM; the last is killed half way and resumed."""
    need(("verl", "ray", "transfer_queue"), "they come with requirements/gpu.txt")
    need(("vllm",), "the GPU set has it (requirements/gpu.txt)" if settings.gpu else "the CPU set has it (`make venv`)")
    found = material(settings)
    started, limit = time.monotonic(), settings.limits["stack"]
    checks: list[Check] = []
    peaks: list[Peak] = []
    log = settings.folder / "stack"
    for method in settings.methods:
        left = limit - (time.monotonic() - started)
        if left <= 0:
            reason = f"{limit:.0f} s were over before {method} began"
            return Stage(checks=checks, peaks=peaks, reason=reason, log=str(log))
        print(f"  {method}, {settings.steps} steps, log in {log / method / 'train.log'}", flush=True)
        found_checks, found_peaks = _method(method, settings, found, log / method, timeout=left)
        checks += found_checks
        peaks += found_peaks
    return Stage(checks=checks, peaks=peaks, log=str(log))


def _method(
    method: str, settings: Settings, found: Material, folder: Path, *, timeout: float
) -> tuple[list[Check], list[Peak]]:
    """One run and, for the last method, its kill and the start that goes on from the checkpoint."""
    begun = time.monotonic()
    killed = method == settings.methods[-1] and settings.steps >= 2
    save = max(1, settings.steps // 2) if killed else -1
    words = overrides(settings, found, folder, steps=settings.steps, save=save)
    config = compose_config(method, words)
    kill_after = min(save + 1, settings.steps - 1) if killed else None
    ran = run(method, settings, words, folder, timeout=timeout, kill_after=kill_after)
    checks = list(_of_run(method, ran, settings, expected=kill_after or settings.steps, killed=killed))
    rans = [ran]
    if killed and not ran.failure:
        left = timeout - (time.monotonic() - begun)
        again = run(method, settings, words, folder / "resumed", timeout=left)
        rans.append(again)
        checks.append(_resumed(method, ran, again, settings.steps))
    return checks, _peaks(method, config, settings, rans)


def _of_run(method: str, ran: Ran, settings: Settings, *, expected: int, killed: bool) -> Iterator[Check]:
    steps = [record.step for record in ran.steps]
    reason = ran.failure or ("" if steps[:expected] == list(range(1, expected + 1)) else f"steps {steps} were logged")
    step_seconds = [value for _, value in series(ran.records, "timing_s/step")]
    figures = {"median step": f"{sorted(step_seconds)[len(step_seconds) // 2]:.2f} s"} if step_seconds else {}
    if ran.outcome is not None:
        figures["whole run"] = f"{ran.outcome.total_seconds:.0f} s"
    name = f"{method}: {expected} steps" + (", then SIGKILL" if killed else "")
    yield _check(name, reason, sum(step_seconds), figures)
    if ran.failure or not ran.steps:
        return
    bad = [f"{key} {v} in step {n}" for key in FINITE for n, v in series(ran.records, key) if not math.isfinite(v)]
    yield _check(f"{method}: losses and gradients are finite", ", ".join(bad))
    yield _agreement(method, ran, settings.platform)
    if method != "grpo":
        most = max((value for _, value in series(ran.records, "srpo/routed_share")), default=0.0)
        said = "" if most else "no rollout was distilled, so the divergence was never computed"
        yield _check(f"{method}: rollouts are distilled", said, figures={"most in a step": f"{most:.0%}"})
    alarms = [line for line in ran.sentences if "watchdog" in line or "is dead" in line]
    yield _check(f"{method}: no false alarm of the watchdog", "; ".join(alarms))
    yield _sleep(method, ran, settings)


def _agreement(method: str, ran: Ran, platform: str) -> Check:
    """vLLM and the trainer give the sampled tokens the same probabilities; a step after each other's weights."""
    values = [value for _, value in series(ran.records, AGREEMENT)]
    limit = SAME_PROBABILITIES[platform]
    if not values:
        return _check(f"{method}: rollout and actor agree", f"verl logged no {AGREEMENT}")
    worst = max(values)
    reason = "" if worst <= limit else f"{AGREEMENT} is {worst:.2g}, more than {limit:.2g}: other weights or kernels"
    figures = {"largest mean difference of probabilities": f"{worst:.2g}", "limit": f"{limit:.2g}"}
    return _check(f"{method}: rollout and actor agree", reason, figures=figures)


def _sleep(method: str, ran: Ran, settings: Settings) -> Check:
    name = f"{method}: vLLM sleeps and wakes"
    if not settings.gpu:
        return Check(name, Outcome.SKIPPED, reason="platform=cpu never sleeps")
    if not ran.card.samples:
        return Check(name, Outcome.SKIPPED, reason="nvidia-smi does not say how much memory is in use")
    fall, least = ran.card.deepest_fall(), GIVEN_BACK * CARD_SHARE * _card().memory
    figures = {"given back and taken again": _gib(fall), "at most in use": _gib(ran.card.peak)}
    reason = "" if fall >= least else f"no more than {_gib(fall)} were given back, {_gib(least)} expected"
    return _check(name, reason, figures=figures)


def _resumed(method: str, first: Ran, second: Ran, steps: int) -> Check:
    logged = [record.step for record in second.steps]
    last = first.steps[-1].step if first.steps else 0
    reason = second.failure
    if not reason and (not logged or logged[-1] != steps or not 1 < logged[0] <= last + 1):
        reason = f"the second start logged steps {logged}, after {last} of the first"
    figures = {"steps of the first start": f"1 to {last}", "of the second": f"{logged[:1]} to {logged[-1:]}"}
    return _check(f"{method}: goes on from its checkpoint", reason, figures=figures)


def _peaks(method: str, config: DictConfig, settings: Settings, rans: list[Ran]) -> list[Peak]:
    ended = [ran for ran in rans if ran.outcome is not None]
    if not ended:
        return []
    records = [record for ran in ended for record in ran.steps]
    measured = Measured(
        prompt=_mean(records, "prompt_length/mean"),
        response=_mean(records, "response_length/mean"),
        routed=_mean(records, "srpo/routed_share"),
        allocated=GIB * max((v for _, v in series(records, "actor/perf/max_memory_allocated_gb")), default=0.0),
        card=max(ran.card.peak for ran in ended),
        host=max(ran.outcome.peak_memory_bytes for ran in ended if ran.outcome),
    )
    return run_peaks(config, method, _card() if settings.gpu else None, measured)


def _mean(records: list[Record], name: str) -> float:
    values = [value for _, value in series(records, name)]
    return sum(values) / len(values) if values else 0.0


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"


def _card() -> GPU:
    import torch

    if not torch.cuda.is_available():
        raise NotRunError("torch sees no GPU")
    found = torch.cuda.get_device_properties(0)
    return card(found.name, found.total_memory)


def _check(name: str, reason: str, seconds: float = 0.0, figures: dict[str, str] | None = None) -> Check:
    """Failed if there is a reason."""
    return Check(name, Outcome.FAILED if reason else Outcome.PASSED, seconds, reason, figures or {})
