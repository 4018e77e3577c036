"""What SRPO's part of the driver costs in a step together with TransferQueue: CPU seconds, round trips, bytes.

The trainer's own methods run on a batch in a real queue (Ray, one storage unit); only verl's part of the step and the
workers are left out: the teacher's answers are put into the queue beforehand. Groups of 8 rollouts of 512 to 8,192
tokens, as in `driver`. Then what the workers move through the queue for the teacher's targets: written once, read once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock

import ray
import torch
import transfer_queue as tq
from omegaconf import OmegaConf
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from benchmarks.driver import GROUP, LONGEST, QUESTION, SHORTEST, STEP_SECONDS, corpus, text_tokenizer
from benchmarks.harness import Measure
from srpo_verl.config import settings
from srpo_verl.training.fields import TEACHER_ENTROPY, TEACHER_LOG_PROBS, TOPK_IDS, jagged
from srpo_verl.training.step.queue import get_fields
from srpo_verl.training.step.teacher_prompts import TeacherPromptBuilder
from srpo_verl.training.step.trainer import SRPOTrainer
from tests.compose import compose

PARTITION, K, PAYLOAD_ROLLOUTS, SHARE = "train", 100, 32, 0.01


@dataclass
class Traffic:
    """Round trips, bytes of tensors, and CPU seconds of this process."""

    calls: int = 0
    bytes: int = 0
    seconds: float = 0.0

    @contextmanager
    def counted(self) -> Iterator[None]:
        def wrap(call: Callable[..., Any], tensors: Callable[[Any, dict], Any]) -> Callable[..., Any]:
            def wrapped(**kwargs: Any) -> Any:
                started = time.process_time()
                result = call(**kwargs)
                self.seconds += time.process_time() - started
                self.calls += 1
                self.bytes += sum(_bytes(value) for value in tensors(result, kwargs).values())
                return result

            return wrapped

        with (
            mock.patch.object(tq, "kv_batch_get", wrap(tq.kv_batch_get, lambda result, _: result)),
            mock.patch.object(tq, "kv_batch_put", wrap(tq.kv_batch_put, lambda _, kwargs: kwargs["fields"])),
        ):
            yield


def _bytes(value: Any) -> int:
    if not isinstance(value, torch.Tensor):
        return 0
    return value.values().nbytes if value.is_nested else value.nbytes


class Driver(SRPOTrainer):
    """A trainer without workers, engine and data."""

    def __init__(self, tokenizer: Any) -> None:
        self.config = compose("srpo", ["platform=cpu"])
        OmegaConf.set_struct(self.config, False)
        self.srpo = settings(self.config.srpo)
        self.tokenizer, self.global_steps, self.timing_raw, self.train_dataset = tokenizer, 1, {}, None
        self.watchdog = SimpleNamespace(stage=lambda *_: nullcontext())
        self.prompt_builder = TeacherPromptBuilder(tokenizer, self.srpo, 2048 + LONGEST + 512, {})
        self.actor_rollout_wg = SimpleNamespace(
            _dispatch_info={"teacher": list(range(8))}, compute_teacher_targets=lambda meta: None
        )


def fill(count: int, ids: torch.Tensor, question: str) -> KVBatchMeta:
    """A batch as it is before `_balance_batch` ends, and what old_log_prob, verl's advantages and the teacher add."""
    rng = torch.Generator().manual_seed(count)
    lengths = torch.randint(SHORTEST, LONGEST + 1, (count,), generator=rng).tolist()
    scores = (torch.rand(count, generator=rng) < 0.5).float().tolist()
    keys, tags = [f"{row // GROUP:08x}_{row % GROUP}_0" for row in range(count)], []
    for start in range(0, count, 64):  # agent loops write group by group; one write of everything takes memory
        fields = []
        for row in range(start, min(start + 64, count)):
            length = lengths[row]
            place = int(torch.randint(0, max(len(ids) - length, 1), (1,), generator=rng))
            values = torch.rand(length, generator=rng)
            fields.append(
                {
                    "responses": ids[place : place + length].clone(),
                    "response_mask": torch.ones(length, dtype=torch.int64),
                    "rm_scores": torch.zeros(length).index_fill_(0, torch.tensor([length - 1]), scores[row]),
                    "extra_fields": {"reward_extra_info": {"acc": scores[row]}},
                    "raw_prompt": [{"role": "user", "content": f"{row // GROUP}. {question}"}],
                    "old_log_probs": -values,
                    "entropy": values,
                    "rollout_is_weights": torch.ones(length),
                    TEACHER_ENTROPY: values,
                }
            )
            tags.append({"status": "success", "seq_len": length})
        end = start + len(fields)
        data = list_of_dict_to_tensordict(fields)
        tq.kv_batch_put(keys=keys[start:end], partition_id=PARTITION, fields=data, tags=tags[start:end])
    return KVBatchMeta(keys=keys, tags=tags, partition_id=PARTITION, fields=[], extra_info={})


def step(driver: Driver, batch: KVBatchMeta) -> dict[str, float]:
    """One step's calls in the order of the trainer."""
    routing, advantages, metrics = Traffic(), Traffic(), {}
    wall, started = time.perf_counter(), time.process_time()
    with routing.counted():
        driver._route(batch, metrics)
    between = time.process_time()
    with (
        advantages.counted(),
        mock.patch.object(PPOTrainer, "_compute_advantage", lambda _, batch, metrics: batch),
        mock.patch.object(PPOTrainer, "_compute_old_log_prob", lambda _, batch, metrics: batch),
    ):
        driver._compute_old_log_prob(batch, metrics)
        driver._compute_advantage(batch, metrics)
    total = time.process_time() - started
    return {
        "route: all": between - started,
        "advantages: all": total - (between - started),
        "queue: round trips": routing.calls + advantages.calls,
        "queue: bytes": routing.bytes + advantages.bytes,
        "queue: seconds": routing.seconds + advantages.seconds,
        "all": total,
        "all, on the wall": time.perf_counter() - wall,
    }


def payload(count: int) -> tuple[float, float]:
    """Bytes of the teacher's targets of `count` rollouts, and seconds to write and to read them."""
    rows = [torch.rand(4096, K) for _ in range(count)]
    fields = {TEACHER_LOG_PROBS: jagged(rows), TOPK_IDS: jagged([row.int() for row in rows])}
    keys = [f"payload_{row}_0_0" for row in range(count)]
    tags = [{"status": "success"}] * count
    started = time.perf_counter()
    tq.kv_batch_put(keys=keys, partition_id=PARTITION, fields=TensorDict(fields, batch_size=count), tags=tags)
    batch = KVBatchMeta(keys=keys, tags=tags, partition_id=PARTITION, fields=[], extra_info={})
    got = get_fields(batch, list(fields))
    seconds = time.perf_counter() - started
    tq.kv_clear(keys=keys, partition_id=PARTITION)
    return sum(_bytes(got[name]) for name in fields), seconds


def run(rollouts: tuple[int, ...] = (256, 1024), repeats: int = 3) -> list[Measure]:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # as verl sets it
    text = corpus()
    driver, results = Driver(text_tokenizer(text)), []
    ids = torch.tensor(driver.tokenizer(text)["input_ids"])
    config = OmegaConf.create({"backend": {"SimpleStorage": {"num_data_storage_units": 1}}})
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    try:
        tq.init(config)
        for count in rollouts:
            batch = fill(count, ids, text[:QUESTION])
            turns = [step(driver, batch) for _ in range(1 + repeats)][1:]
            for name in turns[0]:
                value = sorted(turn[name] for turn in turns)[repeats // 2]
                unit = "B" if name.endswith("bytes") else "calls" if name.endswith("trips") else "s"
                results.append(Measure(f"{count} rollouts: {name}", value, unit))
            tq.kv_clear(keys=batch.keys, partition_id=PARTITION)
        rates = sorted(size / seconds for size, seconds in (payload(PAYLOAD_ROLLOUTS) for _ in range(repeats)))
        results.append(Measure("teacher's targets, written and read", rates[repeats // 2] / 1e9, "GB/s"))
    finally:
        tq.close()
        ray.shutdown()
    smallest = min(rollouts)
    whole = next(m.value for m in results if m.name == f"{smallest} rollouts: all")
    results.append(
        Measure(
            f"256 rollouts: share of a step of {STEP_SECONDS:g} s", whole * 256 / smallest / STEP_SECONDS, "x", SHARE
        )
    )
    return results
