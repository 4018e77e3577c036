"""How old the weights are that wrote a batch, against values counted by hand."""

from srpo_verl.config import SRPOConfig
from srpo_verl.training.step.routing_plan import Rollout, build_plan
from srpo_verl.training.step.staleness import staleness_metrics

# Score, and the versions that wrote the first and the last token.
GROUPS = {
    "a": [(1.0, 4, 4), (0.0, 2, 4), (0.0, 3, 3)],  # two failed rollouts with a correct sibling: distilled
    "b": [(0.0, 1, 4), (0.0, 4, 4), (0.0, 4, 4)],  # nobody to learn from
}


def test_by_route_and_within_groups():
    rows = [(f"{uid}_{n}_0", row) for uid, group in GROUPS.items() for n, row in enumerate(group)]
    rollouts = [Rollout(key=key, score=score, response_length=3) for key, (score, _, _) in rows]
    tags = [{"min_global_steps": first, "max_global_steps": last} for _, (_, first, last) in rows]
    # A rollout without a verdict, and padding: neither is counted, whatever its versions.
    undecided = Rollout(key="b_3_0", score=0.0, response_length=3, reward_info={"infra_error": 1.0})
    padding = Rollout(key="pad_0_0", score=0.0, response_length=1, padding=True)
    rollouts, tags = [*rollouts, undecided, padding], [*tags, tags[0], {**tags[0], "min_global_steps": 0}]
    plan = build_plan(rollouts, SRPOConfig(), group_size=4)
    assert plan.routed_rows() == [1, 2]
    assert staleness_metrics(plan, tags, version=4) == {
        "srpo/staleness/interrupted": 2 / 6,
        "srpo/staleness/group_spread": (4 - 2 + 4 - 1) / 2,
        "srpo/staleness/sdpo": ((4 - 2) + (4 - 3)) / 2,
        "srpo/staleness/grpo": (0 + 3 + 0 + 0) / 4,
    }


def test_a_batch_in_which_nothing_counts_has_none():
    plan = build_plan([Rollout(key="pad_0_0", score=0.0, response_length=1, padding=True)], SRPOConfig())
    assert staleness_metrics(plan, [{}], version=4) == {}
