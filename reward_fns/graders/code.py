"""Code: a Python program or function against the tests of its row, run in a sandbox.

The process of the program gets inputs only; expected outputs and the comparison stay here. Assert-style tests run in a
second sandbox that calls the answer's function across the two, through this process.
"""

from __future__ import annotations

import json
import time
from typing import Any

from reward_fns.codetests import AssertTest, CallTest, StdinTest, Test, TestSuite, read_tests
from reward_fns.feedback import CaseResult, describe
from reward_fns.options import Options
from reward_fns.outputs import same_output
from reward_fns.programs import extract_program
from reward_fns.result import GraderUnavailable
from reward_fns.sandbox import Program, Sample, SandboxConfig, backend
from reward_fns.sandbox.base import Calls, Outcome
from reward_fns.sandbox.codec import encode
from reward_fns.sandbox.values import decode, parse_reply, same_value
from reward_fns.strictjson import JSONProblem, loads


def grade(solution: str, ground_truth: Any, extra_info: dict[str, Any], options: Options) -> dict[str, Any]:
    """Grade one completion against the tests ``ground_truth`` (see :mod:`reward_fns.codetests`)."""
    suite = read_tests(ground_truth)
    config = SandboxConfig.from_dict(options.sandbox)
    sandboxes = backend(config)
    base = {"isolation": sandboxes.isolation, "tests_total": len(suite.tests)}
    code = extract_program(solution, suite.names)
    if not code:
        feedback = "No program found: give it in one ```python block."
        return {**base, "score": 0, "format_ok": 0, "feedback": feedback}
    results = run_suite(code, suite, config, stop_at_failure=not options.partial)
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


def run_suite(code: str, suite: TestSuite, config: SandboxConfig, stop_at_failure: bool = True) -> list[CaseResult]:
    """Run the tests in order; up to and with the first failure when ``stop_at_failure``."""
    results: list[CaseResult] = []
    program = Program(code, suite.prelude)
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


def run_test(
    sample: Sample, program: Program, test: Test, cpu_seconds: float | None, config: SandboxConfig
) -> CaseResult:
    """Run one test and compare."""
    if isinstance(test, StdinTest):
        outcome = sample.run_stdin(program, test.stdin, cpu_seconds, _output_limit(test, config))
        kind = failure_kind(outcome)
        got = outcome.stdout.decode("utf-8", "replace")
        if not kind and not same_output(test.expected, got):
            kind = "answer"
        return CaseResult(test, not kind, kind, got=got, outcome=outcome)
    calls = sample.open_calls(program, cpu_seconds)
    if isinstance(test, CallTest):
        return _run_call(calls, test, config)
    return _run_asserts(sample, calls, test, cpu_seconds, config)


def _output_limit(test: StdinTest, config: SandboxConfig) -> int:
    """The configured limit; where the expected output is half as long, the next power of two that lets it pass."""
    needed = 2 * len(test.expected.encode("utf-8", "replace"))
    return config.output_bytes if needed <= config.output_bytes else 1 << needed.bit_length()


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
        passed = same_value(test.expected, value) or (test.wrapped and same_value([test.expected], value))
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
            try:
                message = loads(raw.decode(), max_chars=4 * config.output_bytes)
            except (JSONProblem, UnicodeDecodeError) as error:
                if last:  # they hand on what the answer gave them
                    return CaseResult(test, False, "answer", got=last, detail="the tests could not use this value")
                raise GraderUnavailable(f"the tests' own process sent {error}") from None
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
            tests.send(reply)
    finally:
        calls.finish()
        tests.finish()


def show(value: Any) -> str:
    """``repr``, bounded; integers of thousands of digits have none."""
    try:
        return repr(value)[:1000]
    except (ValueError, RecursionError):
        return f"<a very large {type(value).__name__}>"


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
