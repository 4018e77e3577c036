"""A reward function for a real run: each reply is exchanged for an honest or a hostile completion, in turn.

What `reward_fns` says to it is written to the folder HOSTILE_FOLDER, one file per verdict.
"""

import json
import os
from pathlib import Path

from reward_fns import compute_score as grade

CALLS = json.dumps({"fn_name": "f", "inputs": [[1]], "outputs": [5]})
ASSERTS = json.dumps({"test_list": ["assert f(1) == 5"]})
PROGRAM = json.dumps({"inputs": ["1\n"], "outputs": ["5\n"]})
FRAME = "import os, struct\ndef f(x):\n    d = {!r}\n    os.write(4, struct.pack('>I', len(d)) + d)\n    os._exit(0)"
COLLIDE = json.dumps({"value": {"s": [{"i": hex(((1 << 61) - 1) * k)} for k in range(1, 2000)]}}).encode()
HONEST = {"math": "\\boxed{5}", CALLS: "def f(x): return 5", ASSERTS: "def f(x): return 5", PROGRAM: "print(5)"}
HOSTILE = [
    ("math", "\\boxed{\\cot 0}"),
    ("math", "\\boxed{\\sum_{n=1}^{\\infty} \\frac{\\sin n}{n^{1.001}}}"),
    ("math", "\\boxed{((9!)!)!}"),
    ("math", "The final answer" + "\n" * 20_000),
    ("math", "\\boxed{4} or \\boxed{5}"),
    (ASSERTS, FRAME.format(b'{"value":{"c":[]}}')),
    (CALLS, FRAME.format(COLLIDE)),
    (CALLS, "def f(x): return {10**5000: 1}"),
    (PROGRAM, "import os\nwhile True:\n    os.fork()"),
    (PROGRAM, "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nos.kill(-1, signal.SIGKILL)"),
    (PROGRAM, "while True: print('5' * 10**6)"),
    (PROGRAM, "x = [0] * 10**10"),
]


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
    number = _next_number()
    tests, hostile = HOSTILE[number // 2 % len(HOSTILE)]
    completion = HONEST[tests] if number % 2 else hostile
    if tests == "math":
        result = grade("math", completion, "5", **kwargs)
    else:
        result = grade("code", f"```python\n{completion}\n```", tests, sandbox={"cpu_seconds": 2}, **kwargs)
    line = {"hostile": not number % 2, "completion": completion[:200], **result}
    Path(os.environ["HOSTILE_FOLDER"], f"{number}.json").write_text(json.dumps(line))
    return result


def _next_number():
    """The number of this verdict, over all processes of the run."""
    number = 0
    while True:
        try:
            os.close(os.open(Path(os.environ["HOSTILE_FOLDER"], str(number)), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            number += 1
        else:
            return number
