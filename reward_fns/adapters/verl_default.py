"""verl's ``default_compute_score`` with the keys of every other result: for sources that only verl knows (Search-R1)::

    reward.custom_reward_function.path=pkg://reward_fns.adapters.verl_default

Where both know a source, docs/rewards.md says how they differ. verl's own scores stay as they are: ``math_dapo`` says
-1 or 1 (``srpo.score_range=[-1,1]``), and its ``acc`` decides who is right.
"""

from __future__ import annotations

import time
from typing import Any

from reward_fns.result import BadSettings, make_result

#: Sources whose programs verl would run in the reward worker itself.
_UNCONFINED = frozenset({"codecontests", "apps", "codeforces", "taco"})


def compute_score(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: dict[str, Any] | None = None, **kwargs: Any
) -> dict[str, Any]:
    """The result dictionary (:data:`reward_fns.RESULT_KEYS`) of verl's verdict; what verl's function raises is raised.

    Raises:
        BadSettings: a code source without ``sandbox_fusion_url``: verl would run the model's programs unconfined.
    """
    from verl.utils.reward_score import default_compute_score

    start = time.perf_counter()
    if data_source in _UNCONFINED and not kwargs.get("sandbox_fusion_url"):
        raise BadSettings(
            f"verl runs the programs of {data_source!r} in the reward worker itself: give it a server with "
            "+reward.custom_reward_function.reward_kwargs.sandbox_fusion_url=URL, or grade with pkg://reward_fns, "
            "which has a sandbox of its own"
        )
    value = default_compute_score(data_source, solution_str, ground_truth, extra_info, **kwargs)
    if isinstance(value, dict):
        value = {key: value[key] for key in ("score", "acc", "pred") if value.get(key) is not None}
    return {**make_result(value), "grade_seconds": time.perf_counter() - start}
