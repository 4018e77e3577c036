"""The divergence of the loss that a dumped step asks for, against plain formulas on full logits in float64."""

import pytest
import torch
from verl.utils import tensordict_utils as tu

from srpo_verl.config import SRPOConfig
from srpo_verl.training.fields import (
    LOSS_DIVERGENCE,
    TEACHER_LOG_PROBS,
    TOKEN_WEIGHTS,
    TOPK_IDS,
    from_lengths,
    jagged,
    lengths_of,
)
from srpo_verl.training.step.step_dump import two_bucket_divergence
from srpo_verl.training.worker.collectors import LossDivergence
from srpo_verl.training.worker.objective import SRPOObjective
from tests.training import lora, naive_step, scenarios, tiny_model
from tests.training.rows import make_batch
from tests.training.worker_process import run_ranks

MODULE = "srpo.variant_modules=[tests.training.variants_for_tests]"
K = 8
BATCH = {"longer": 3}


def buckets(log_probs, ids, tail):
    """Probabilities of the ids and of all else, or of the ids alone, over their sum."""
    listed = log_probs.double().exp().gather(-1, ids)
    if tail:
        return torch.cat([listed, 1 - listed.sum(-1, keepdim=True)], dim=-1)
    return listed / listed.sum(-1, keepdim=True)


def naive(p, q, alpha):
    """By its definition, of probabilities (j, B)."""

    def kl(one, other):
        return (one * (one / other).log()).sum(-1)

    if alpha in (0, 1):
        return kl(q, p) if alpha == 0 else kl(p, q)
    middle = (1 - alpha) * p + alpha * q
    return (1 - alpha) * kl(p, middle) + alpha * kl(q, middle)


def total_variation(p, q, _):
    return 0.5 * (p - q).abs().sum(-1)


@pytest.mark.parametrize("one_pass", [True, False])
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, naive),
        ({"alpha": 0.0}, naive),
        ({"alpha": 0.3}, naive),
        ({"alpha": 1.0}, naive),
        ({"add_tail": False}, naive),
        ({"divergence": "total variation"}, total_variation),
    ],
    ids=["as shipped", "alpha 0", "alpha 0.3", "alpha 1", "no tail", "a variant's"],
)
def test_of_float64_logits_it_is_the_formula(settings, expected, one_pass):
    """Two rows of 4 and 3 response tokens, of which the teacher was asked about the first; its second is a tool's."""
    modules = ["tests.training.variants_for_tests"]
    srpo = SRPOConfig(topk=3, variant_modules=modules, one_pass=one_pass, **settings)
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 11, 9, generator=generator, dtype=torch.float64)
    ids = student[1:5].topk(3).indices
    mask = torch.tensor([1.0, 0.0, 1.0, 1.0])
    fields = {
        "input_ids": jagged([torch.arange(6), torch.arange(5)]),
        TOPK_IDS: jagged([ids.to(torch.int32), ids[:0].to(torch.int32)]),
        TEACHER_LOG_PROBS: jagged([teacher.log_softmax(-1)[1:5].gather(-1, ids), torch.zeros(0, 3).double()]),
        TOKEN_WEIGHTS: jagged([mask, mask[:0]]),
    }
    data = tu.get_tensordict(fields, {"distillation_only": one_pass})
    hook = LossDivergence(SRPOObjective(None, srpo))
    with torch.no_grad():
        outputs = hook(student_logits=student.unsqueeze(0), data=data)
    packed = {name: from_lengths(v.squeeze(0), lengths_of(data["input_ids"])) for name, v in outputs.items()}
    hook(model_output=packed, data=data)
    found = packed[LOSS_DIVERGENCE]
    p, q = (buckets(side.log_softmax(-1)[1:5], ids, srpo.add_tail) for side in (student, teacher))
    torch.testing.assert_close(found.values(), expected(p, q, srpo.alpha) * mask, rtol=0, atol=1e-12)
    assert lengths_of(found).tolist() == [4, 0]
    assert float(found.values().max()) > 1e-3


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model.build(tmp_path_factory.mktemp("model"))


SETTINGS = {
    "ema": [],
    "verl's log-probs": ["srpo.one_pass=false"],
    "no logits": ["srpo.fused_linear=true"],
    "frozen, the teacher's support": ["srpo.teacher.kind=frozen", "srpo.support=teacher"],
    "no logits, the teacher's support": ["srpo.fused_linear=true", "srpo.support=teacher"],
    "live, alpha 1": ["srpo.teacher.kind=live", "srpo.alpha=1"],
    "no tail": ["srpo.add_tail=false"],
    "one's own": [MODULE, "srpo.divergence='total variation'"],
    "LoRA": lora.LORA,
    "LoRA, frozen, no logits": [*lora.LORA, "srpo.teacher.kind=frozen", "srpo.fused_linear=true"],
}


@pytest.mark.needs_cpu_set
@pytest.mark.parametrize(
    ("setting", "world"), [*((name, 1) for name in SETTINGS), ("ema", 2), ("no logits", 2)], ids=str
)
def test_in_the_real_worker_it_is_that_of_its_own_weights(model, setting, world):
    found = run_ranks(scenarios.loss_divergences, world, model, {"batch": BATCH}, SETTINGS[setting])
    student = lora.merged(model, found["actor"]) if "LoRA" in setting else found["actor"]
    teacher = student if found["teacher"] is None else found["teacher"]
    if "LoRA" in setting:
        teacher = lora.merged(model, found["teacher"])
    srpo = SRPOConfig(topk=K)
    batch, fields = make_batch(vocabulary=scenarios.VOCABULARY, srpo=srpo, **BATCH), found["fields"]
    alpha, tail = (1.0 if "alpha 1" in setting else 0.5), "no tail" not in setting
    formula = total_variation if setting == "one's own" else naive
    models = [naive_step.load(model, weights) for weights in (student, teacher)]
    routed, compared = batch.plan.routed_rows(), 0
    for row, values in enumerate(found["divergence"]):
        if row not in routed:
            assert values.shape == (0,)
            continue
        response, mask = batch.responses[row], batch.masks[row]
        prompts = (batch.prompts[row], batch.teacher_prompts[row])
        with torch.no_grad():
            p, q = (
                naive_step.response_logits(one, prompt, response).log_softmax(-1)
                for one, prompt in zip(models, prompts, strict=True)
            )
        ids = fields["topk_ids"][row].long()
        own = q if "support" in setting else p
        assert bool((own.gather(-1, ids).amin(-1) > own.topk(K).values[:, -1] - 1e-4).all())
        expected = formula(buckets(p, ids, tail), buckets(q, ids, tail), alpha) * mask
        torch.testing.assert_close(values.double(), expected, rtol=1e-3, atol=2e-6)
        compared += int(mask.sum())
        if formula is naive and tail:
            inside = (ids == response.unsqueeze(-1)).any(-1) & (mask > 0)
            bound = two_bucket_divergence(fields["old_log_probs"][row], fields["sampled"][row], alpha=alpha)
            assert bool((bound <= values + 1e-5)[inside].all())
    assert compared == sum(int(batch.masks[row].sum()) for row in routed) > 20
