"""The sampler against the model's own forward pass."""

import pytest
import torch

from laboratory.sampler import sample
from laboratory.twin import packed_logits
from tests.training import tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from transformers import AutoModelForCausalLM

    folder = tiny_model.build(tmp_path_factory.mktemp("model"))
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


PROMPTS = [[5, 9, 30, 41], [7, 100, 3, 8]]


def test_log_probs_are_those_of_a_forward_pass(model):
    """Rows end at different places here, so the cache is cut while sampling."""
    model.generation_config.eos_token_id = 17
    try:
        bias = torch.zeros(model.config.vocab_size)
        bias[17] = 3.0
        model.lm_head.bias = torch.nn.Parameter(bias)
        found = sample(
            model, PROMPTS, n=20, temperature=0.7, max_new_tokens=12, generator=torch.Generator().manual_seed(0)
        )
        assert len({len(row) for row in found.responses}) > 3
        sequences = [torch.cat([torch.tensor(PROMPTS[i // 20]), row]) for i, row in enumerate(found.responses)]
        with torch.no_grad():
            packed = packed_logits(model, sequences).split([len(row) for row in sequences])
    finally:
        model.lm_head.bias = None
        model.generation_config.eos_token_id = 2
    for logits, response, scores in zip(packed, found.responses, found.log_probs, strict=True):
        assert 17 not in response[:-1]
        assert len(response) == 12 or response[-1] == 17
        expected = (logits[3:-1] / 0.7).log_softmax(-1).gather(-1, response[:, None]).squeeze(-1)
        torch.testing.assert_close(scores, expected, atol=1e-4, rtol=1e-4)


def test_samples_follow_the_distribution(model):
    generator = torch.Generator().manual_seed(1)
    found = sample(model, PROMPTS[:1], n=4000, temperature=1.0, max_new_tokens=1, generator=generator)
    with torch.no_grad():
        expected = model(torch.tensor(PROMPTS[:1])).logits[0, -1].softmax(-1)
    counts = torch.bincount(torch.cat(found.responses), minlength=len(expected)) / 4000
    assert float((counts - expected).abs().sum()) < 0.15


def test_prompts_of_two_lengths_are_refused(model):
    with pytest.raises(ValueError, match="one length"):
        sample(model, [[1], [1, 2]], n=1, temperature=1.0, max_new_tokens=1, generator=torch.Generator())
