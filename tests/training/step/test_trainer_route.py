"""The trainer's routing of a batch that lies in a queue in memory: what it reads, keeps and hands on. No Ray."""

import gzip
import json
from types import SimpleNamespace

import pytest
import torch
from tensordict import TensorDict
from transformers import AutoTokenizer
from verl.utils import tensordict_utils as tu

from srpo_verl.config import settings
from srpo_verl.training.fields import LOSS_DIVERGENCE, jagged
from srpo_verl.training.step import look_at_step, loss_divergence
from srpo_verl.training.step import trainer as module
from srpo_verl.training.step.first_verdicts import FirstVerdicts, NoVerdictError
from srpo_verl.training.step.routed_tokens import RoutedTokens
from srpo_verl.training.step.step_signals import StepView, step_signals
from srpo_verl.training.step.teacher_prompts import TeacherPromptBuilder
from srpo_verl.training.step.trainer import SRPOMixin, SRPOTrainer
from tests.compose import compose
from tests.training import tiny_model


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return AutoTokenizer.from_pretrained(tiny_model.build(tmp_path_factory.mktemp("model")))


class Meta:
    def __init__(self, keys):
        self.keys, self.tags, self.extra_info = list(keys), [{}] * len(keys), {}

    def __len__(self):
        return len(self.keys)

    def select_keys(self, keys):
        return Meta(keys)


class Queue:
    """Rows by key; texts and dicts as TransferQueue gives them."""

    def __init__(self, rows):
        self.rows = rows

    def get(self, meta, names):
        data = TensorDict({}, batch_size=len(meta))
        for name in names:
            values = [self.rows[key][name] for key in meta.keys if name in self.rows[key]]
            if len(values) < len(meta):
                continue
            if isinstance(values[0], torch.Tensor):
                data[name] = jagged(values)
            else:
                tu.assign_non_tensor_stack(data, name, values)
        return data

    def put(self, meta, fields):
        for name, tensor in fields.items():
            for key, row in zip(meta.keys, tensor.unbind(), strict=True):
                self.rows[key][name] = row
        return meta


def trainer_of(config, tokenizer):
    trainer = object.__new__(SRPOTrainer)
    trainer.srpo = settings(config.srpo)
    trainer.config, trainer.tokenizer, trainer.states = config, tokenizer, {}
    trainer.columns, trainer.actor_rollout_wg = trainer.srpo.column_names(), None
    trainer.first_verdicts, trainer.train_dataset = FirstVerdicts(trainer.srpo), SimpleNamespace()
    trainer.prompt_builder = TeacherPromptBuilder(
        tokenizer=tokenizer, srpo=trainer.srpo, max_length=400, chat_template_kwargs={}
    )
    return trainer


def rows_of(tokenizer, step, scores):
    """One question in every step; the answer says step and number."""
    found = {}
    for n, score in enumerate(scores):
        ids = torch.tensor(tokenizer.encode(f"step {step} answer {n}"))
        found[f"{step:07d}-00000_{n}_0"] = {
            "rm_scores": torch.tensor([0.0] * (len(ids) - 1) + [score]),
            "responses": ids,
            "response_mask": torch.ones_like(ids),
            "extra_fields": {"reward_extra_info": {}},
            "raw_prompt": [{"role": "user", "content": "2 + 2?"}],
            "srpo_turns": "[]",
            "extra_info": {"solution": "it is four"},
        }
    return found


def route(trainer, monkeypatch, tokenizer, step, scores=(), rows=None):
    queue = Queue(rows or rows_of(tokenizer, step, scores))
    for name, stand_in in (("get_fields", queue.get), ("entries", lambda: 0), ("take_failures", list)):
        monkeypatch.setattr(module, name, stand_in)
    monkeypatch.setattr(look_at_step, "get_fields", queue.get)
    trainer.global_steps, metrics = step, {}
    trainer._route(Meta(queue.rows), metrics)
    return trainer.this_step, metrics


def test_a_right_answer_of_an_earlier_step_is_shown_where_no_sibling_is_right(monkeypatch, tokenizer):
    trainer = trainer_of(compose("drift", ["actor_rollout_ref.rollout.n=3"]), tokenizer)
    first, metrics = route(trainer, monkeypatch, tokenizer, 1, [1.0, 0.0, 1.0])
    assert first.plan.asked.tolist() == [True, True, True]
    assert first.plan.routed.tolist() == [False, True, False]
    assert metrics["srpo/routed_share"] == pytest.approx(1 / 3)
    (answers,) = trainer.states["past_answers"].values()
    assert answers == ["step 1 answer 2", "step 1 answer 0"]
    second, _ = route(trainer, monkeypatch, tokenizer, 2, [0.0, 0.0, 0.0])
    assert second.plan.routing.provider.tolist() == [1, 1, 1]
    for row in range(3):
        assert "Correct solution:\n\nstep 1 answer 2\n" in tokenizer.decode(second.prompts[row].input_ids)
    (counts,) = trainer.states["pass_rates"].values()
    assert counts == pytest.approx([0.85 * 2, 0.85 * 1 + 3, 2])


def test_what_a_tool_said_is_not_remembered_as_the_models_answer(monkeypatch, tokenizer):
    trainer = trainer_of(compose("drift", ["actor_rollout_ref.rollout.n=2"]), tokenizer)
    rows = rows_of(tokenizer, 1, [1.0, 0.0])
    (first, *_) = rows.values()
    said = torch.tensor(tokenizer.encode("the tool says 9</think>"))
    first["responses"] = torch.cat([said, first["responses"]])
    first["response_mask"] = torch.cat([torch.zeros_like(said), first["response_mask"]])
    first["rm_scores"] = torch.cat([torch.zeros(len(said)), first["rm_scores"]])
    route(trainer, monkeypatch, tokenizer, 1, rows=rows)
    (answers,) = trainer.states["past_answers"].values()
    assert answers == ["step 1 answer 0"]


def test_a_reference_is_read_from_the_data_and_passes_are_made(monkeypatch, tokenizer):
    overrides = ["actor_rollout_ref.rollout.n=3", "srpo.providers=[reference]", "srpo.options.wrong_siblings.passes=2"]
    trainer = trainer_of(compose("rlcsd", overrides), tokenizer)
    assert trainer.columns == ["extra_info"]
    step, metrics = route(trainer, monkeypatch, tokenizer, 1, [1.0, 0.0, 0.0])
    assert metrics["srpo/routed_share"] == 0
    assert sorted(step.prompts) == [0, 1, 2]
    assert "Reference solution:\n\nit is four\n" in tokenizer.decode(step.prompts[0].input_ids)
    assert [sorted(made) for made in step.passes] == [[0, 1, 2], [0]]
    assert "Correct solution:\n\nstep 1 answer 2\n" in tokenizer.decode(step.passes[0][1].input_ids)
    assert trainer.states == {}


def test_a_step_is_dumped_with_what_the_queue_has_of_its_rollouts(monkeypatch, tokenizer, tmp_path):
    trainer = trainer_of(compose("grpo", ["actor_rollout_ref.rollout.n=2"]), tokenizer)
    rows = rows_of(tokenizer, 1, [1.0, 0.0])
    for n, row in enumerate(rows.values()):
        row["prompts"] = torch.tensor(tokenizer.encode("2 + 2?"))
        row["entropy"] = torch.full(row["responses"].shape, 0.5 + n)
        row["old_log_probs"] = torch.full(row["responses"].shape, -1.0)
    step, _ = route(trainer, monkeypatch, tokenizer, 1, rows=rows)
    masks = [torch.ones(len(ids)) for ids in step.responses]
    signals = step_signals(
        step.plan, trainer.srpo, rewards=step.scores, masks=masks, normalize_by_std=False, tokens=None
    )
    view = StepView(step.plan, step.responses, masks, None, signals, tokenizer.decode)
    trainer._dump(str(tmp_path), Meta(rows), view, step.scores)
    data = json.loads(gzip.decompress((tmp_path / "1.json.gz").read_bytes()))
    assert data["groups"] == [{"uid": "0000001-00000", "question": "2 + 2?", "rows": [0, 1]}]
    assert ["".join(detail["pieces"]) for detail in data["details"]] == ["step 1 answer 0", "step 1 answer 1"]
    assert [set(detail["signals"]["student_entropy"]) for detail in data["details"]] == [{0.5}, {1.5}]
    assert [line["advantage"] for line in data["rollouts"]] == [0.5, -0.5]


class Actor:
    """Two ranks that note which rows they are asked about, and say of a token 0.25 more than of the one before."""

    def __init__(self, queue, asked):
        self.queue, self.asked, self.calls = queue, asked, []
        self._dispatch_info = {"actor": [0, 1]}

    def compute_loss_divergence(self, meta):
        self.calls.append((meta.keys, meta.extra_info))
        lengths = [len(self.queue.rows[key]["responses"]) * self.asked[key] for key in meta.keys]
        self.queue.put(meta, {LOSS_DIVERGENCE: jagged([0.25 * torch.arange(length) for length in lengths])})


@pytest.fixture
def advantages(monkeypatch, tokenizer, tmp_path):
    """A step of one group of four, the first of which is right, up to its advantages: `(actor, files, trainer)`."""

    def step(number, *overrides):
        dumped = [f"srpo.inspect_dir={tmp_path}", "srpo.inspect_freq=2", "srpo.teacher_gain_freq=0"]
        dumped.append("actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=8")
        trainer = trainer_of(compose("srpo", ["actor_rollout_ref.rollout.n=4", *dumped, *overrides]), tokenizer)
        trainer.timing_raw, trainer.local_trigger_step = {}, 0
        rows = rows_of(tokenizer, number, [1.0, 0.0, 0.0, 0.0])
        for row in rows.values():
            row["prompts"] = torch.tensor(tokenizer.encode("2 + 2?"))
            row["entropy"] = row["old_log_probs"] = torch.full(row["responses"].shape, -1.0)
        found, _ = route(trainer, monkeypatch, tokenizer, number, rows=rows)
        queue, asked = Queue(rows), found.plan.asked.tolist()
        trainer.actor_rollout_wg = Actor(queue, dict(zip(rows, asked, strict=True)))
        monkeypatch.setattr(module, "put_fields", queue.put)
        monkeypatch.setattr(loss_divergence, "get_fields", queue.get)
        monkeypatch.setattr(module.PPOTrainerSync, "_compute_advantage", lambda self, batch, metrics: batch)
        known = [torch.full(ids.shape, -0.5) for ids in found.responses[1:]]
        answer = RoutedTokens([1, 2, 3], known, known, known, known)
        monkeypatch.setattr(trainer, "_teacher", lambda: SimpleNamespace(ask=lambda *_, **__: answer), raising=False)
        # Not through the trainer, whose stages are watched.
        SRPOMixin._compute_advantage(trainer, Meta(rows), {})
        return trainer.actor_rollout_wg, sorted(tmp_path.iterdir()), trainer

    return step


def test_only_a_step_that_is_dumped_asks_for_the_divergence_of_the_loss(advantages):
    actor, files, trainer = advantages(1)
    assert (actor.calls, files) == ([], [])
    assert "srpo_inspect" not in trainer.timing_raw
    assert all(LOSS_DIVERGENCE not in row for row in actor.queue.rows.values())
    actor, (file,), trainer = advantages(2)
    ((keys, options),) = actor.calls
    # Three rows on two ranks: the right one, which the teacher was not asked about, evens them out.
    assert sorted(keys) == sorted(actor.queue.rows)
    longest = max(len(row["prompts"]) + len(row["responses"]) for row in actor.queue.rows.values())
    assert (options["max_token_len_per_gpu"], options["use_dynamic_bsz"]) == (max(longest, 8), True)
    data = json.loads(gzip.decompress(file.read_bytes()))
    assert data["divergence"] == "loss"
    assert "divergence" not in data["details"][0]["signals"]
    for detail in data["details"][1:]:
        assert detail["signals"]["divergence"] == [0.25 * place for place in range(len(detail["ids"]))]
    assert "srpo_inspect" in trainer.timing_raw


def test_a_loss_without_a_divergence_is_not_asked_for_one(advantages):
    actor, (file,), _ = advantages(2, "srpo.advantage_mix=0.5", "srpo.policy_gradient=all")
    assert actor.calls == []
    data = json.loads(gzip.decompress(file.read_bytes()))
    assert data["divergence"] == "two_buckets"
    assert all("divergence" not in detail["signals"] for detail in data["details"])
    assert all(value is not None for value in data["details"][1]["signals"]["two_bucket_divergence"])


def test_a_validation_without_a_verdict_ends_the_run():
    trainer = object.__new__(SRPOTrainer)
    trainer.first_verdicts = FirstVerdicts(settings({}))
    infos = {"reward": [0.0, 0.0], "infra_error": [1.0, 1.0], "error": ["no sandbox"] * 2}
    with pytest.raises(NoVerdictError, match=r"data source sums .*: no sandbox"):
        trainer._val_metrics_update(["sums", "sums"], ["a", "b"], infos, [1, 1])
