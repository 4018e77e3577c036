"""Completions that others have examined: each gets the verdict it deserves, in bounded CPU time.

The file lies below ``SRPO_TEST_DATA``; without it the tests are skipped.
"""

import time

from reward_fns import compute_score

MOST_CPU = 5.0  # seconds of this process for one verdict, where a row has no limit of its own


def test_examined_cases(published_rows):
    wrong, slow = [], []
    for row in published_rows("graders/cases.jsonl"):
        start = time.process_time()
        result = compute_score(row["data_source"], row["solution"], row["ground_truth"], row.get("extra_info"))
        spent = time.process_time() - start
        score = None if result["infra_error"] else result["score"]
        if score != row["expected"]:
            wrong.append((row["kind"], row["solution"][-200:], score, row["expected"]))
        if spent > row.get("limit_s", MOST_CPU):
            slow.append((row["kind"], spent))
    assert not wrong
    assert not slow
