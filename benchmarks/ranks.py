"""How SRPO grows with ranks: work per rank, collectives per step and their bytes, balance of the teacher's batch.

1, 2 and 4 real workers over gloo, on a model of a few thousand weights: counts and bytes do not depend on the machine.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from verl.workers.utils.padding import response_from_nested

from benchmarks.harness import Measure
from benchmarks.worker_step import METHODS, make_batch
from srpo_verl.training.fields import TEACHER_ENTROPY, TEACHER_LOG_PROBS, TOPK_IDS
from srpo_verl.training.step.teacher_client import spread
from tests.training import rows, tiny_model
from tests.training.worker_process import run_ranks

BALANCE_LIMIT = 1.1


class Collectives(TorchDispatchMode):
    """Counts collective calls of this process, and the bytes of their tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, int] = defaultdict(int)
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace in ("c10d", "_c10d_functional") and "wait" not in func.__name__:
            self.calls[func.__name__.split(".")[0].strip("_")] += 1
            self.bytes += max((t.nbytes for t in tree_leaves(args) if isinstance(t, torch.Tensor)), default=0)
        return func(*args, **(kwargs or {}))


def counted_step(worker: Any, batch: rows.Batch, rank: int, world: int) -> dict[str, dict[str, float]]:
    """Calls, bytes and tokens of this rank in each stage."""
    count = len(batch)
    mine = list(range(rank * count // world, (rank + 1) * count // world))
    routed = batch.plan.routed_rows()
    k = worker.srpo.topk
    found: dict[str, dict[str, float]] = {}

    def stage(name: str, tokens: int, work: Any) -> Any:
        with Collectives() as counter:
            output = work()
        found[name] = {"calls": sum(counter.calls.values()), "bytes": counter.bytes, "tokens": tokens}
        return output

    def tokens(chosen: list[int], prompts: list[torch.Tensor]) -> int:
        return sum(prompts[row].numel() + batch.responses[row].numel() for row in chosen)

    data = rows.log_prob_batch(batch, mine, srpo_collect_topk=bool(routed))
    output = stage("old_log_prob", tokens(mine, batch.prompts), lambda: worker.compute_log_prob(data))
    old = response_from_nested(output["log_probs"], data["response_mask"]).unbind()
    ids = dict(zip(mine, output[TOPK_IDS].unbind(), strict=True)) if routed else {}
    gathered: list[Any] = [None] * world
    torch.distributed.all_gather_object(gathered, ids)
    ids = {row: value for part in gathered for row, value in part.items()}
    none = torch.zeros(0, k, dtype=torch.int32)
    log_probs, entropy = [torch.zeros(0, k)] * count, [torch.zeros(0)] * count
    if routed:
        lengths = {row: batch.teacher_prompts[row].numel() + batch.responses[row].numel() for row in routed}
        order = spread(lengths, batch_size=count, ranks=world)
        part = order[rank * len(order) // world : (rank + 1) * len(order) // world]
        answer = stage(
            "teacher",
            sum(lengths.get(row, 1) for row in part),
            lambda: worker.compute_teacher_targets(
                rows.teacher_batch(batch, part, [ids.get(r, none) for r in range(count)])
            ),
        )
        found["teacher"]["routed"] = len(routed)
        answers = {
            row: (answer[TEACHER_LOG_PROBS].unbind()[place], answer[TEACHER_ENTROPY].unbind()[place])
            for place, row in enumerate(part)
        }
        torch.distributed.all_gather_object(gathered, answers)
        for piece in gathered:
            for row, (values, entropies) in piece.items():
                if row in lengths:
                    log_probs[row], entropy[row] = values, entropies
    update = rows.update_batch(
        batch,
        mine,
        topk_ids=[ids.get(row, none) for row in range(count)],
        teacher_log_probs=log_probs,
        weights=rows.weights_of(batch, entropy, beta=1.0),
        old_log_probs=[dict(zip(mine, old, strict=True)).get(row, torch.zeros(0)) for row in range(count)],
        srpo_any_routed=bool(routed),
        mini_batch_size=count,
        epochs=1,
        seed=1,
        dataloader_kwargs={"shuffle": False},
        calculate_entropy=False,
    )
    teacher = worker.teacher
    worker.teacher = teacher if routed else None
    stage("update_actor", tokens(mine, batch.prompts), lambda: worker.update_actor(update))
    worker.teacher = teacher
    return found


def scenario(worker: Any, rank: int, world: int, payload: dict[str, Any]) -> dict[str, Any]:
    result = {}
    for name in METHODS:
        batch = make_batch(METHODS[name], 280, groups=4, size=8, prompt=48, response=64)
        found: list[Any] = [None] * world
        torch.distributed.all_gather_object(found, counted_step(worker, batch, rank, world))
        result[name] = found
    return result


def balance(ranks: int, routed: int, seed: int = 0) -> float:
    """Tokens of the fullest rank's share of a teacher batch of the paper's lengths over the mean."""
    rng = torch.Generator().manual_seed(seed)
    lengths = dict(enumerate(torch.randint(1000, 18_944, (routed,), generator=rng).tolist()))
    order = spread(lengths, batch_size=256 * max(1, ranks // 8), ranks=ranks)
    each = len(order) // ranks
    loads = [sum(lengths.get(row, 1) for row in order[i * each : (i + 1) * each]) for i in range(ranks)]
    return max(loads) / (sum(loads) / ranks)


def run(worlds: tuple[int, ...] = (1, 2, 4)) -> list[Measure]:
    model = tiny_model.build(Path("/tmp/srpo_bench_tiny"))
    results = []
    for world in worlds:
        found = run_ranks(scenario, world, model, {}, ["srpo.topk=8"])
        for method, ranks in found.items():
            for stage in ranks[0]:
                label = f"{world} ranks {method}: {stage}"
                results.append(Measure(f"{label}: collectives per rank", ranks[0][stage]["calls"], "calls"))
                results.append(Measure(f"{label}: bytes per rank", ranks[0][stage]["bytes"], "B"))
                tokens = [rank[stage]["tokens"] for rank in ranks]
                # Rows are not cut: 21 routed rows leave one of 4 ranks with 6, whatever is done.
                routed = ranks[0][stage].get("routed", 0)
                limit = BALANCE_LIMIT * -(-routed // world) / (routed / world) if routed else None
                most = max(tokens) / (sum(tokens) / world)
                results.append(Measure(f"{label}: tokens of the fullest rank / mean", most, "x", limit))
    for ranks, routed in ((8, 100), (64, 800), (512, 6400)):
        results.append(
            Measure(
                f"{ranks} ranks, {routed} routed: teacher tokens / mean", balance(ranks, routed), "x", BALANCE_LIMIT
            )
        )
    return results
