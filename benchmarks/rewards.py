"""Graders side by side in one run: verdicts that are right, and completions per second.

``python benchmarks/rewards.py`` grades, with ``compute_score`` from 8 threads and with what people use instead:

- 256 programs with 5 tests each, a quarter of them wrong: a fresh ``python`` per test; verl's ``prime_code``;
- 256 math answers, once without and once with a tenth of hostile slow ones: math-verify inline; verl's default;
- the math tables of the tests, whose rows say what a careful examiner would: the same, and SDPO's rule.

On a busy machine only the ratios mean anything; ``--load N`` makes it busy with N processes that spin. ``--small`` does
a sixteenth of the work.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "reward_fns"))
sys.path.insert(0, str(Path(__file__).parents[1]))

from reward_fns import compute_score

PROGRAMS = [
    ("a, b = map(int, input().split())\nprint(a + b)", 1.0),
    ("import sys\nprint(sum(map(int, sys.stdin.read().split())))", 1.0),
    ("from collections import Counter\na, b = map(int, input().split())\nprint(sum(Counter(x=a, y=b).values()))", 1.0),
    ("a, b = map(int, input().split())\nprint(a - b)", 0.0),
]
TESTS = [(f"{i} {i * i}\n", f"{i + i * i}\n") for i in range(1, 6)]
HOSTILE = [
    "((9!)!)!", "\\prod_{n=1}^{10^{15}} n", "(7^{8!})!", "\\binom{9^{9^{9}}}{8^{8}}",
    "\\sum_{n=1}^{\\infty} \\frac{\\sin n}{n^{1.001}}", "\\prod_{n=1}^{90000} (1+\\frac{1}{n^2})",
]  # fmt: skip
Row = tuple[str, str, float]  # completion, gold answer, the verdict it deserves


def math_answers(count: int, hostile: float) -> list[Row]:
    """Answers that need algebra, of which a fraction are hostile."""
    kinds = [
        ("\\frac{{\\sqrt{{{k}}}}}{{2}}", "\\sqrt{{{k}}}/2"),
        ("x^2+{k}x+1", "1+x^2+{k}x"),
        ("\\frac{{{k}}}{{7}}\\pi", "\\frac{{{k}\\pi}}{{7}}"),
        ("({k}, \\sqrt{{2}})", "({k},\\sqrt{{2}})"),
        ("{k}", "{k}"),
        ("{k}.5", "{m}/2"),
    ]
    rows = []
    for index in range(count):
        pred, gold = (text.format(k=index + 2, m=2 * index + 5) for text in kinds[index % len(kinds)])
        rows.append((f"So we get\n\\boxed{{{pred}}}", gold, 1.0))
    number = int(count * hostile)
    for index in range(number):
        rows[index * count // number] = (f"\\boxed{{{HOSTILE[index % len(HOSTILE)]}}}", "17+x", 0.0)
    return rows


def table_rows() -> list[Row]:
    """The math tables of the tests."""
    kinds, table = importlib.import_module("test_math_kinds"), importlib.import_module("test_math_table")
    rows = [(f"So \\boxed{{{answer}}}", gold, float(right)) for _, answer, gold, right in kinds.KINDS]
    rows += [(f"So \\boxed{{{answer}}}", gold, float(right)) for answer, gold, right, _ in table.BOXED]
    rows += [(reply, gold, float(right)) for _, reply, gold, right in kinds.WHOLE]
    return rows + [(row[0], row[1], float(row[2])) for row in table.REPLIES if len(row[0]) < 10_000]


def timed(function: Callable[..., float], items: Sequence[object], threads: int) -> tuple[float, list[float]]:
    start = time.perf_counter()
    if threads == 1:  # math-verify's alarms need the main thread
        results = [function(item) for item in items]
    else:
        with ThreadPoolExecutor(threads) as executor:
            results = list(executor.map(function, items))
    return time.perf_counter() - start, results


def program_naively(program: str) -> float:
    """A fresh interpreter per test, no isolation, no limits but a time-out."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "solution.py")
        path.write_text(program)
        for stdin, expected in TESTS:
            done = subprocess.run([sys.executable, str(path)], input=stdin, text=True, capture_output=True, timeout=10)
            if done.stdout.split() != expected.split():
                return 0.0
    return 1.0


def program_by_verl(program: str) -> float:
    from verl.utils.reward_score import default_compute_score

    tests = json.dumps({"inputs": [a for a, _ in TESTS], "outputs": [b for _, b in TESTS]})
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return float(default_compute_score("apps", f"```python\n{program}\n```", tests) == 1)


def math_by_math_verify(row: Row) -> float:
    """math-verify as its documentation shows it, in this thread, with its own time-outs."""
    from math_verify import parse, verify

    return float(verify(parse(f"${row[1]}$"), parse(row[0])))


def math_by_verl(row: Row) -> float:
    """verl's default for MATH (``math_reward``)."""
    from verl.utils.reward_score import default_compute_score

    with contextlib.redirect_stdout(io.StringIO()):
        return float(default_compute_score("lighteval/MATH", row[0], row[1]) == 1)


def math_by(mode: str) -> Callable[[Row], float]:
    def grade(row: Row) -> float:
        result = compute_score("math", row[0], row[1], mode=mode)
        return -1.0 if result["infra_error"] else result["score"]

    return grade


class Section:
    """One kind of work: its table, with every grader's time as a multiple of ours."""

    def __init__(self, title: str, items: Sequence[object], expected: Sequence[float]):
        self.items, self.expected, self.ours = items, expected, 0.0
        print(f"\n{title}\n{'':34} {'right':>9} {'seconds':>9} {'per second':>11} {'x ours':>7}", flush=True)

    def run(self, name: str, function: Callable[..., float], threads: int) -> None:
        seconds, results = timed(function, self.items, threads)
        self.ours = self.ours or seconds
        right = sum(a == b for a, b in zip(results, self.expected, strict=True))
        count = len(self.items)
        print(
            f"{name:34} {right:4}/{count:<4} {seconds:9.1f} {count / seconds:11.1f} {seconds / self.ours:7.1f}",
            flush=True,
        )


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """Processes that spin meanwhile."""
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def programs(count: int, threads: int) -> None:
    rows = [PROGRAMS[index % len(PROGRAMS)] for index in range(count)]
    section = Section(f"{count} programs, 5 tests each", [text for text, _ in rows], [right for _, right in rows])
    tests = json.dumps({"inputs": [a for a, _ in TESTS], "outputs": [b for _, b in TESTS]})
    for isolation in ("namespaces", "plain"):
        settings = {"isolation": isolation}
        compute_score("code", "```python\n1\n```", tests, sandbox=settings)  # start the pool

        def grade(program: str, settings: dict[str, str] = settings) -> float:
            return compute_score("code", f"```python\n{program}\n```", tests, sandbox=settings)["score"]

        section.run(f"ours, {isolation}", grade, threads)
    section.run("a fresh python per test", program_naively, len(os.sched_getaffinity(0)))
    section.run("verl's prime_code", program_by_verl, 1)


def mathematics(title: str, rows: list[Row], threads: int, paper: bool = False) -> None:
    section = Section(title, rows, [right for _, _, right in rows])
    section.run("ours, strict", math_by("strict"), threads)
    section.run("math-verify", math_by_math_verify, 1)
    section.run("verl's default", math_by_verl, 1)
    if paper:
        section.run("SDPO's rule (paper)", math_by("paper"), threads)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--load", type=int, default=0, help="processes that spin meanwhile")
    parser.add_argument("--only", choices=["code", "math"], help="one half of it")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    count = 16 if options.small else 256
    with busy(options.load):
        print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}, {options.load} spinning processes")
        if options.only != "math":
            programs(count, options.threads)
        if options.only == "code":
            return
        compute_score("math", "\\boxed{x+1}", "1+x", deadline=30)  # start the workers
        for grade in (math_by_math_verify, math_by_verl):
            grade(("\\boxed{x+1}", "1+x", 1.0))  # load what they load
        for hostile in (0.0, 0.1):
            mathematics(f"{count} math answers, {hostile:.0%} hostile", math_answers(count, hostile), options.threads)
        rows = table_rows()[:: 16 if options.small else 1]
        mathematics(f"{len(rows)} rows of the tests' tables", rows, options.threads, paper=True)


if __name__ == "__main__":
    main()
