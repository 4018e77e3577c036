"""The verdicts of several graders on the same completions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from reward_fns import compute_score, registry
from reward_fns.result import BadSettings
from reward_fns.workers import Died, Failed, TimedOut, WorkerPool
from workflows.grade.completions import Completion
from workflows.reward_call import ask

RIVAL_SECONDS = 10.0  # of CPU time, for one verdict of a grader that is not ours
MATH, CODE = "reward_fns.graders.math", "reward_fns.graders.code"


@dataclass(frozen=True)
class Verdict:
    """A score (None: no verdict), the answer as it was read, and why."""

    score: float | None
    pred: str = ""
    reason: str = ""

    @property
    def word(self) -> str:
        if self.score is None:
            return "-"
        return "right" if self.score >= 1 else "wrong" if self.score <= 0 else f"{self.score:.2f}"


Grader = Callable[[Completion], Verdict]


@dataclass(frozen=True)
class Graded:
    """One completion and what each grader says to it; the first one is the reward in question."""

    completion: Completion
    verdicts: dict[str, Verdict]

    @property
    def disputed(self) -> bool:
        """Whether two graders, or a grader and the file, give different scores."""
        scores = {v.score for v in self.verdicts.values() if v.score is not None}
        return len(scores | ({self.completion.expected} - {None})) > 1

    @property
    def undecided(self) -> bool:
        """Whether the reward in question has no verdict."""
        return next(iter(self.verdicts.values())).score is None

    @property
    def missed(self) -> bool:
        """Whether the reward in question differs from the verdict that the file expects."""
        first = next(iter(self.verdicts.values()))
        return self.completion.expected is not None and first.score != self.completion.expected


def of_reward(reward: Callable[..., Any]) -> Grader:
    """Any reward function of verl's form.

    Raises:
        BadSettings, UnknownDataSource: by the function, which cannot grade here at all.
    """

    def grade(item: Completion) -> Verdict:
        reply = ask(reward, source=item.source, answer=item.solution, gold=item.gold, extra=item.extra)
        pred = str(reply.info.get("pred") or "")
        if reply.why:
            return Verdict(None, pred, f"no verdict: {reply.why}")
        reason = str(reply.info.get("feedback") or "")
        return Verdict(reply.score, pred, f"out of time. {reason}" if reply.info.get("timed_out") else reason)

    return grade


def of_mode(mode: str) -> Grader:
    """`reward_fns` in one of its modes; no verdict on the data sources that it cannot grade."""
    of_sources = of_reward(lambda **arguments: compute_score(**arguments, mode=mode))

    def grade(item: Completion) -> Verdict:
        try:
            return of_sources(item)
        except registry.UnknownDataSource:
            return Verdict(None, reason="unknown data source")
        except BadSettings as error:
            return Verdict(None, reason=str(error))

    return grade


def why_undecided(graded: Sequence[Graded]) -> str:
    """How often the reward in question has no verdict, and the commonest reason; "" where it always has one."""
    reasons = Counter(next(iter(row.verdicts.values())).reason for row in graded if row.undecided)
    if not reasons:
        return ""
    (reason, _), *_others = reasons.most_common(1)
    return f"no verdict of the reward on {reasons.total()} of {len(graded)}: {reason.removeprefix('no verdict: ')}"


def rivals(pool: WorkerPool) -> dict[str, Grader]:
    """verl's default and math-verify, in processes that are killed when they take too long."""

    def verl(item: Completion) -> Verdict:
        if _module(item.source) == CODE:
            return Verdict(None, reason="not asked: it runs programs without a sandbox")
        gold = item.gold if isinstance(item.gold, str) else str(item.gold)
        return _bounded(pool, "verl_default", [item.source, item.solution, gold, item.extra], "unknown data source")

    def math_verify(item: Completion) -> Verdict:
        if _module(item.source) != MATH:
            return Verdict(None, reason="not asked: it reads mathematics")
        return _bounded(pool, "math_verify_alone", [item.solution, str(item.gold)], "")

    return {"verl": verl, "math-verify": math_verify}


def _module(source: str) -> str:
    try:
        return registry.find(source).module
    except registry.UnknownDataSource:
        return ""


def _bounded(pool: WorkerPool, name: str, arguments: list[Any], nothing: str) -> Verdict:
    try:
        score = pool.call(f"workflows.grade.rivals:{name}", arguments, deadline=RIVAL_SECONDS)
    except TimedOut:
        return Verdict(0.0, reason=f"no answer in {RIVAL_SECONDS:g} s of CPU time: stalls the run")
    except (Died, Failed) as error:
        return Verdict(0.0, reason=f"raises: {error}")
    return Verdict(score, reason=nothing if score is None else "")


def grade_all(
    items: Sequence[Completion],
    graders: Mapping[str, Grader],
    threads: int = 4,
    on_row: Callable[[], object] = lambda: None,
) -> list[Graded]:
    """What each of the graders says to each completion; `on_row` is called after each."""

    def grade(item: Completion) -> Graded:
        found = Graded(item, {name: grader(item) for name, grader in graders.items()})
        on_row()
        return found

    with ThreadPoolExecutor(threads) as executor:
        return list(executor.map(grade, items))


def summary(graded: Sequence[Graded]) -> list[tuple[str, int, int, int, int, int | None]]:
    """Per grader: its name; completions right, wrong (or in part), without verdict; verdicts unlike the first
    grader's, and unlike the file's (None where it has none)."""
    names = list(graded[0].verdicts) if graded else []
    marked = any(row.completion.expected is not None for row in graded)
    rows = []
    for name in names:
        scores = [(row.verdicts[name].score, row.verdicts[names[0]].score, row.completion.expected) for row in graded]
        right = sum(score is not None and score >= 1 for score, _, _ in scores)
        none = sum(score is None for score, _, _ in scores)
        unlike = sum(score is not None and score != first for score, first, _ in scores)
        missed = sum(None not in (score, wanted) and score != wanted for score, _, wanted in scores)
        rows.append((name, right, len(scores) - right - none, none, unlike, missed if marked else None))
    return rows
