"""Guards on training itself: each step's metrics are looked at, and a run that has gone wrong warns, then stops.

Every guard counts the steps in a row at which its condition holds. It warns at half of its limit and stops the run at
the limit (`srpo.guards.*`; 0 switches it off). A step that cannot tell (no such metric) leaves the count as it is.
No verl, no Ray.

A symptom of collapse alone (short answers, low entropy) is also what a healthy run looks like when the task asks for
it; it counts as collapse only while the training accuracy is at most half of the best it has been.
"""

from __future__ import annotations

import logging
import math
import re
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from srpo_verl.config.schema import SRPOConfig

logger = logging.getLogger(__name__)
Metrics = Mapping[str, Any]
_VALIDATION = re.compile(r"val-core/.+/(?:acc|reward)/mean@\d+")

LOST = 0.5  # of the best running accuracy: at or below it, training has lost what it had
COLLAPSED = 0.25  # of the best running format rate, or of the first running length or entropy: at or below it
EXPLODED = 4.0  # times the first running length or entropy: at or above it
GAP_GREW, VALIDATION_FELL = 0.2, 0.1  # beyond the smallest gap so far; below the best validation accuracy


class TrainingStoppedError(RuntimeError):
    """A guard ended the run; the message is one sentence with the cause."""


@dataclass(frozen=True)
class Stop:
    """Why the run must end. With unsound weights no checkpoint is written on the way out."""

    guard: str
    sentence: str
    weights_are_sound: bool = True


@dataclass(frozen=True)
class _Guard:
    name: str
    holds: Callable[[Metrics], bool | None]  # None: this step cannot tell
    says: str
    weights_are_sound: bool = True


class Guards:
    """`observe` each step's metrics, in order; the state goes into the checkpoint."""

    def __init__(self, srpo: SRPOConfig):
        self.srpo = srpo
        self.limits = vars(srpo.guards)
        self.counts: dict[str, int] = {}
        self.skipped = 0
        self.recent: dict[str, deque[float]] = {}
        self.best: dict[str, float] = {}
        self.first: dict[str, float] = {}
        self.smallest_gap = math.inf
        self._guards = [
            _Guard("nonfinite", self._nonfinite, "the gradient was NaN or infinite; the updates were skipped", False),
            _Guard("format", self._collapse("format"), "the format rate collapsed, and accuracy fell"),
            _Guard("entropy", self._collapse("entropy"), "the entropy collapsed or exploded, and accuracy fell"),
            _Guard("length", self._collapse("length"), "the response length collapsed or exploded, and accuracy fell"),
            _Guard("gap", self._gap, "validation accuracy falls while training accuracy runs away from it"),
            _Guard(
                "unrouted",
                self._unrouted,
                "groups were mixed but nothing was distilled: do teacher prompts fit (srpo/teacher_prompt/too_long)?",
            ),
            _Guard(
                "unmixed",
                self._unmixed,
                "no group had both correct and incorrect rollouts, so nothing is learned: the task is solved or too "
                "hard, or the grader always answers the same",
            ),
            _Guard("idle_teacher", self._idle_teacher, "the EMA teacher equals an actor that is being updated"),
            _Guard(
                "branch_gradient",
                self._branch_gradient,
                "one branch has tokens but no gradient (srpo/grad_norm/grpo, srpo/grad_norm/sdpo)",
            ),
        ]

    def observe(self, metrics: dict[str, Any]) -> Stop | None:
        """Count, warn, and say whether to stop. Adds `srpo/guards/...` to the metrics: steps in a row, per guard."""
        self.skipped += int(metrics.get("srpo/skipped_updates", 0))
        self._remember(metrics)
        stop = None
        for guard in self._guards:
            limit = self.limits[guard.name]
            if limit == 0:
                continue
            holds = guard.holds(metrics)
            count = self.counts.get(guard.name, 0)
            if holds is not None:
                count = count + 1 if holds else 0
                self.counts[guard.name] = count
            metrics[f"srpo/guards/{guard.name}"] = float(count)
            if holds and count >= limit:
                sentence = (
                    f"guard srpo.guards.{guard.name} stopped the run: {guard.says} ({count} in a row; "
                    f"srpo.guards.{guard.name}=0 switches the guard off)."
                )
                stop = stop or Stop(guard.name, sentence, guard.weights_are_sound)
            elif holds and count == max(1, limit // 2):
                logger.warning("srpo: guard %s: %s (%d in a row, stops at %d)", guard.name, guard.says, count, limit)
        metrics["srpo/guards/skipped_updates"] = float(self.skipped)
        return stop

    def state_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "counts": dict(self.counts),
            "skipped": self.skipped,
            "recent": {name: list(values) for name, values in self.recent.items()},
            "best": dict(self.best),
            "first": dict(self.first),
            "smallest_gap": None if math.isinf(self.smallest_gap) else self.smallest_gap,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.counts = dict(state["counts"])
        self.skipped = state["skipped"]
        window = self.limits["window"]
        self.recent = {name: deque(values, maxlen=window) for name, values in state["recent"].items()}
        self.best, self.first = dict(state["best"]), dict(state["first"])
        self.smallest_gap = math.inf if state["smallest_gap"] is None else state["smallest_gap"]

    def _remember(self, metrics: Metrics) -> None:
        """Running means over `window` steps, their best, and the first full one."""
        for name, value in (
            ("accuracy", metrics.get("srpo/accuracy")),
            ("format", format_rate(metrics)),
            ("entropy", metrics.get("actor/entropy")),
            ("length", metrics.get("response_length/mean")),
        ):
            if value is None or not math.isfinite(value):
                continue
            values = self.recent.setdefault(name, deque(maxlen=self.limits["window"]))
            values.append(float(value))
            mean = self._mean(name)
            if mean is not None:
                self.best[name] = max(self.best.get(name, mean), mean)
                self.first.setdefault(name, mean)

    def _mean(self, name: str) -> float | None:
        """The running mean, None until the window is full."""
        values = self.recent.get(name, ())
        return sum(values) / len(values) if len(values) == self.limits["window"] else None

    def _nonfinite(self, metrics: Metrics) -> bool | None:
        norm = metrics.get("actor/grad_norm")
        return None if norm is None else not math.isfinite(norm)

    def _collapse(self, name: str) -> Callable[[Metrics], bool | None]:
        def holds(metrics: Metrics) -> bool | None:
            mean, accuracy = self._mean(name), self._mean("accuracy")
            if mean is None or accuracy is None or not self.best["accuracy"] > 0:
                return None
            lost = accuracy <= LOST * self.best["accuracy"]
            if name == "format":
                return lost and mean <= COLLAPSED * self.best["format"]
            return lost and (mean <= COLLAPSED * self.first[name] or mean >= EXPLODED * self.first[name])

        return holds

    def _gap(self, metrics: Metrics) -> bool | None:
        validation, training = validation_accuracy(metrics), metrics.get("srpo/accuracy")
        if validation is None or training is None or not math.isfinite(validation):
            return None
        self.best["validation"] = max(self.best.get("validation", validation), validation)
        mean = self._mean("accuracy")
        gap = (training if mean is None else mean) - validation
        self.smallest_gap = min(self.smallest_gap, gap)
        return gap > self.smallest_gap + GAP_GREW and validation < self.best["validation"] - VALIDATION_FELL

    def _unrouted(self, metrics: Metrics) -> bool | None:
        # A method that only asks its teacher routes nobody.
        if not self.srpo.distils or self.srpo.route == "none" or "srpo/routed_share" not in metrics:
            return None
        groups = "srpo/groups/all_wrong" if self.srpo.route == "all_wrong" else "srpo/groups/mixed"
        return metrics["srpo/routed_share"] == 0 and metrics[groups] > 0

    def _unmixed(self, metrics: Metrics) -> bool | None:
        mixed, routed = metrics.get("srpo/groups/mixed"), metrics.get("srpo/routed_share")
        return None if mixed is None else mixed == 0 and not routed

    def _idle_teacher(self, metrics: Metrics) -> bool | None:
        teacher = self.srpo.teacher
        if "srpo/teacher_distance" not in metrics or teacher.kind != "ema" or teacher.ema_rate == 1:
            return None
        norm, rate = metrics.get("actor/grad_norm", 0.0), metrics.get("actor/lr", 0.0)
        if not (math.isfinite(norm) and norm > 0 and rate > 0):
            return None
        return metrics["srpo/teacher_distance"] == 0

    def _branch_gradient(self, metrics: Metrics) -> bool | None:
        if "srpo/grad_norm/sdpo" not in metrics:
            return None
        distilled = metrics.get("srpo/routed_tokens", 0) > 0 and metrics.get("srpo/coefficient", 1.0) != 0
        sdpo_idle = metrics["srpo/grad_norm/sdpo"] == 0 and distilled
        grpo_idle = metrics["srpo/grad_norm/grpo"] == 0 and metrics.get("srpo/grpo/with_advantage", 0) > 0
        return sdpo_idle or grpo_idle


def format_rate(metrics: Metrics) -> float | None:
    """Share of counted rollouts whose format the grader accepted, None if it says nothing about format."""
    routed = metrics.get("srpo/routed_share", 0.0)
    parts = [
        (share, metrics[key])
        for share, key in ((routed, "srpo/sdpo/format_ok"), (1 - routed, "srpo/grpo/format_ok"))
        if key in metrics
    ]
    total = sum(share for share, _ in parts)
    return sum(share * value for share, value in parts) / total if total > 0 else None


def validation_accuracy(metrics: Metrics) -> float | None:
    """Mean over the data sources of verl's `val-core/<source>/acc/mean@N`, None if this step was not validated."""
    values = [float(value) for key, value in metrics.items() if _VALIDATION.fullmatch(key)]
    return sum(values) / len(values) if values else None
