"""The teacher's traffic: which rows go to which rank, and whose log-probs come back, with a queue in memory."""

import pytest
import torch
from tensordict import TensorDict

from srpo_verl.config import settings
from srpo_verl.core import TeacherPrompt
from srpo_verl.training.fields import SHOWN, SHOWN_LOG_PROBS, TEACHER_PROMPTS, jagged
from srpo_verl.training.step import teacher_client
from srpo_verl.training.step.teacher_client import TeacherClient
from srpo_verl.training.step.teacher_gain import shown_siblings, teacher_gain
from tests.training.rows import make_batch

EOS = 1


class Meta:
    """The part of KVBatchMeta that is used."""

    def __init__(self, keys):
        self.keys = list(keys)

    def __len__(self):
        return len(self.keys)

    def select_keys(self, keys):
        return Meta(keys)


class Queue:
    def __init__(self):
        self.rows: dict[str, dict[str, torch.Tensor]] = {}

    def put(self, meta, fields):
        for name, tensor in fields.items():
            for key, row in zip(meta.keys, tensor.unbind(), strict=True):
                self.rows.setdefault(key, {})[name] = row

    def get(self, meta, names):
        have = [name for name in names if all(name in self.rows[key] for key in meta.keys)]
        return TensorDict({name: jagged([self.rows[key][name] for key in meta.keys]) for name in have}, len(meta.keys))


def log_probs(prompt: torch.Tensor, response: torch.Tensor) -> torch.Tensor:
    """Stands for the teacher: any function that tells prompts and tokens apart."""
    return -(prompt.sum() + 3 * response).float() / 1000


class Workers:
    """Answers like the ranks together, and remembers what each was asked."""

    def __init__(self, queue, ranks, workers_per_part=1):
        self.queue, self.asked, self.budgets = queue, [], []
        self._dispatch_info = {"teacher": [rank for rank in range(ranks) for _ in range(workers_per_part)]}

    def compute_shown_log_probs(self, meta):
        self.budgets.append(meta.extra_info["max_token_len_per_gpu"])
        data = self.queue.get(meta, meta.fields)
        found = []
        for key, shown, prompt, response in zip(meta.keys, *(data[n].unbind() for n in meta.fields), strict=True):
            self.asked.append((key, bool(shown)))
            if not shown:
                assert prompt.tolist() == [EOS]
            found.append(log_probs(prompt, response if shown else response[:0]))
        self.queue.put(meta, {SHOWN_LOG_PROBS: jagged(found)})


@pytest.mark.parametrize("ranks", [1, 4])
@pytest.mark.parametrize("route", ["incorrect", "all"])
def test_gain_of_the_siblings_that_are_shown_whole(monkeypatch, ranks, route):
    srpo = settings({"route": route, "policy_gradient": "none" if route == "all" else "unrouted"})
    batch, queue = make_batch(vocabulary=50, srpo=srpo), Queue()
    monkeypatch.setattr(teacher_client, "put_fields", queue.put)
    monkeypatch.setattr(teacher_client, "get_fields", queue.get)
    meta = Meta(f"row{row}" for row in range(len(batch)))
    old = [-0.01 * response.float() for response in batch.responses]
    queue.put(meta, {"responses": jagged(batch.responses), "old_log_probs": jagged(old)})

    sibling_of = {row: int(batch.plan.routing.demonstration[row]) for row in batch.plan.routed_rows()}
    siblings = sorted(set(sibling_of.values()))
    cut = siblings[0]
    shared = {s: TeacherPrompt([7, 9, s + 2], truncated=s == cut) for s in siblings}
    prompts = {row: shared[sibling] for row, sibling in sibling_of.items()}
    workers = Workers(queue, ranks)
    client = TeacherClient(srpo, workers, temperature=1.0, max_token_len_per_gpu=64, filler_id=EOS)
    shown = shown_siblings(batch.plan, prompts)
    answers = client.log_probs_of_shown(meta, shown, batch.responses)
    gain = teacher_gain(*answers, [batch.masks[row] for row in shown])

    differences = [
        (log_probs(torch.tensor([7, 9, s + 2]), batch.responses[s]) - old[s])[batch.masks[s].bool()]
        for s in siblings
        if s != cut
    ]
    assert gain == pytest.approx(torch.cat(differences).mean().item(), abs=1e-6)
    asked = workers.asked
    assert sorted(key for key, shown in asked if shown) == sorted(f"row{s}" for s in siblings if s != cut)
    assert len(asked) % ranks == 0
    assert TEACHER_PROMPTS in queue.rows[f"row{siblings[1]}"]
    assert SHOWN not in queue.rows[f"row{cut}"] or (f"row{cut}", False) in asked


@pytest.mark.parametrize(("own", "workers_per_part", "budget"), [(64, 1, 101), (64, 2, 64), (8, 2, 51), (8, 4, 26)])
def test_a_row_longer_than_the_budget_is_shared_by_the_workers_that_get_it(monkeypatch, own, workers_per_part, budget):
    """A sequence of 101 tokens; verl multiplies the budget by the workers that share a micro-batch."""
    queue, meta = Queue(), Meta(["long", "short", "another", "last"])
    monkeypatch.setattr(teacher_client, "put_fields", queue.put)
    monkeypatch.setattr(teacher_client, "get_fields", queue.get)
    responses = [torch.full((n,), 5) for n in (60, 3, 4, 2)]
    queue.put(meta, {"responses": jagged(responses), "old_log_probs": jagged([-r.float() for r in responses])})
    workers = Workers(queue, ranks=2, workers_per_part=workers_per_part)
    client = TeacherClient(settings({}), workers, temperature=1.0, max_token_len_per_gpu=own, filler_id=EOS)
    prompts = {0: TeacherPrompt([7] * 41, truncated=False), 1: TeacherPrompt([7] * 9, truncated=False)}
    client.log_probs_of_shown(meta, prompts, responses)
    assert workers.budgets == [budget]
    assert len(workers.asked) == 2


def test_a_contrast_is_a_pass_for_each_sibling_and_a_mean_of_probabilities(monkeypatch):
    queue, meta = Queue(), Meta(["one", "two", "three", "four"])
    monkeypatch.setattr(teacher_client, "put_fields", queue.put)
    monkeypatch.setattr(teacher_client, "get_fields", queue.get)
    responses = [torch.arange(n) for n in (3, 2, 4, 1)]
    queue.put(meta, {"responses": jagged(responses), "old_log_probs": jagged([-r.float() for r in responses])})
    workers = Workers(queue, ranks=2)
    client = TeacherClient(settings({}), workers, temperature=1.0, max_token_len_per_gpu=64, filler_id=EOS)
    passes = [{0: TeacherPrompt([70]), 1: TeacherPrompt([71])}, {0: TeacherPrompt([900])}, {}]
    found = client.contrast(meta, passes, [0, 1, 2], responses)
    both = torch.stack([log_probs(torch.tensor([n]), responses[0]) for n in (70, 900)])
    torch.testing.assert_close(found[0], both.exp().mean(0).log())
    torch.testing.assert_close(found[1], log_probs(torch.tensor([71]), responses[1]))
    assert found[2].isnan().tolist() == [True] * 4
    assert [sum(shown for key, shown in workers.asked if key == name) for name in meta.keys] == [2, 1, 0, 0]
