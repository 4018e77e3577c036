"""Rollouts to read: a sample of what a run dumped, with the teacher's prompt where there was one.

Two dumps meet here: `srpo.dump_dir` has the rollouts that got a teacher prompt, verl's `trainer.rollout_data_dir` has
all of them, correct and unrouted ones included. Both have one file per step.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srpo_verl.training.rollout_keys import RolloutKey
from workflows.report.reported_run import ReportedRun, said_once
from workflows.run_reader import Run

# Steps of a run that are looked into, evenly spaced; and characters of a text that are shown.
MAX_STEPS, MAX_CHARACTERS = 8, 20_000
MAX_ENDING = 60
DISTILLED, MIXED, REINFORCED, NO_GRADIENT, UNKNOWN = (
    "SDPO",
    "teacher as advantage",
    "GRPO",
    "no gradient",
    "route not recorded",
)


@dataclass(frozen=True)
class ReadRollout:
    """One rollout. Texts are shortened to MAX_CHARACTERS; what is not known is empty or None."""

    run: str
    step: int
    route: str
    uid: str
    rollout: int | None
    score: float | None
    question: str
    response: str
    teacher_prompt: str
    ground_truth: str
    remark: str

    @property
    def shown_score(self) -> str:
        return "unknown" if self.score is None else f"{self.score:.3g}"

    @property
    def ending(self) -> str:
        """The end of the response, where the answer is, on one line."""
        text = " ".join(self.response.split())
        return text if len(text) <= MAX_ENDING else "..." + text[-MAX_ENDING:]


def sample_rollouts(runs: Sequence[ReportedRun], *, count: int, seed: int) -> tuple[list[ReadRollout], list[str]]:
    """About `count` rollouts, the same number from each run, step and route as far as they go; and what is missing."""
    if count < 1:
        return [], ["no rollouts were asked for (--samples 0)"]
    read = {run.name: _read(run) for run in runs}
    share = max(1, count // max(1, sum(bool(found) for found, _ in read.values())))
    chosen = [
        rollout
        for name, (found, _) in read.items()
        for rollout in _spread(found, share, random.Random(f"{seed} {name}"))
    ]
    missing = [(name, problem) for name, (_, problems) in read.items() for problem in problems]
    return chosen, said_once(missing)


def _spread(rollouts: Sequence[ReadRollout], count: int, chance: random.Random) -> list[ReadRollout]:
    """`count` of them, turn by turn from each step and route."""
    cells: dict[tuple[int, str], list[ReadRollout]] = {}
    for rollout in rollouts:
        cells.setdefault((rollout.step, rollout.route), []).append(rollout)
    order = list(cells.values())
    chance.shuffle(order)
    for members in order:
        chance.shuffle(members)
    taken: list[ReadRollout] = []
    turn = 0
    while len(taken) < count and any(len(members) > turn for members in order):
        taken += [members[turn] for members in order if len(members) > turn]
        turn += 1
    return sorted(taken[:count], key=lambda r: (r.step, r.route, r.uid, r.rollout if r.rollout is not None else -1))


def _read(reported: ReportedRun) -> tuple[list[ReadRollout], list[str]]:
    run = reported.run
    prompts = _files(run, "srpo.dump_dir")
    dumped = _files(run, "trainer.rollout_data_dir")
    if not prompts and not dumped:
        return [], ["no rollouts were dumped (srpo.dump_dir, trainer.rollout_data_dir)"]
    problems = []
    if not dumped:
        problems.append("only rollouts with a teacher prompt were dumped; trainer.rollout_data_dir dumps all of them")
    # Where both dumps are, the steps that have both: there the route is known.
    steps = _evenly(sorted(set(prompts) & set(dumped)) or sorted(prompts or dumped), MAX_STEPS)
    found: list[ReadRollout] = []
    for step in steps:
        routed: dict[tuple[str, int], dict[str, Any]] = {}
        for line in _lines(prompts.get(step), problems):
            rollout = line.get("rollout")
            routed[str(line.get("uid")), rollout if isinstance(rollout, int) else -1] = line
        found += _step(reported, step, routed, _lines(dumped.get(step), problems), dumped_prompts=bool(prompts))
    return found, problems


def _step(
    reported: ReportedRun,
    step: int,
    routed: dict[tuple[str, int], dict[str, Any]],
    lines: Sequence[dict[str, Any]],
    *,
    dumped_prompts: bool,
) -> list[ReadRollout]:
    run = reported.run
    with_teacher = MIXED if float(run.get("srpo.advantage_mix", 0)) > 0 else DISTILLED
    without = NO_GRADIENT if run.get("srpo.policy_gradient") == "none" else REINFORCED
    known = run.get("srpo.route") == "none" or (dumped_prompts and step % int(run.get("srpo.dump_freq", 1)) == 0)
    found, seen = [], set()
    for line in lines:
        uid, session = _session(str(line.get("uid", "")))
        teacher = routed.get((uid, session)) if session is not None else None
        seen.add((uid, session))
        route = with_teacher if teacher else without if known else UNKNOWN
        found.append(_rollout(reported.name, step, route, uid, session, line, teacher))
    for (uid, session), teacher in routed.items():
        if (uid, session) not in seen:
            found.append(_rollout(reported.name, step, with_teacher, uid, session, {}, teacher))
    return found


def _rollout(
    run: str,
    step: int,
    route: str,
    uid: str,
    session: int | None,
    line: dict[str, Any],
    teacher: dict[str, Any] | None,
) -> ReadRollout:
    teacher = teacher or {}
    remarks = []
    if teacher.get("demonstration") is not None:
        remarks.append(f"the teacher sees rollout {teacher['demonstration']} of this group")
    elif teacher.get("provider"):
        remarks.append(f"the teacher sees: {teacher['provider']}")
    if teacher.get("truncated"):
        remarks.append(f"demonstration shortened by {teacher.get('dropped_tokens')} tokens")
    score = line.get("score", teacher.get("score"))
    return ReadRollout(
        run=run,
        step=step,
        route=route,
        uid=uid,
        rollout=session,
        score=float(score) if isinstance(score, int | float) else None,
        question=_short(line.get("input")),
        response=_short(teacher.get("response", line.get("output"))),
        teacher_prompt=_short(teacher.get("teacher_prompt")),
        ground_truth=_short(line.get("gts")),
        remark="; ".join(remarks),
    )


def _session(key: str) -> tuple[str, int | None]:
    """Group and session of verl's key; a dump of another verl may name rollouts otherwise."""
    try:
        return RolloutKey.parse(key)[:2]
    except ValueError:
        return key, None


def _files(run: Run, key: str) -> dict[int, Path]:
    """{step: file}."""
    for place in run.dump_places(key):
        files = (
            {int(file.stem): file for file in place.glob("*.jsonl") if file.stem.isdigit()} if place.is_dir() else {}
        )
        if files:
            return files
    return {}


def _lines(path: Path | None, problems: list[str]) -> list[dict[str, Any]]:
    if path is None:
        return []
    found, bad = [], 0
    for text in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except ValueError:
            bad += 1
            continue
        if isinstance(line, dict):
            found.append(line)
    if bad:
        problems.append(f"{path.parent.name}/{path.name}: {bad} lines cannot be read")
    return found


def _evenly(steps: Sequence[int], count: int) -> list[int]:
    """At most `count` of them, the first and the last included."""
    if len(steps) <= count:
        return list(steps)
    return [steps[round(place * (len(steps) - 1) / (count - 1))] for place in range(count)]


def _short(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) <= MAX_CHARACTERS:
        return text
    half = MAX_CHARACTERS // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"
