"""A grader of one's own: the reply must have exactly the number of words that was asked for.

The data source is ``word_count``; its ground truth is the number, as text. Rows look like this::

    {"data_source": "word_count", "prompt": [{"role": "user", "content": "Greet me in 5 words."}],
     "reward_model": {"style": "rule", "ground_truth": "5"}}
"""

from reward_fns import register


@register("word_count", extras={"word_distance": 0.0})
def grade(solution, ground_truth, extra_info, *, tolerance=0):
    """1 when the number of words is right (within ``tolerance``, a setting of the run), else 0."""
    wanted, found = int(ground_truth), len(solution.split())
    distance = abs(found - wanted)
    return {
        "score": float(distance <= tolerance),
        "format_ok": float(found > 0),
        "word_distance": distance,
        "feedback": "" if distance <= tolerance else f"The reply has {found} words; {wanted} were asked for.",
    }


@register("slow_word_count", deadline=2.0)
def grade_slowly(solution, ground_truth, extra_info):
    """The same under a deadline of two CPU seconds: it runs in a process of its own, killed when it is late."""
    while solution.startswith("slow"):  # stands for a comparison whose running time nobody knows
        pass
    return len(solution.split()) == int(ground_truth)
