"""Throughput of the graders, against the naive way, in one run: ``python benchmarks/rewards.py``.

Prints, for 256 code completions with 5 tests each and for 256 math answers, the seconds taken by ``compute_score`` from
8 threads, and the same work done naively (a fresh ``python`` per test; math-verify inline), as a ratio. On a busy
machine only the ratios mean anything. ``--small`` does a sixteenth of the work.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

from reward_fns import compute_score
from reward_fns.metrics import summarize

PROGRAMS = [
    "a, b = map(int, input().split())\nprint(a + b)",
    "import sys\nprint(sum(map(int, sys.stdin.read().split())))",
    "from collections import Counter\na, b = map(int, input().split())\nprint(sum(Counter(x=a, y=b).values()))",
    "import math, heapq\nh = list(map(int, input().split()))\nheapq.heapify(h)\nprint(heapq.heappop(h) + h[0])",
]
TESTS = [(f"{i} {i * i}\n", f"{i + i * i}\n") for i in range(1, 6)]
HOSTILE = ["((9!)!)!", "\\prod_{n=1}^{10^{15}} n", "(7^{8!})!", "\\binom{9^{9^{9}}}{8^{8}}"]  # all reach the workers


def math_answers(count: int, hostile: float) -> list[tuple[str, str, float]]:
    """Answers that need algebra, of which a fraction are hostile: (reply, gold, expected score)."""
    kinds = [
        ("\\frac{{\\sqrt{{{k}}}}}{{2}}", "\\sqrt{{{k}}}/2"),
        ("x^2+{k}x+1", "1+x^2+{k}x"),
        ("\\frac{{{k}}}{{7}}\\pi", "\\frac{{{k}\\pi}}{{7}}"),
        ("({k}, \\sqrt{{2}})", "({k},\\sqrt{{2}})"),
        ("{k}", "{k}"),
        ("{k}.5", "\\frac{{{k}*2+1}}{{2}}"),
    ]
    rows = []
    for index in range(count):
        pred, gold = (text.format(k=index + 2) for text in kinds[index % len(kinds)])
        gold = f"{(index + 2) * 2 + 1}/2" if "*2+1" in gold else gold
        rows.append((f"So we get\n\\boxed{{{pred}}}", gold, 1.0))
    for index in range(int(count * hostile)):
        rows[index * count // max(1, int(count * hostile))] = (
            f"\\boxed{{{HOSTILE[index % len(HOSTILE)]}}}",
            "17+x",
            0.0,
        )
    return rows


def timed(function, items, threads: int) -> tuple[float, list]:
    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as executor:
        results = list(executor.map(function, items))
    return time.perf_counter() - start, results


def code_naively(program: str) -> float:
    """A fresh interpreter per test, no isolation, no limits but a time-out."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "solution.py")
        path.write_text(program)
        for stdin, expected in TESTS:
            done = subprocess.run([sys.executable, str(path)], input=stdin, text=True, capture_output=True, timeout=10)
            if done.stdout.split() != expected.split():
                return 0.0
    return 1.0


def math_naively(rows) -> list[float]:
    """math-verify as its documentation shows it, in this thread, with its own time-outs."""
    from math_verify import parse, verify

    return [float(verify(parse(f"${gold}$"), parse(reply))) for reply, gold, _ in rows]


def report(name: str, seconds: float, naive: float | None, results: list) -> None:
    metrics = summarize(results, prefix="")
    ratio = f"{naive:8.1f} s  {naive / seconds:6.2f} x" if naive else f"{'-':>8}    {'-':>6}  "
    print(
        f"{name:44} {seconds:8.1f} s {ratio}  p50 {metrics['latency_p50']:.3f}  p99 {metrics['latency_p99']:.3f}  "
        f"timed out {sum(r['timed_out'] for r in results):.0f}  infra {sum(r['infra_error'] for r in results):.0f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--threads", type=int, default=8)
    options = parser.parse_args()
    count = 16 if options.small else 256
    print(f"{count} completions each, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{'':44} {'ours':>10} {'naive':>10} {'naive / ours':>8}")
    programs = [PROGRAMS[index % len(PROGRAMS)] for index in range(count)]
    tests = json.dumps({"inputs": [a for a, _ in TESTS], "outputs": [b for _, b in TESTS]})
    cores = len(os.sched_getaffinity(0))
    naive, scores = timed(code_naively, programs, cores)
    assert scores == [1.0] * count
    for isolation in ("namespaces", "plain"):
        settings = {"isolation": isolation}
        compute_score("code", "```python\n1\n```", tests, sandbox=settings)  # start the pool

        def grade(program, settings=settings):
            return compute_score("code", f"```python\n{program}\n```", tests, sandbox=settings)

        seconds, results = timed(grade, programs, options.threads)
        assert [r["score"] for r in results] == [1.0] * count, results
        report(f"code, 5 tests each, strict, {isolation}", seconds, naive, results)
    compute_score("math", "\\boxed{x+1}", "1+x", deadline=30)  # start the workers
    for hostile in (0.0, 0.1):
        rows = math_answers(count, hostile)
        seconds, results = timed(lambda row: compute_score("math", row[0], row[1]), rows, options.threads)
        assert [r["score"] for r in results] == [row[2] for row in rows]
        start = time.perf_counter()
        math_naively(rows)
        report(f"math, {hostile:.0%} hostile slow ones", seconds, time.perf_counter() - start, results)


if __name__ == "__main__":
    main()
