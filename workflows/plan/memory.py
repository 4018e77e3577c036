"""Bytes of the parts of a training process: pure functions of dimensions and settings, and the sums at its peaks.

Sources: verl 0.9.1's FSDP engine (float32 shards, bfloat16 compute), this project's logit loss and teacher, and the
tensors that autograd keeps of a decoder layer as transformers writes it. docs/planning.md has each formula in words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from workflows.plan.gpus import GIB, GPU
from workflows.plan.settings import Lengths, Settings, worst_case
from workflows.plan.shapes import ModelShape

ADAM_STATES = 2
FLOAT = 4
# Assumed, not computed: two CUDA contexts (trainer and vLLM), NCCL's buffers, cuBLAS workspaces.
CUDA_OVERHEAD = 2.5 * GIB
# Assumed: what the caching allocator reserves beyond what is allocated, as a share of what training allocates.
FRAGMENTATION = 0.05
# Float32 copies of `chunk_size` rows of logits that the teacher's targets make at once (`core/targets.py`): the rows,
# shifted, their softmax, and the product of these; half of one are the rows themselves where they do not lie together.
# Measured: torch.profiler's allocations, 4.55 for 256 of 1,024 rows in bfloat16, 4.05 in float32.
TARGET_CHUNKS = 4.5
# Elements of a block of `srpo.fused_linear` (`core/linear_log_probs.py`); at most four exist at once.
LOGIT_BLOCK = 1024 * 2048
# Assumed: CUDA graphs and workspaces that a sleeping vLLM keeps.
SLEEPING_ENGINE = 1.0 * GIB
# Assumed: activations and graphs inside vLLM's share, per token that it batches.
ENGINE_BATCH_TOKENS = 8192


@dataclass(frozen=True)
class Moment:
    """A point of a step at which memory peaks, and what is there then; bytes by part."""

    name: str
    parts: dict[str, float]

    @property
    def total(self) -> float:
        return sum(self.parts.values())


def activation_elements(shape: ModelShape) -> int:
    """Elements that autograd keeps of one decoder layer and token, without gradient checkpointing.

    Norms: input, normalised and scaled input of each of two (6 h). Attention: rotated queries, keys and values
    repeated to all query heads, output, and the output projection's input (5 q); with query and key norms also their
    inputs and normalised inputs (2 q + 2 k). Gated MLP: gate, its activation, up, and their product (4 m).
    """
    norms = 2 * (shape.query + shape.key) if shape.qk_norm else 0
    return 6 * shape.hidden + 5 * shape.query + norms + 4 * shape.mlp


def activations(shape: ModelShape, tokens: float, element: int, *, checkpointing: bool) -> float:
    """Bytes of activations of a forward pass over `tokens` tokens that will be differentiated.

    With checkpointing each layer keeps its input, and one layer at a time is recomputed. The residual stream of two
    norms per layer is kept in float32 (transformers' RMSNorm), hence 2 h more bytes than `element` says below float32.
    """
    layer = activation_elements(shape) * element + 2 * shape.hidden * (FLOAT - element)
    if checkpointing:
        return tokens * (shape.layers * shape.hidden * element + layer)
    return tokens * shape.layers * layer


def working_elements(shape: ModelShape) -> int:
    """Elements per token that are alive at once in a forward pass that is not differentiated: those of the MLP."""
    return 4 * shape.hidden + 3 * shape.mlp


def attention_mask(tokens: float, layers: int, element: int) -> float:
    """The mask that keeps packed rollouts apart under sdpa: one bool, and a copy per layer that keeps it.

    torch converts a bool mask to the queries' type in every call and saves the copy for the backward pass. flash-attn
    needs no mask.
    """
    return tokens**2 * (1 + element * layers)


def logits_bytes(shape: ModelShape, tokens: float, element: int) -> float:
    """One copy of the logits of `tokens` tokens."""
    return tokens * shape.vocab * element


def update_logit_copies(
    element: int,
    *,
    flash_cross_entropy: bool,
    routed: float,
    logit_loss: bool,
    divided: bool = False,
    one_pass: bool = False,
) -> float:
    """How many (tokens, V) tensors exist at the worst moment of the loss' backward pass.

    The logits, and their quotient by a temperature other than 1. The gradient of flash-attn's cross-entropy overwrites
    them. Otherwise verl takes log-softmax row by row: the rows' gradients are stacked into one tensor, and in bfloat16
    the log-softmax itself is kept. The logit loss keeps the softmax of the routed rows (their share of a copy); its
    gradient is made in place, and is a copy of its own for divided logits only. In one pass (`srpo.one_pass`) the
    gradient of all losses takes the place of the logits.
    """
    if one_pass:
        return 1.0 + (2.0 if divided else 0.0)
    copies = 1.0 if flash_cross_entropy else 3.0 + (1.0 if element < FLOAT else 0.0)
    copies += 1.0 if divided else 0.0
    return copies + (routed + (1.0 if divided else 0.0) if logit_loss else 0.0)


def forward_logit_copies(*, entropy_chunk: int | None, tokens: float, one_pass: bool = False) -> float:
    """(tokens, V) tensors of the old-log-prob pass: the logits, and verl's softmax and product of the entropy."""
    if one_pass:
        return 1.0
    return 1.0 + 2.0 * (min(1.0, entropy_chunk / tokens) if entropy_chunk else 1.0)


def gathered(shape: ModelShape, element: int) -> float:
    """Unsharded weights of a pass: two layers (one computes, one is fetched), and what FSDP keeps outside the layers.

    A tied embedding is part of the root module, which stays gathered; otherwise the output layer is at work when the
    peak comes.
    """
    return (2 * shape.layer_parameters + shape.embedding_parameters) * element


def topk_payload(tokens: float, k: int) -> float:
    """Ids (int32) and log-probs (float32) at the top K of `tokens` distilled tokens, and the entropy."""
    return tokens * (k * 8 + 4)


def shards(settings: Settings) -> float:
    """Bytes of one rank's share of the weights, an adapter included."""
    return (settings.shape.parameters + settings.adapter) * settings.weight_bytes / settings.shards


def teacher_weights(settings: Settings) -> float:
    """One rank's share of the teacher's own model."""
    return settings.shape.parameters * settings.teacher_bytes / settings.shards if settings.teacher_weights else 0.0


def teacher_adapter(settings: Settings) -> float:
    """One rank's share of the adapter that a moving teacher keeps instead of a model; float32."""
    own = settings.teacher_in_actor and settings.moving_teacher
    return settings.adapter * FLOAT / settings.shards if own else 0.0


def teacher_rest(settings: Settings) -> float:
    """One rank's share of the bytes beside a bfloat16 teacher that moves (`core/split_float.py`); on the host."""
    narrow = settings.teacher_weights and settings.moving_teacher and settings.teacher_bytes < FLOAT
    return settings.shape.parameters / settings.shards if narrow else 0.0


def reference_weights(settings: Settings) -> float:
    """One rank's share of the weights of a KL reference."""
    # Beside an adapter the reference is the actor's model without it.
    own = settings.reference and not settings.adapter
    return settings.shape.parameters * settings.weight_bytes / settings.shards if own else 0.0


def trained(settings: Settings) -> float:
    """One rank's share of a tensor for each parameter that has a gradient, in the type of the weights."""
    return settings.trained * settings.weight_bytes / settings.shards


def micro_batch_tokens(tokens: float, budget: float, *, full: bool) -> float:
    """Tokens of a micro-batch out of `tokens` of a rank: evenly split, or filled to the budget (the worst case)."""
    return min(tokens, budget) if full else tokens / micro_batches(tokens, budget)


def micro_batches(tokens: float, budget: float) -> int:
    """Micro-batches that a rank's tokens are split into."""
    return max(1, math.ceil(tokens / budget))


def training_moments(
    settings: Settings, *, flash_cross_entropy: bool, routed: float, lengths: Lengths | None = None
) -> list[Moment]:
    """The moments of log-prob, teacher and update passes of one rank.

    With rollouts of the given mean lengths, evenly split; by default in the worst case, full micro-batches of rollouts
    at their limits.
    """
    shape, shard = settings.shape, shards(settings)
    full = lengths is None
    lengths = lengths or worst_case(settings)
    rollouts, length = settings.rollouts_per_rank, lengths.prompt + lengths.response
    update = micro_batch_tokens(rollouts / settings.mini_batches * length, settings.actor_tokens, full=full)
    forward = micro_batch_tokens(rollouts * length, settings.log_prob_tokens, full=full)
    element = settings.compute_bytes
    grads = trained(settings)
    adam = ADAM_STATES * grads
    resident = {"weights": shard, "teacher's adapter": teacher_adapter(settings)}
    if settings.cpu:
        # On GPUs the reference's weights rest in host memory (`gpu_host`), and the teacher's unless told otherwise.
        resident["teacher"] = teacher_weights(settings) + teacher_rest(settings)
        resident["reference"] = reference_weights(settings)
    elif not settings.teacher_offload:
        resident["teacher"] = teacher_weights(settings)
    idle_adam = {} if settings.optimizer_offload else {"AdamW states": adam}
    passing = {"gathered layers": gathered(shape, element)}
    moments = [
        Moment(
            "old log-probs",
            {
                **resident,
                **idle_adam,
                **passing,
                "logits": logits_bytes(shape, forward, element)
                * (
                    forward_logit_copies(
                        entropy_chunk=settings.entropy_chunk, tokens=forward, one_pass=settings.one_pass
                    )
                    + (1.0 if settings.divided else 0.0)
                ),
                "activations": forward * working_elements(shape) * element,
                "attention mask": attention_mask(forward, 1, element) if settings.mask else 0.0,
            },
        ),
    ]
    if settings.teacher_forward:
        taught = (1.0 if full else routed) * rollouts * (lengths.teacher_prompt + lengths.response)
        teacher = micro_batch_tokens(taught, settings.teacher_tokens, full=full)
        moments.append(
            Moment(
                "teacher",
                {
                    **resident,
                    **idle_adam,
                    **passing,
                    **({} if settings.cpu or settings.teacher_streams else {"teacher": teacher_weights(settings)}),
                    # The actor's own waits while the teacher's is in its place.
                    "student's adapter": teacher_adapter(settings),
                    "logits": logits_bytes(shape, teacher, element),
                    # On a CPU pieces are of a MB (`srpo_verl/core/rows.py`).
                    "chunks in float32": 0.0 if settings.cpu else TARGET_CHUNKS * settings.chunk * shape.vocab * FLOAT,
                    "activations": teacher * working_elements(shape) * element,
                    "attention mask": attention_mask(teacher, 1, element) if settings.mask else 0.0,
                    "top-K payload": topk_payload(teacher, settings.topk),
                },
            )
        )
    copies = update_logit_copies(
        element,
        flash_cross_entropy=flash_cross_entropy,
        routed=routed,
        logit_loss=settings.logit_loss,
        divided=settings.divided,
        one_pass=settings.one_pass,
    )
    learning = {
        **resident,
        "gradients": grads,
        **idle_adam,
        **passing,
        "activations": activations(shape, update, element, checkpointing=settings.checkpointing),
        "attention mask": attention_mask(update, 1 if settings.checkpointing else shape.layers, element)
        if settings.mask
        else 0.0,
        "top-K payload": topk_payload(update, settings.topk) if settings.logit_loss else 0.0,
    }
    # Of the weights beneath an adapter there are none.
    largest = 0 if settings.adapter else max(shape.layer_parameters, shape.embedding_parameters)
    moments += [
        Moment("loss", {**learning, "logits": logits_bytes(shape, update, element) * copies}),
        Moment(
            "backward",
            {
                **learning,
                "logits": logits_bytes(shape, update, element),
                "gradients of one module": largest * (element + settings.reduce_bytes),
            },
        ),
        Moment(
            "optimizer step",
            {**resident, "gradients": grads, "AdamW states": adam, "AdamW temporaries": grads},
        ),
    ]
    if settings.fused_linear:
        moments = [_without_logits(moment) for moment in moments]
    return [_with_overhead(moment, settings) for moment in moments]


def _without_logits(moment: Moment) -> Moment:
    """`srpo.fused_linear`: four blocks of logits in float32, and none beside."""
    if "logits" not in moment.parts:
        return moment
    kept = {name: size for name, size in moment.parts.items() if name not in ("logits", "chunks in float32")}
    return Moment(moment.name, {**kept, "blocks of logits": float(4 * LOGIT_BLOCK * FLOAT)})


def _with_overhead(moment: Moment, settings: Settings) -> Moment:
    parts = {name: size for name, size in moment.parts.items() if size}
    if settings.cpu:
        return Moment(moment.name, parts)
    parts["allocator"] = FRAGMENTATION * sum(parts.values())
    parts["CUDA and NCCL"] = CUDA_OVERHEAD
    parts["vLLM asleep"] = SLEEPING_ENGINE if settings.sleeps else 0.0
    return Moment(moment.name, parts)


@dataclass(frozen=True)
class Engine:
    """vLLM on one GPU, bytes."""

    weights: float
    working: float
    cache: float
    # Tokens of KV cache of one replica, over its tensor-parallel GPUs.
    cache_tokens: float


def rollout_engine(settings: Settings, gpu: GPU) -> Engine:
    """vLLM's share of a GPU: weights, working memory of its largest batch, and the rest as KV cache."""
    shape, split = settings.shape, settings.tensor_parallel
    weights = shape.parameters * settings.rollout_bytes / split
    working = (
        ENGINE_BATCH_TOKENS * (4 * shape.hidden + 2 * shape.mlp / split) * settings.rollout_bytes
        + settings.max_sequences * shape.vocab * FLOAT * 2
        + SLEEPING_ENGINE
    )
    cache = settings.memory_share * gpu.memory - weights - working
    return Engine(weights, working, cache, max(0.0, cache) * split / shape.kv_bytes(1, settings.rollout_bytes))


def generation_moments(settings: Settings, gpu: GPU) -> list[Moment]:
    """Generation, and the weight sync before it (weights awake, the cache still asleep)."""
    shard = shards(settings)
    engine = rollout_engine(settings, gpu)
    trainer = {
        "weights": 0.0 if settings.param_offload else shard,
        "AdamW states": 0.0 if settings.optimizer_offload else ADAM_STATES * trained(settings),
        "teacher's adapter": teacher_adapter(settings),
    }
    largest = max(settings.shape.embedding_parameters, settings.shape.hidden * settings.shape.mlp)
    sync = {
        **trainer,
        "vLLM weights": engine.weights,
        "bucket": float(settings.bucket),
        "largest weight, gathered": largest * (settings.weight_bytes + settings.rollout_bytes),
        "CUDA and NCCL": CUDA_OVERHEAD,
        "vLLM asleep": SLEEPING_ENGINE,
    }
    generation = {
        **trainer,
        "vLLM weights": engine.weights,
        "vLLM working memory": engine.working,
        "KV cache": max(0.0, engine.cache),
        "CUDA and NCCL": CUDA_OVERHEAD,
    }
    moments = [Moment("weight sync", sync), Moment("generation", generation)]
    if not settings.sleeps:
        return moments
    return [Moment(item.name, {name: size for name, size in item.parts.items() if size}) for item in moments]


def checkpoint_bytes(settings: Settings) -> float:
    """One checkpoint: weights in their own type, AdamW states in float32, the EMA teacher with all its bits."""
    own = shards(settings) if settings.save_base else trained(settings)
    total = own + (ADAM_STATES * trained(settings) if settings.save_optimizer else 0.0)
    if settings.moving_teacher:
        total += teacher_weights(settings) + teacher_rest(settings) + teacher_adapter(settings)
    return total * settings.shards
