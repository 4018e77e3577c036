"""A verdict for a model that is too small to keep to an answer format: the first option letter of the reply.

SmolLM2-135M never writes the `<answer>` tags that SciKnowEval asks for, so the grader of `reward_fns` scores all of
its replies 0 and nothing can be learnt. This one reads the first capital letter A-D that stands alone ("A: 18", "D",
"option B"). It is for showing the machinery on real rows, not for comparing numbers.
"""

from __future__ import annotations

import re
from typing import Any

# Between spaces, quotes or punctuation; the C of a formula such as `(=O)C1` is no answer.
_LETTER = re.compile(r"""(?<![^\s"'*(])([A-D])(?=[\s"'*).,:;]|$)""")


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None, **_: Any
) -> dict[str, Any]:
    """1 if the first letter is the key; `format_ok` if there is a letter at all."""
    match = _LETTER.search(solution_str)
    correct = float(match is not None and match.group(1) == ground_truth)
    return {"score": correct, "acc": correct, "format_ok": float(match is not None), "feedback": "", "infra_error": 0.0}
