"""Which shares of a row over ranks are refused before Ray starts."""

import pytest

from srpo_verl.launch import hardware, sequence_parallel
from tests.compose import compose

ACTOR = "actor_rollout_ref.actor"
TWO = f"{ACTOR}.ulysses_sequence_parallel_size=2"
EIGHT_GPUS = ["trainer.n_gpus_per_node=8", "trainer.nnodes=1"]
MODEL = {"num_attention_heads": 32, "num_key_value_heads": 8}


@pytest.fixture
def installed(monkeypatch):
    """Distributions that are there; a set to change."""
    there = {"flash-attn"}
    monkeypatch.setattr(hardware, "installed", lambda name: name in there)
    return there


def problems(*overrides, model=MODEL):
    return list(sequence_parallel.problems(compose("srpo", [*EIGHT_GPUS, *overrides]), model))


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        [TWO],
        [f"{ACTOR}.fsdp_config.ulysses_sequence_parallel_size=4"],
        [f"{ACTOR}.ulysses_sequence_parallel_size=8", "+actor_rollout_ref.model.override_config.attn_implementation="
         "flash_attention_3"],
        [TWO, f"{ACTOR}.use_kl_loss=true", "actor_rollout_ref.ref.ulysses_sequence_parallel_size=1"],
        ["actor_rollout_ref.ref.ulysses_sequence_parallel_size=3"],  # no reference in this run
    ],
)  # fmt: skip
def test_what_fits_passes(installed, overrides):
    assert problems(*overrides) == []


@pytest.mark.parametrize(
    "model", [{}, {"num_attention_heads": 32}, {"num_attention_heads": 32, "num_key_value_heads": 1}]
)
def test_few_or_unknown_heads_of_keys_are_welcome(installed, model):
    assert problems(TWO, model=model) == []


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ([TWO, f"+{hardware.ATTENTION}=sdpa"], "attn_implementation=sdpa each rank would attend"),
        ([TWO, f"+{hardware.ATTENTION}=eager"], hardware.INSTALL_FLASH),
        ([TWO, "platform=cpu"], "needs GPUs"),
        ([TWO, "actor_rollout_ref.model.use_remove_padding=false"], "use_remove_padding=true"),
        ([f"{ACTOR}.ulysses_sequence_parallel_size=16"], "does not divide the 8 GPUs"),
        ([f"{ACTOR}.fsdp_config.ulysses_sequence_parallel_size=16"], "fsdp_config.ulysses_sequence_parallel_size=16 "),
        (
            [TWO, f"{ACTOR}.use_kl_loss=true", "actor_rollout_ref.ref.ulysses_sequence_parallel_size=3"],
            "ref.ulysses_sequence_parallel_size=3 does not divide the 8 GPUs",
        ),
    ],
)
def test_what_does_not_is_refused_in_a_sentence(installed, overrides, says):
    assert any(says in problem for problem in problems(*overrides)), problems(*overrides)


@pytest.mark.parametrize(("heads", "key_heads"), [(14, 2), (8, 6)])
def test_heads_that_cannot_be_shared_out(installed, heads, key_heads):
    model = {"num_attention_heads": heads, "num_key_value_heads": key_heads}
    (said,) = problems(f"{ACTOR}.ulysses_sequence_parallel_size=4", model=model)
    assert f"the model has {heads} for queries and {key_heads} for keys" in said


def test_sdpa_that_is_only_chosen_for_want_of_flash_attention_is_refused(installed):
    installed.clear()
    assert any("=sdpa each rank would attend" in problem for problem in problems(TWO))
