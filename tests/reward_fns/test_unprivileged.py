"""The sandbox when the grader is not root: as a plain user with bubblewrap, and with Landlock and seccomp only."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.patience import PROCESS

PYTHON = "/usr/bin/python3"
ROOT = Path(__file__).parents[2]
NOBODY = 65534

SCRIPT = """
import json, os, sys, time
sys.path.insert(0, {root!r})
from reward_fns import compute_score
secret = os.path.join({home!r}, 'secret')
open(secret, 'w').write('LE' + 'AK'); os.chmod(secret, 0o600)
settings = {{"isolation": {isolation!r}, "cpu_seconds": 1, "python": {python!r}}}
tests = json.dumps({{"inputs": ["1", "2"], "outputs": ["42", "42"]}})
programs = {programs!r}
out = {{}}
for name, code in programs.items():
    code = code.replace("SECRET", repr(secret)).replace("GRADER", str(os.getpid()))
    wall = {patience} if name in {good!r} else 3
    out[name] = compute_score(
        "code", "```python\\n" + code + "\\n```", tests, sandbox={{**settings, "wall_seconds": wall}}
    )
time.sleep(0.5)
out["left"] = sorted(n for n in os.listdir("/tmp") if n.startswith("srpo_verl_pwned"))
print("RESULT" + json.dumps(out))
"""

PROGRAMS = {
    "honest": "print(42)",
    "subprocess": "import subprocess\nprint(subprocess.run(['echo', '42'], capture_output=True, text=True).stdout)",
    "kills the grader": "import os\ntry:\n    os.kill(GRADER, 9)\nexcept OSError as e: print(type(e).__name__)",
    "kills its parent": "import os\nos.kill(os.getppid(), 9)\nprint(0)",
    "reads a private file": "print(open(SECRET).read())",
    "reads the grader's memory": "open('/proc/GRADER/mem', 'rb').read(1)\nprint('LE' + 'AK')",
    "writes outside": "open('/tmp/srpo_verl_pwned', 'w').write('x')\nprint(0)",
    "opens a socket": "import socket\nsocket.create_connection(('127.0.0.1', 22), timeout=1)\nprint('LE' + 'AK')",
    "daemon": "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(300)\nprint(0)",
    "fork bomb": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "honest again": "print(42)",
}
GOOD = ("honest", "subprocess", "honest again")


@pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists(PYTHON), reason="needs root to become another user")
@pytest.mark.parametrize("isolation", ["namespaces", "plain"])
def test_as_a_plain_user(isolation):
    home = Path("/tmp") / f"srpo_verl_test_{os.getpid()}_{isolation}"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    script = SCRIPT.format(
        root=str(ROOT),
        home=str(home),
        isolation=isolation,
        python=PYTHON,
        programs=PROGRAMS,
        good=GOOD,
        patience=PROCESS,
    )
    try:
        done = subprocess.run(
            [PYTHON, "-B", "-c", script], user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", timeout=PROCESS,
            capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", "HOME": str(home)}, check=False,
        )  # fmt: skip
    finally:
        subprocess.run(["rm", "-rf", str(home)], check=True)
    if isolation == "namespaces" and "bubblewrap does not work here" in done.stderr:
        if os.environ.get("SRPO_REQUIRE_BWRAP"):
            pytest.fail(done.stderr)
        pytest.skip("bubblewrap does not work here for a plain user")
    assert "RESULT" in done.stdout, done.stderr[-2000:]
    out = json.loads(done.stdout.split("RESULT")[1])
    assert out.pop("left") == []
    for name, result in out.items():
        expected = float(name in GOOD)
        assert (result["score"], result["infra_error"]) == (expected, 0.0), (name, result, done.stderr[-500:])
        assert "LEAK" not in result["feedback"], name
    if isolation == "plain":
        assert "WITHOUT namespaces" in done.stderr
    end = time.monotonic() + 60
    while (left := _runners_of(NOBODY)) and time.monotonic() < end:
        time.sleep(0.1)
    assert left == []
    assert not [p for p in Path("/tmp").glob("srpo_verl_run_*") if p.stat().st_uid == NOBODY]


def _runners_of(uid):
    """Processes of a user that came from a sandbox."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            command = Path("/proc", entry, "cmdline").read_bytes() if entry.isdigit() else b""
            if b"runs inside the sandbox" in command and Path("/proc", entry).stat().st_uid == uid:
                found.append(int(entry))
        except OSError:
            continue
    return found
