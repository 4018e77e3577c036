"""The SandboxFusion backend against a small server that behaves like it, and misbehaves on request."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from reward_fns import compute_score
from reward_fns.sandbox import fusion


class Handler(BaseHTTPRequestHandler):
    """Runs the code it is sent (the tests' own programs only); ``server.plan`` lists faults to commit first."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = json.loads(body)
        self.server.seen.append(request)
        fault = self.server.plan.pop(0) if self.server.plan else None
        if isinstance(fault, int):
            self.send_error(fault)
            return
        if fault is not None:
            self._send(fault)
            return
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-c", request["code"]], input=request["stdin"], text=True, capture_output=True,
                timeout=request["run_timeout"] + 2, check=False,
            )  # fmt: skip
            result = {
                "status": "Finished",
                "return_code": done.returncode,
                "stdout": done.stdout,
                "stderr": done.stderr,
            }
        except subprocess.TimeoutExpired:
            result = {"status": "TimeLimitExceeded", "return_code": None, "stdout": "", "stderr": ""}
        ok = result["return_code"] == 0
        self._send(json.dumps({"status": "Success" if ok else "Failed", "message": "", "run_result": result}))

    def _send(self, text):
        data = text.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(fusion, "PAUSE", 0.01)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.plan, httpd.seen = [], []
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        httpd.settings = {
            "backend": "fusion",
            "url": f"http://127.0.0.1:{httpd.server_port}/run_code",
            "cpu_seconds": 2,
        }
        yield httpd
        httpd.shutdown()


def grade(server, code, tests):
    return compute_score("code", f"```python\n{code}\n```", tests, sandbox=server.settings)


STDIN = json.dumps({"inputs": ["1 2", "3 4"], "outputs": ["3", "7777"]})
CALLS = json.dumps({"fn_name": "f", "inputs": [[1], [2]], "outputs": [[[1, 2]], [[2, 777]]]})


def test_programs_and_functions(server):
    adds = "a, b = map(int, input().split())\nprint(a + b if a == 1 else 7777)"
    result = grade(server, adds, STDIN)
    assert (result["score"], result["infra_error"], result["isolation"]) == (1.0, 0.0, 3.0)
    assert grade(server, "print(3)", STDIN)["tests_passed"] == 1.0
    assert grade(server, "def f(x):\n    print('hi')\n    return (x, 2 if x == 1 else 777)", CALLS)["score"] == 1.0
    assert grade(server, "def f(x): return [x, 2]", CALLS)["score"] == 0.0
    assert grade(server, "def f(x): raise KeyError('boom')", CALLS)["feedback"].count("boom") == 1
    assert grade(server, "import sys\ndef f(x): sys.exit(0)", CALLS)["score"] == 0.0
    asserts = {"test_list": ["assert f(1) == (1, 2)"]}
    assert grade(server, "def f(x): return (x, 2)", asserts)["score"] == 1.0
    assert grade(server, "def f(x): return (x, 3)", asserts)["score"] == 0.0


def test_the_server_never_sees_an_expected_output(server):
    grade(server, "print(3)", STDIN)
    grade(server, "def f(x): return [x, 2]", CALLS)
    assert server.seen
    assert not [request for request in server.seen if "777" in json.dumps(request)]


def test_a_time_out_is_wrong_not_an_infra_error(server):
    result = compute_score(
        "code", "```python\nwhile True: pass\n```", STDIN, sandbox={**server.settings, "cpu_seconds": 0.2}
    )
    assert (result["score"], result["timed_out"], result["infra_error"]) == (0.0, 1.0, 0.0)


@pytest.mark.parametrize("fault", [500, 503, 504, 429, "no json", "[]"])
def test_passing_faults_are_retried(server, fault):
    server.plan += [fault, fault]
    assert grade(server, "print(3)", STDIN)["tests_passed"] == 1.0


@pytest.mark.parametrize(
    "fault", [500, 404, "no json", json.dumps({"status": "SandboxError", "message": "full"}), "{}"]
)
def test_lasting_faults_are_infra_errors(server, fault):
    server.plan += [fault] * 10
    result = grade(server, "print(3)", STDIN)
    assert (result["score"], result["infra_error"]) == (0.0, 1.0)


def test_no_server_is_an_infra_error(server):
    server.settings["url"] = "http://127.0.0.1:9/run_code"
    assert grade(server, "print(3)", STDIN)["infra_error"] == 1.0


def test_settings_name_what_is_missing():
    with pytest.raises(ValueError, match=r"sandbox\.url"):
        compute_score("code", "```python\n1\n```", STDIN, sandbox={"backend": "fusion"})
    with pytest.raises(ValueError, match="known: backend"):
        compute_score("code", "```python\n1\n```", STDIN, sandbox={"timeout": 3})


def test_names_of_an_answer_do_not_meet_those_around_it(server):
    code = "# ---- the child\nimport json as _j\ndef encode(x): return 0\ndecode = _codec = _r = None\n"
    assert grade(server, code + "def f(x): return [x, 2 if x == 1 else 777]", CALLS)["score"] == 1.0
    assert grade(server, "class Solution:\n    def f(self, x): return [x, 2 if x == 1 else 777]", CALLS)["score"] == 1.0
    assert grade(server, "print(math.isqrt(9))", STDIN)["tests_passed"] == 1.0


def test_values_of_many_kinds_cross(server):
    asserts = {"test_list": ["assert list(f(2)) == [0, 1]", "assert f(1.5) == 2"]}
    code = "from fractions import Fraction\ndef f(x): return range(x) if x == 2 else Fraction(4, 2)"
    assert grade(server, code, asserts)["score"] == 1.0
