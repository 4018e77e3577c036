# ruff: noqa: E501 - programs as text
"""Hostile programs: none scores, none leaves anything behind, none changes the next verdict or harms the grader.

Each attack is given where it fits: as the function under test (``f``, expected to return 42) or as a whole program
(expected to print 42). After each, an honest program must score and the machine must be as before.
"""

import json
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from reward_fns import compute_score
from reward_fns.sandbox.launch import FIRST_UID, UIDS
from tests.patience import PROCESS

FUNCTION = json.dumps({"fn_name": "f", "inputs": [[1], [2]], "outputs": [[42], [42]]})
ASSERTS = json.dumps({"test_list": ["assert f(1) == 42", "assert f(2) == 42"]})
PROGRAM = json.dumps({"inputs": ["1\n", "2\n"], "outputs": ["42\n", "42\n"]})
HONEST = {"function": "def f(x): return 42", "program": "print(42)"}

ALWAYS_EQUAL = (
    "    def __eq__(self, other): return True\n    def __ne__(self, other): return False\n    __hash__ = None\n"
)

FUNCTION_ATTACKS = {
    "object equal to everything": f"class E:\n{ALWAYS_EQUAL}def f(x): return E()",
    "int equal to everything": f"class E(int):\n{ALWAYS_EQUAL}def f(x): return E(7)",
    "str equal to everything": f"class E(str):\n{ALWAYS_EQUAL}def f(x): return E('x')",
    "list equal to everything": f"class E(list):\n{ALWAYS_EQUAL}def f(x): return E([7])",
    "dict equal to everything": f"class E(dict):\n{ALWAYS_EQUAL}def f(x): return E(a=7)",
    "float equal to everything": f"class E(float):\n{ALWAYS_EQUAL}def f(x): return E(7.0)",
    "equal through the class": "class M(type):\n    def __eq__(c, o): return True\n    __hash__ = type.__hash__\n"
    "class E(metaclass=M): pass\ndef f(x): return E",
    "poses as int": "class E:\n    __class__ = int\n    def __eq__(s, o): return True\n    def __index__(s): return 42\n"
    "    def __int__(s): return 42\ndef f(x): return E()",
    "reads the traceback's frames": "import sys\ndef f(x):\n    frame = sys._getframe()\n    while frame:\n"
    "        for v in list(frame.f_locals.values()) + list(frame.f_globals.values()):\n"
    "            for k in ('expected', 'outputs', 'output', 'tests'):\n"
    "                if isinstance(v, dict) and k in v: return v[k]\n        frame = frame.f_back\n    return 0",
    "searches gc for the expected value": "import gc\ndef f(x):\n"
    "    return max((o for o in gc.get_objects() if isinstance(o, list) and 42 in o), default=0)",
    "searches memory": "def f(x):\n    text = open('/proc/self/mem', 'rb'); maps = open('/proc/self/maps').read()\n"
    "    return 42 if 'outputs' in maps else 0",
    "reads the parent's memory": "import os\ndef f(x):\n    for p in (os.getppid(), 1):\n        try:\n"
    "            open(f'/proc/{p}/mem', 'rb').read(1)\n        except OSError: pass\n    return 0",
    "reads other processes": "import os\ndef f(x):\n    out = []\n    for p in os.listdir('/proc'):\n        if p.isdigit():\n"
    "            for n in ('environ', 'cmdline'):\n                try: out.append(open(f'/proc/{p}/{n}').read())\n"
    "                except OSError: pass\n    return 42 if any('[[42]' in t or 'SRPO_TEST' in t for t in out) else 0",
    "writes to every descriptor": "import os, json, struct\ndef f(x):\n    for payload in (b'42', b'{\"passed\": true}', "
    "json.dumps({'exit': 0, 'reason': '', 'stdout': 'NDI=', 'stderr': '', 'seconds': 0, 'cpu': 0}).encode()):\n"
    "        for fd in range(64):\n            for d in (payload, struct.pack('>I', len(payload)) + payload):\n"
    "                try: os.write(fd, d)\n                except OSError: pass\n    return 0",
    "pickle on the result channel": "import os, pickle, struct\nclass P:\n    def __reduce__(self):\n"
    "        return (os.system, ('touch /tmp/srpo_verl_pwned',))\ndef f(x):\n    d = pickle.dumps(P())\n"
    "    os.write(4, struct.pack('>I', len(d)) + d)\n    os._exit(0)",
    "malformed result": "import os, struct\ndef f(x):\n    os.write(4, struct.pack('>I', 3) + b'{42')\n    os._exit(0)",
    "huge result": "def f(x): return 'x' * (30 << 20)",
    "huge frame length": "import os\ndef f(x):\n    os.write(4, b'\\xff\\xff\\xff\\xff42')\n    os._exit(0)",
    "huge integer": "def f(x): return 10 ** 100000",
    "deeply nested result": "def f(x):\n    v = []\n    for _ in range(100000): v = [v]\n    return v",
    "self-containing result": "def f(x):\n    v = []\n    v.append(v)\n    return v",
    "deeply nested frame": "import os, struct\ndef f(x):\n    d = b'{\"value\": ' + b'[' * 50000 + b']' * 50000 + b'}'\n"
    "    os.write(4, struct.pack('>I', len(d)) + d)\n    os._exit(0)",
    "NaN": "def f(x): return float('nan')",
    "NaN in the frame": "import os, struct\ndef f(x):\n    d = b'{\"value\": NaN}'\n"
    "    os.write(4, struct.pack('>I', len(d)) + d)\n    os._exit(0)",
    "duplicate keys in the frame": 'import os, struct\ndef f(x):\n    d = b\'{"value": 0, "value": 42}\'\n'
    "    os.write(4, struct.pack('>I', len(d)) + d)\n    os._exit(0)",
    "unknown tag": 'import os, struct\ndef f(x):\n    d = b\'{"value": {"exec": "1"}}\'\n'
    "    os.write(4, struct.pack('>I', len(d)) + d)\n    os._exit(0)",
    "True for an integer": "def f(x): return True",
    "text for an integer": "def f(x): return '42'",
    "patches json": 'import json\njson.dumps = lambda *a, **k: \'{"value": 1, "passed": true}\'\ndef f(x): return 0',
    "patches builtins": "import builtins\nfor n in ('isinstance', 'all', 'any', 'map', 'len', 'type', 'print'):\n"
    "    setattr(builtins, n, lambda *a, **k: True)\ndef f(x): return 0",
    "patches operators": "import operator, math\noperator.eq = math.isclose = lambda *a, **k: True\ndef f(x): return 0",
    "hard-codes the first test": "def f(x): return 42 if x == 1 else 0",
    "raises AssertionError": "def f(x): raise AssertionError('passed')",
    "generator": "def f(x):\n    yield 42",
    "exits before the call": "import os\nprint(42)\nos._exit(0)",
    "sys.exit in the call": "import sys\ndef f(x):\n    print(42)\n    sys.exit(0)",
    "kills its parent": "import os, signal\ndef f(x):\n    os.kill(os.getppid(), signal.SIGKILL)\n    return 0",
    "kills everything it can": "import os, signal\ndef f(x):\n    os.kill(-1, signal.SIGKILL)\n    return 0",
}

PROGRAM_ATTACKS = {
    "prints the result marker": "print('passed'); print('{\"exit\": 0, \"score\": 1}'); print('Test passed')",
    "sys.exit(0)": "import sys\nsys.exit(0)",
    "os._exit(0)": "import os\nos._exit(0)",
    "kill -9 self": "import os\nprint(42, flush=True)\nos.kill(os.getpid(), 9)",
    "stack overflow": "import sys\nsys.setrecursionlimit(10**9)\ndef g(): g()\nprint(42, flush=True)\ng()",
    "C stack overflow": "print(42, flush=True)\nv = []\nfor _ in range(10**6): v = [v]\nimport sys\n"
    "sys.setrecursionlimit(10**9)\nrepr(v)\nimport os; os.abort()",
    "segfault": "import ctypes\nprint(42, flush=True)\nctypes.string_at(0)",
    "abort": "import os\nprint(42, flush=True)\nos.abort()",
    "replaces sys.stdout": "import sys, io\nsys.stdout = io.StringIO()\nprint(42)",
    "closes stdout": "import os\nos.close(1)",
    "patches time and signal": "import time, signal\ntime.sleep = time.monotonic = lambda *a: 0\n"
    "signal.signal = signal.alarm = lambda *a: None\nwhile True: pass",
    "fork bomb": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "thread bomb": "import threading, time\nwhile True:\n    try: threading.Thread(target=time.sleep, args=(99,)).start()\n"
    "    except RuntimeError: pass",
    "double-forked daemon": "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
    "        time.sleep(300)\n    os._exit(0)\nos.wait()\nprint(0)",
    "daemon that keeps stdout": "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(300)\nprint(0)",
    "setsid": "import os, time\nif os.fork():\n    os._exit(0)\nos.setsid()\ntime.sleep(300)",
    "ignores signals": "import signal\nfor s in range(1, 64):\n    try: signal.signal(s, signal.SIG_IGN)\n"
    "    except (OSError, ValueError): pass\nwhile True: pass",
    "memory bomb": "x = []\nwhile True: x.append(bytearray(10**7))",
    "memory bomb that is caught": "x = []\ntry:\n    while True: x.append(bytearray(10**7))\nexcept MemoryError: print(0)",
    "endless output": "while True: print('42' * 1000)",
    "endless error output": "import sys\nwhile True: sys.stderr.write('x' * 10000)",
    "blocked in C": "pow(3, 10**9, 10**400); x = 3 ** (10**8); print(x % 7)",
    "blocked on a pipe": "import os\nr, w = os.pipe()\nos.read(r, 1)",
    "swallows the timeout": "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
    "fills the disk": "i = 0\ntry:\n    while True:\n        with open(f'f{i}', 'wb') as h: h.write(b'x' * 10**7)\n        i += 1\n"
    "        if i > 30: break\nexcept OSError: pass\nprint(0)",
    "opens too many files": "fs = []\ntry:\n    while True: fs.append(open('/dev/null'))\nexcept OSError: print(0)",
    "many small files": "import os\nfor i in range(3000): open(f'f{i}', 'w').close()\nprint(0)",
    "NUL": "print(42)\x00",
    "lone surrogate": "print('\ud800')",
    "BOM inside": "x = 1\n\ufeffprint(42",
    "unclosed string": "print('''42",
    "deep expression": "x = " + "(" * 5000 + "42" + ")" * 5000 + "\nprint(x)",
    "long chain": "x = " + "-" * 50000 + "42\nprint(x + 1)",
    "hard-codes the first test": "print(42 if input() == '1' else 0)",
}

ESCAPES = {
    "writes outside its directory": "import os\nhit = []\nfor d in ('/', '/tmp', '/var/tmp', '/dev/shm', '/usr/bin', "
    "'/etc', '/root', '/home', {repo!r}, '..', '../..'):\n    try:\n        p = os.path.join(d, 'srpo_verl_pwned')\n"
    "        open(p, 'w').write('x'); hit.append(p)\n    except OSError: pass\nprint(0)",
    "reads outside its directory": "hit = []\nfor p in ({repo!r} + '/pyproject.toml', '/etc/shadow', '/root/.bashrc', "
    "{secret!r}):\n    try: open(p).read(); hit.append(p)\n    except OSError: pass\nprint('read', hit)",
    "environment secrets": "import os\nprint('read', [k for k in os.environ if 'SECRET' in k or 'TOKEN' in k])",
    "network": "import socket\nhit = []\nfor a in (('1.1.1.1', 53), ('127.0.0.1', {port})):\n    try:\n"
    "        socket.create_connection(a, timeout=1); hit.append(a)\n    except OSError: pass\nprint('read', hit)",
}


@pytest.fixture
def machine(isolation):
    """Grade under this isolation; afterwards the machine is as before and an honest program scores."""
    before = _left_behind()
    threads = threading.active_count()
    settings = {**isolation, "cpu_seconds": 1, "memory_mb": 512}

    def attack(code, tests, wall=2):
        return compute_score("code", f"```python\n{code}\n```", tests, sandbox={**settings, "wall_seconds": wall})

    yield attack
    for kind, tests in (("function", FUNCTION), ("program", PROGRAM)):
        result = attack(HONEST[kind], tests, wall=PROCESS)  # how long it takes is a busy machine's to say
        assert (result["score"], result["infra_error"]) == (1.0, 0.0), "the next verdict was poisoned"
    end = time.monotonic() + 60
    while (after := _left_behind()) - before and time.monotonic() < end:
        time.sleep(0.05)  # sandboxes are destroyed in the background
    assert not after - before, f"left behind: {after - before}"
    assert threading.active_count() <= threads + 2


def _left_behind():
    """Files in public places, and processes of sandbox users beyond the warm ones."""
    found = set()
    for folder in ("/tmp", "/var/tmp", "/dev/shm", "/", "/usr/bin", "/etc"):
        for name in os.listdir(folder):
            path = Path(folder, name)
            try:
                foreign = FIRST_UID <= path.lstat().st_uid < FIRST_UID + UIDS
            except OSError:
                continue
            if name.startswith("srpo_verl_pwned") or (foreign and not name.startswith("srpo_verl_run_")):
                found.add(str(path))
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                status = Path("/proc", entry, "status").read_text()
                parent = int(status.split("PPid:")[1].split()[0])
                command = Path("/proc", entry, "cmdline").read_bytes()
            except (OSError, IndexError):
                continue
            if parent == 1 and FIRST_UID <= int(status.split("Uid:")[1].split()[0]) < FIRST_UID + UIDS:
                found.add(f"orphan {entry} {command[:60]!r} {status[:200]!r}")
    return found


def _never_scores(result):
    assert (result["score"], result["acc"]) == (0.0, 0.0)
    assert result["infra_error"] == 0.0, "an attack must not take its rollout out of the group"
    result["feedback"].encode()


@pytest.mark.parametrize("name", FUNCTION_ATTACKS)
@pytest.mark.parametrize("tests", [FUNCTION, ASSERTS], ids=["calls", "asserts"])
def test_function_attack(name, tests, machine):
    _never_scores(machine(FUNCTION_ATTACKS[name], tests))


@pytest.mark.parametrize("name", PROGRAM_ATTACKS)
def test_program_attack(name, machine):
    _never_scores(machine(PROGRAM_ATTACKS[name], PROGRAM))


@pytest.mark.parametrize("name", ESCAPES)
def test_escape(name, machine, tmp_path, monkeypatch):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    monkeypatch.setenv("MY_SECRET_TOKEN", "1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        names = {"repo": str(Path(__file__).parents[2]), "secret": str(secret), "port": server.getsockname()[1]}
        code = ESCAPES[name]
        for key, value in names.items():
            code = code.replace("{" + key + "!r}", repr(value)).replace("{" + key + "}", str(value))
        result = machine(code, json.dumps({"inputs": ["1"], "outputs": ["nothing prints this"]}))
    _never_scores(result)
    if "read" in code:
        assert "Output:\nread []" in result["feedback"]


def test_import_shadowing(machine):
    """Files a test leaves in the working directory do not shadow modules of the next test, which starts empty."""
    code = (
        "import os, sys\nprint(42 if not os.listdir('.') else 0)\n"
        "for n in ('json', 'sitecustomize', 'random', 'usercustomize', 'heapq'):\n"
        "    open(n + '.py', 'w').write('print(\"shadowed\")\\nraise SystemExit')\n"
        "os.makedirs('.hidden/deep')\nimport random, json\n"
    )
    assert machine(code, PROGRAM)["score"] == 1.0


def test_state_does_not_travel_between_tests(machine):
    code = "import builtins\nprint(42 if not hasattr(builtins, 'seen') else 0)\nbuiltins.seen = 1"
    assert machine(code, PROGRAM)["score"] == 1.0


def test_many_at_once(isolation):
    """Hostile and honest programs side by side, from threads: every verdict is its own."""
    codes = {
        "print(42)": 1.0,
        "import os\nos.kill(-1, 9)": 0.0,
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass": 0.0,
        "def g(): return 42\nprint(g())": 1.0,
    }
    settings = {**isolation, "cpu_seconds": 1}
    verdicts = []

    def grade(code, expected):
        wall = PROCESS if expected else 3
        result = compute_score("code", f"```python\n{code}\n```", PROGRAM, sandbox={**settings, "wall_seconds": wall})
        verdicts.append((result["score"], result["infra_error"]) == (expected, 0.0))

    threads = [threading.Thread(target=grade, args=item) for item in list(codes.items()) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts == [True] * 12
