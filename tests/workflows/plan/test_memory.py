"""Parts and moments against numbers worked out by hand."""

from dataclasses import replace

import pytest
import torch

from workflows.compose_config import compose_config
from workflows.plan import memory
from workflows.plan.gpus import GIB, gpu_of
from workflows.plan.host import gpu_host, pinned_rounding
from workflows.plan.settings import lengths_of, settings_of
from workflows.plan.shapes import KNOWN, ModelShape

SMALL = ModelShape(hidden=4, layers=2, heads=2, kv_heads=1, head_dim=2, mlp=6, vocab=10, tied=True)


@pytest.fixture(scope="module")
def eight():
    """The paper's run: Qwen3-8B on eight GPUs."""
    return settings_of(compose_config("srpo", ["trainer.n_gpus_per_node=8"]))


def parts(moments, name):
    return next(moment.parts for moment in moments if moment.name == name)


def test_activations_by_hand():
    # 6*4 + 5*4 + 4*6 = 68 elements; float32: 272 bytes per token and layer.
    assert memory.activation_elements(SMALL) == 68
    assert memory.activations(SMALL, 10, 4, checkpointing=False) == 10 * 2 * 272
    # Checkpointing keeps the 2 layers' inputs (4 elements each) and one layer.
    assert memory.activations(SMALL, 10, 4, checkpointing=True) == 10 * (2 * 16 + 272)
    # bfloat16: 136 bytes, and 2 * 4 elements of residual stream kept in float32 (2 bytes more each).
    assert memory.activations(SMALL, 10, 2, checkpointing=False) == 10 * 2 * (136 + 16)
    # Query and key norms add 2 * (4 + 2) elements.
    assert memory.activation_elements(replace(SMALL, qk_norm=True)) == 80


def test_packed_rollouts_under_sdpa_need_a_mask_per_layer():
    # 10 x 10 bools, and 3 copies of them in float32.
    assert memory.attention_mask(10, 3, 4) == 100 + 3 * 400
    settings = settings_of(compose_config("srpo", ["platform=cpu"]), shape=SMALL)
    loss = parts(memory.training_moments(settings, flash_cross_entropy=False, routed=0.4), "loss")
    # No checkpointing on the CPU platform: both layers keep their copy.
    assert loss["attention mask"] == 20480**2 * 9


@pytest.mark.parametrize(
    ("flash_attn", "attention", "mask"),
    [
        (True, None, False),
        (False, None, True),
        (False, "flash_attention_3", False),
        (True, "sdpa", True),
    ],
)
def test_the_mask_goes_by_what_is_installed_unless_the_config_says(flash_attn, attention, mask):
    said = [f"+actor_rollout_ref.model.override_config.attn_implementation={attention}"] if attention else []
    settings = settings_of(compose_config("srpo", said), shape=SMALL, flash_attn=flash_attn)
    loss = parts(memory.training_moments(settings, flash_cross_entropy=flash_attn, routed=0.4), "loss")
    # With checkpointing the bools, and one layer's copy in bfloat16.
    assert loss.get("attention mask", 0) == (20480**2 * 3 if mask else 0)


def test_torch_copies_the_mask_in_the_type_of_the_queries():
    for dtype, element in ((torch.float32, 4), (torch.bfloat16, 2)):
        query, saved = torch.randn(1, 2, 48, 16, dtype=dtype, requires_grad=True), []
        mask = torch.ones(1, 1, 48, 48, dtype=torch.bool).tril()
        with torch.autograd.graph.saved_tensors_hooks(
            lambda kept, saved=saved: saved.append(kept) or kept, lambda t: t
        ):
            torch.nn.functional.scaled_dot_product_attention(query, query, query, attn_mask=mask)
        (copy,) = [kept for kept in saved if kept.shape[-2:] == mask.shape[-2:]]
        assert mask.numel() + copy.nbytes == memory.attention_mask(48, 1, element)


def test_micro_batches_are_split_evenly_or_filled():
    assert memory.micro_batch_tokens(3000, 1024, full=False) == 1000
    assert memory.micro_batch_tokens(3000, 1024, full=True) == 1024
    assert memory.micro_batch_tokens(500, 1024, full=True) == 500


@pytest.mark.parametrize(
    ("element", "flash", "logit_loss", "copies"),
    [(2, True, False, 1.0), (2, True, True, 1.4), (2, False, False, 4.0), (4, False, True, 3.4)],
)
def test_copies_of_the_logits(element, flash, logit_loss, copies):
    found = memory.update_logit_copies(element, flash_cross_entropy=flash, routed=0.4, logit_loss=logit_loss)
    assert found == pytest.approx(copies)
    divided = memory.update_logit_copies(
        element, flash_cross_entropy=flash, routed=0.4, logit_loss=logit_loss, divided=True
    )
    assert divided == pytest.approx(copies + (2 if logit_loss else 1))


@pytest.mark.parametrize("divided", [False, True])
def test_one_pass_needs_no_copy_of_the_logits(divided):
    found = memory.update_logit_copies(
        2, flash_cross_entropy=False, routed=0.4, logit_loss=True, divided=divided, one_pass=True
    )
    assert found == (3 if divided else 1)
    assert memory.forward_logit_copies(entropy_chunk=None, tokens=10, one_pass=True) == 1


def test_entropy_in_chunks_needs_less():
    assert memory.forward_logit_copies(entropy_chunk=None, tokens=100) == 3
    assert memory.forward_logit_copies(entropy_chunk=25, tokens=100) == 1.5
    assert memory.forward_logit_copies(entropy_chunk=500, tokens=100) == 3


def test_weights_gradients_and_adam_of_qwen3_8b_on_eight_gpus(eight):
    step = parts(memory.training_moments(eight, flash_cross_entropy=True, routed=0.4), "optimizer step")
    # 8,190,735,360 / 8 = 1,023,841,920 parameters per rank, 4 bytes each.
    assert step["weights"] == step["gradients"] == step["AdamW temporaries"] == 4 * 1_023_841_920
    assert step["AdamW states"] == 8 * 1_023_841_920
    assert step["allocator"] == pytest.approx(0.05 * 20 * 1_023_841_920)


def test_the_loss_of_a_full_micro_batch(eight):
    def loss(**changes):
        return parts(memory.training_moments(replace(eight, **changes), flash_cross_entropy=True, routed=0.4), "loss")

    logits = 20480 * 151936 * 2
    assert loss()["logits"] == logits
    assert loss(one_pass=False)["logits"] == pytest.approx(logits * 1.4)
    without = loss(fused_linear=True)
    assert "logits" not in without
    assert without["blocks of logits"] < logits / 100
    # Inputs of 36 layers of 4096 in bfloat16, and one layer: 6*4096 + 5*4096 + 2*(4096 + 1024) + 4*12288 elements.
    assert loss()["activations"] == 20480 * (36 * 4096 * 2 + 104_448 * 2 + 2 * 4096 * 2)
    assert loss()["top-K payload"] == 20480 * 804


@pytest.mark.parametrize(
    ("overrides", "own_model", "own_adapter"),
    [
        ([], 0, 1),
        (["srpo.teacher.lora_ema=exact"], 1, 0),
        (["srpo.teacher.kind=frozen"], 0, 0),
        (["srpo.teacher.kind=live"], 0, 0),
    ],
)
def test_only_the_adapter_has_gradients_and_optimiser(overrides, own_model, own_adapter):
    settings = settings_of(compose_config("srpo_lora", overrides))
    shape = settings.shape
    # A and B of rank 32: r (in + out) of q, k, v, o, gate, up and down in 36 layers.
    ends = 2 * (4096 + 4096) + 2 * (4096 + 1024) + 3 * (4096 + 12288)
    assert settings.adapter == 36 * 32 * ends
    moments = memory.training_moments(settings, flash_cross_entropy=True, routed=0.4)
    step = parts(moments, "optimizer step")
    assert step["gradients"] == 4 * settings.adapter
    assert step["AdamW states"] == 8 * settings.adapter
    assert step["weights"] == 4 * (shape.parameters + settings.adapter)
    assert step.get("teacher's adapter", 0) == 4 * own_adapter * settings.adapter
    assert memory.teacher_weights(settings) == 4 * own_model * shape.parameters
    saved = 4 * (shape.parameters + 3 * settings.adapter) + 4 * (
        own_adapter * settings.adapter + own_model * shape.parameters
    )
    assert memory.checkpoint_bytes(settings) == saved


ON_GPU, IN_ITS_PASS = ["srpo.teacher.offload_policy=false"], ["srpo.teacher.param_offload=true"]


@pytest.mark.parametrize(
    ("overrides", "in_update", "in_pass", "on_host"),
    [
        ([], 0, 0, 4),
        (ON_GPU, 4, 4, 0),
        ([*ON_GPU, *IN_ITS_PASS], 0, 4, 4),
        (["srpo.teacher.dtype=bfloat16"], 0, 0, 3),
        (["srpo.teacher.dtype=bfloat16", *ON_GPU], 2, 2, 1),
        (["srpo.teacher.dtype=bfloat16", "srpo.teacher.kind=frozen"], 0, 0, 2),
    ],
)
def test_where_the_teacher_is_and_how_wide(overrides, in_update, in_pass, on_host):
    """Bytes per parameter."""
    settings = settings_of(compose_config("srpo", ["trainer.n_gpus_per_node=8", *overrides]))
    moments = memory.training_moments(settings, flash_cross_entropy=True, routed=0.4)
    count = settings.shape.parameters / 8
    assert parts(moments, "backward").get("teacher", 0) == in_update * count
    assert parts(moments, "teacher").get("teacher", 0) == in_pass * count
    host = gpu_host(settings, lengths_of(settings)).parts
    pinned = host.get("teacher, pinned", 0) / pinned_rounding(settings)
    assert pinned + host.get("teacher's last bits", 0) == pytest.approx(8 * on_host * count)


def test_pinned_memory_comes_in_powers_of_two():
    """Qwen3-8B on 8 ranks: of a layer q, o and k, v fit, the MLP's 1,536 x 4,096 and the embeddings' 18,992 do not."""
    settings = settings_of(compose_config("srpo", ["trainer.n_gpus_per_node=8"]))
    fitting = 2 * 2**21 + 2 * 2**19
    exact = 36 * (fitting + 3 * 1536 * 4096) + 2 * 18992 * 4096
    assert pinned_rounding(settings) == pytest.approx((36 * (fitting + 3 * 2**23) + 2 * 2**27) / exact)
    assert pinned_rounding(settings) == pytest.approx(1.33, abs=0.005)


def test_grpo_has_no_teacher_and_no_logit_loss():
    settings = settings_of(compose_config("grpo", ["trainer.n_gpus_per_node=8"]))
    moments = memory.training_moments(settings, flash_cross_entropy=True, routed=0.0)
    assert [moment.name for moment in moments] == ["old log-probs", "loss", "backward", "optimizer step"]
    assert parts(moments, "loss")["logits"] == 20480 * 151936 * 2
    assert settings.mini_batches == 4


def test_offloading_leaves_adam_out_of_all_but_its_step(eight):
    offloaded = replace(eight, optimizer_offload=True, param_offload=True)
    moments = memory.training_moments(offloaded, flash_cross_entropy=True, routed=0.4)
    assert [moment.name for moment in moments if "AdamW states" in moment.parts] == ["optimizer step"]
    assert "weights" not in parts(memory.generation_moments(offloaded, gpu_of("H20")), "generation")


def test_the_cache_is_what_vllm_s_share_leaves(eight):
    gpu = gpu_of("H20")
    engine = memory.rollout_engine(eight, gpu)
    assert engine.weights == 2 * 8_190_735_360
    assert engine.weights + engine.working + engine.cache == pytest.approx(0.5 * 95.6 * GIB)
    # Keys and values: 2 * 36 layers * 1024 wide * 2 bytes.
    assert engine.cache_tokens == pytest.approx(engine.cache / 147_456)
    halved = memory.rollout_engine(replace(eight, tensor_parallel=2), gpu)
    assert halved.weights == engine.weights / 2
    assert halved.cache_tokens == pytest.approx(2 * halved.cache / 147_456)


def test_checkpoints(eight):
    count = KNOWN["Qwen3-8B"].parameters
    # Weights, two AdamW states and the teacher, all float32.
    assert memory.checkpoint_bytes(eight) == 16 * count
    assert memory.checkpoint_bytes(replace(eight, save_optimizer=False, moving_teacher=False)) == 4 * count


def test_more_tokens_or_fewer_shards_never_need_less(eight):
    def peak(settings):
        moments = memory.training_moments(settings, flash_cross_entropy=True, routed=0.4)
        return max(moment.total for moment in moments)

    assert peak(replace(eight, actor_tokens=40960)) > peak(eight) > peak(replace(eight, actor_tokens=10240))
    assert peak(replace(eight, shards=4)) > peak(eight)
    assert peak(replace(eight, checkpointing=False)) > peak(eight)
