"""Code: a Python program or function against the tests of its row, run in a sandbox.

The process of the program gets inputs only; expected outputs and the comparison stay here. Assert-style tests run in a
second sandbox that calls the answer's function across the two, through this process.
"""

from __future__ import annotations

import json
import re
import time
from typing import Any

from reward_fns.codetests import AssertTest, CallTest, StdinTest, Test, TestSuite, read_tests
from reward_fns.feedback import CaseResult, describe
from reward_fns.options import Options
from reward_fns.result import GraderUnavailable
from reward_fns.sandbox import Sample, SandboxConfig, backend
from reward_fns.sandbox.base import Calls, Outcome
from reward_fns.sandbox.values import decode, encode, parse_reply, same_value
from reward_fns.strictjson import JSONProblem, loads

_FENCE = re.compile(r"^[ \t]*(?P<mark>`{3,}|~{3,})[ \t]*(?P<lang>[\w+#.-]*)[^\n`]*$", re.MULTILINE)
_PYTHON = frozenset({"python", "py", "python3", "python2", "pypy", "pypy3"})
_MAX_PROGRAM = 200_000


def grade(solution: str, ground_truth: Any, extra_info: dict[str, Any], options: Options) -> dict[str, Any]:
    """Grade one completion against the tests ``ground_truth`` (see :mod:`reward_fns.codetests`)."""
    suite = read_tests(ground_truth)
    config = SandboxConfig.from_dict(options.sandbox)
    sandboxes = backend(config)
    base = {"isolation": sandboxes.isolation, "tests_total": len(suite.tests)}
    program = extract_program(solution)
    if not program:
        feedback = "No program found: give it in one ```python block."
        return {**base, "score": 0, "format_ok": 0, "feedback": feedback}
    program = program.replace("\r\n", "\n")
    results = run_suite(program, suite, config, stop_at_failure=not options.partial)
    passed = sum(result.passed for result in results)
    right = passed == len(suite.tests)
    failed = next((result for result in results if not result.passed), None)
    return {
        **base,
        "score": passed / len(suite.tests) if options.partial else right,
        "acc": right,
        "format_ok": 1,
        "feedback": describe(failed, results.index(failed) + 1, len(suite.tests)) if failed else "",
        "tests_passed": passed,
        "timed_out": any(result.kind == "time" for result in results),
    }


def extract_program(solution: str) -> str:
    """The last closed Python block (or the last closed block of no language) after any thinking; "" when none.

    A fence is closed by one of the same character, at least as long. Text without any fence that parses as Python is a
    program as it stands.
    """
    text = solution.rsplit("</think>", 1)[-1].lstrip("\ufeff").replace("\r\n", "\n")
    blocks: list[tuple[str, str]] = []
    opened: re.Match[str] | None = None
    for match in _FENCE.finditer(text):
        mark = match.group("mark")
        if opened is None:
            opened = match
        elif mark[0] == opened.group("mark")[0] and len(mark) >= len(opened.group("mark")) and not match.group("lang"):
            blocks.append((opened.group("lang").lower(), text[opened.end() : match.start()].strip("\n")))
            opened = None
        elif match.group("lang").lower() in _PYTHON and not opened.group("lang"):
            opened = match  # a stray fence before the real one
    python = [body for lang, body in blocks if lang in _PYTHON]
    plain = [body for lang, body in blocks if not lang]
    if blocks or opened is not None:
        chosen = (python or plain or [""])[-1]
    else:
        chosen = text.strip() if _parses(text) else ""
    return chosen if chosen.strip() and len(chosen) <= _MAX_PROGRAM else ""


def _parses(text: str) -> bool:
    """Whether text without a fence looks like a program (compiled nowhere: only its words are looked at)."""
    return len(text) <= _MAX_PROGRAM and bool(re.search(r"(?m)^(?:def |class |import |from \w+ import |print\()", text))


def run_suite(program: str, suite: TestSuite, config: SandboxConfig, stop_at_failure: bool = True) -> list[CaseResult]:
    """Run the tests in order; up to and with the first failure when ``stop_at_failure``."""
    results: list[CaseResult] = []
    program = f"{suite.prefix}\n{program}" if suite.prefix else program
    with backend(config).sample() as sample:
        end = time.monotonic() + config.sample_seconds
        for test in suite.tests:
            if time.monotonic() > end:
                results.append(CaseResult(test, False, "time", detail="all tests together took too long"))
                break
            result = run_test(sample, program, test, suite.cpu_seconds, config)
            if result.outcome is not None and result.outcome.reason == "broken":
                result = run_test(sample, program, test, suite.cpu_seconds, config)
            results.append(result)
            if stop_at_failure and not result.passed:
                break
    return results


def run_test(sample: Sample, program: str, test: Test, cpu_seconds: float | None, config: SandboxConfig) -> CaseResult:
    """Run one test and compare."""
    if isinstance(test, StdinTest):
        outcome = sample.run_stdin(program, test.stdin, cpu_seconds)
        kind = failure_kind(outcome)
        got = outcome.stdout.decode("utf-8", "replace")
        if not kind and not same_output(test.expected, got):
            kind = "answer"
        return CaseResult(test, not kind, kind, got=got, outcome=outcome)
    calls = sample.open_calls(program, cpu_seconds)
    if isinstance(test, CallTest):
        return _run_call(calls, test, config)
    return _run_asserts(sample, calls, test, cpu_seconds, config)


def failure_kind(outcome: Outcome) -> str:
    """``time``, ``output``, ``error`` or "" for how an execution ended."""
    if outcome.timed_out:
        return "time"
    if outcome.reason == "output":
        return "output"
    return "error" if outcome.reason or outcome.exit else ""


def _run_call(calls: Calls, test: CallTest, config: SandboxConfig) -> CaseResult:
    request = {"name": test.name, "args": [encode(item) for item in test.args], "kwargs": {}}
    raw = calls.call(request)
    if raw is None:
        outcome = calls.finish()
        return CaseResult(test, False, failure_kind(outcome) or "error", outcome=outcome)
    outcome = calls.finish()
    try:
        value = decode(parse_reply(raw, config.output_bytes)["value"])
        passed = same_value(test.expected, value)
    except (JSONProblem, RecursionError):
        return CaseResult(test, False, "error", detail="the function returned nothing that can be compared")
    return CaseResult(test, passed, "" if passed else "answer", got=show(value))


def _run_asserts(
    sample: Sample, calls: Calls, test: AssertTest, cpu_seconds: float | None, config: SandboxConfig
) -> CaseResult:
    """Relay calls from the tests' sandbox to the answer's, parsing strictly on the way."""
    tests = sample.open_tests(test.setup, test.code, test.names, cpu_seconds)
    last = ""
    try:
        while True:
            raw = tests.next_reply()
            if raw is None:
                ended = tests.finish()
                if ended.timed_out:
                    return CaseResult(test, False, "time", detail="the tests took too long")
                if last:  # the value it was given broke it
                    return CaseResult(test, False, "answer", got=last, detail="the tests could not use this value")
                raise GraderUnavailable(f"the tests' own process failed: {ended.reason} {ended.stderr[-300:]!r}")
            message = loads(raw.decode(), max_chars=config.output_bytes)
            if "passed" in message:
                return CaseResult(test, True, "")
            if "failed" in message:
                return CaseResult(test, False, "answer", got=last, detail=message["failed"])
            if "broken" in message:
                return CaseResult(test, False, "answer", got=last, detail=f"the test raised {message['broken']}")
            request = message["call"]
            answer = calls.call(request)
            if answer is None:
                outcome = calls.finish()
                return CaseResult(test, False, failure_kind(outcome) or "error", got=last, outcome=outcome)
            try:
                reply = parse_reply(answer, config.output_bytes)
                values = [decode(item) for item in (reply["value"], *reply.get("args", []))]
            except (JSONProblem, RecursionError):
                return CaseResult(test, False, "error", detail="the function returned nothing that can be compared")
            shown = ", ".join(show(decode(item)) for item in request["args"])
            last = f"{request['name']}({shown[:500]}) returned {show(values[0])}"
            clean = {"value": encode_again(reply["value"])}
            if "args" in reply:
                clean["args"] = reply["args"]
            tests.send(clean)
    finally:
        calls.finish()
        tests.finish()


def show(value: Any) -> str:
    """``repr``, bounded; integers of thousands of digits have none."""
    try:
        return repr(value)[:1000]
    except (ValueError, RecursionError):
        return f"<a very large {type(value).__name__}>"


def encode_again(value: Any) -> Any:
    """A parsed reply as it goes on to the tests' process: JSON that was parsed and checked here."""
    return json.loads(json.dumps(value))


def same_output(expected: str, got: str) -> bool:
    """Whether a program's output is the expected one: line by line, by tokens, numbers by value.

    Surrounding blank lines and trailing spaces do not count. Where a token is a decimal number in both, it may differ
    by 1e-9 relatively (and ``1.0`` is ``1``); everything else is compared as text.
    """
    left, right = ([line.split() for line in text.strip().splitlines()] for text in (expected, got))
    if left == right:
        return True
    left, right = ([line for line in lines if line] for lines in (left, right))
    if len(left) != len(right):
        return False
    return all(len(a) == len(b) and all(map(_same_token, a, b)) for a, b in zip(left, right, strict=True))


_DECIMAL = re.compile(r"[+-]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?", re.ASCII)


def _same_token(expected: str, got: str) -> bool:
    if expected == got:
        return True
    if "." not in expected + got and "e" not in (expected + got).lower():
        return False
    if len(expected) > 400 or len(got) > 400 or not _DECIMAL.fullmatch(expected) or not _DECIMAL.fullmatch(got):
        return False
    return same_value(float(expected), float(got))


#: Columns that may hold a reference solution.
REFERENCES = ("reference", "reference_solution", "canonical_solution", "solution", "code")


def render_gold(ground_truth: Any, extra_info: dict[str, Any]) -> str | None:
    """A completion with the row's reference solution, None when it has none (used to check data).

    A HumanEval solution is the body alone; the prompt of its tests comes before it.
    """
    read_tests(ground_truth)
    data = ground_truth
    if isinstance(data, str) and data.strip().startswith("{"):
        data = json.loads(data)
    places = [extra_info, data if isinstance(data, dict) else {}]
    found = next((str(place[key]) for place in places for key in REFERENCES if place.get(key)), None)
    if found is None:
        return None
    if (
        isinstance(data, dict)
        and data.get("prompt")
        and "entry_point" in data
        and f"def {data['entry_point']}" not in found
    ):
        found = str(data["prompt"]) + found
    return f"```python\n{found}\n```"
