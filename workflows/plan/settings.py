"""What a composed config says that memory and time depend on, as plain numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from srpo_verl.config.schema import settings as srpo_settings
from workflows.plan.shapes import ModelShape, shape_of

_BYTES = {"fp32": 4, "float32": 4, "float": 4, "bf16": 2, "bfloat16": 2, "fp16": 2, "float16": 2, "half": 2, "auto": 2}


@dataclass(frozen=True)
class Lengths:
    """Tokens per rollout that a plan assumes, means over a batch. Not in a config: they are a property of the data."""

    prompt: float
    response: float
    # Of the longest response over the mean: generation of a batch ends with its longest rollout.
    longest: float
    # Question, demonstration and template of a distilled rollout.
    teacher_prompt: float


@dataclass(frozen=True)
class Settings:
    """A run, as far as planning needs it. Sizes in bytes, lengths in tokens."""

    shape: ModelShape
    cpu: bool
    ranks: int
    ranks_per_node: int
    nodes: int
    # Over how many ranks a weight is sharded.
    shards: int
    weight_bytes: int
    compute_bytes: int
    reduce_bytes: int
    checkpointing: bool
    # Whether packed rollouts need an attention mask (sdpa).
    mask: bool
    param_offload: bool
    optimizer_offload: bool
    entropy_chunk: int | None
    actor_tokens: int
    log_prob_tokens: int
    teacher_tokens: int
    # Over how many ranks a row is split.
    sequence_parallel: int
    prompts: int
    group: int
    mini_batches: int
    max_prompt: int
    max_response: int
    max_teacher_prompt: int
    max_model_len: int
    # Parameters and rank of an adapter that is trained in place of the weights; 0 without.
    adapter: int
    adapter_rank: int
    # Whether the teacher is the actor's model, with another adapter or none.
    teacher_in_actor: bool
    teacher_weights: bool
    teacher_bytes: int
    # Between the teacher's passes, and in them, its weights are on the host.
    teacher_offload: bool
    teacher_streams: bool
    teacher_forward: bool
    moving_teacher: bool
    logit_loss: bool
    # Whether log-probs and losses have one gradient in the logits' place, and whether there are logits at all.
    one_pass: bool
    fused_linear: bool
    # Whether the logits are divided by a temperature.
    divided: bool
    topk: int
    chunk: int
    reference: bool
    rollout_bytes: int
    tensor_parallel: int
    memory_share: float
    sleeps: bool
    max_sequences: int
    bucket: int
    save_optimizer: bool
    save_base: bool
    agents: int
    reward_workers: int
    storage_units: int
    # Rollouts are interrupted for a step, and go on after it.
    asynchronous: bool

    @property
    def trained(self) -> int:
        """Parameters that have a gradient."""
        return self.adapter or self.shape.parameters

    @property
    def even_shards(self) -> bool:
        """Whether each rank has as many rows of every matrix; a run with `param_offload` is refused otherwise."""
        rows = [rows for _, rows, _ in self.shape.matrices]
        return all(number % self.shards == 0 for number in (*rows, self.adapter_rank))

    @property
    def rollouts(self) -> int:
        """Rollouts of a step."""
        return self.prompts * self.group

    @property
    def rollouts_per_rank(self) -> float:
        """Rollouts of a step that a rank trains on."""
        return self.rollouts / self.ranks


def settings_of(config: DictConfig, *, shape: ModelShape | None = None, flash_attn: bool = True) -> Settings:
    """Read a composed and resolved config; `shape` replaces the dimensions of its model.

    `flash_attn`: whether it is installed, which decides the attention where the config names none.

    Raises:
        UnknownModel: the model's dimensions cannot be had.
        ValueError: a setting that the plan does not cover, as an adapter on embeddings.
    """
    group, data, trainer = config.actor_rollout_ref, config.data, config.trainer
    actor, rollout, model = group.actor, group.rollout, group.model
    engine, srpo = actor.fsdp_config, srpo_settings(config.srpo)
    _check_numbers(config)
    if actor.strategy not in ("fsdp", "fsdp2"):
        raise ValueError(f"actor_rollout_ref.actor.strategy={actor.strategy}: only fsdp2 and fsdp are planned for")
    if trainer.v1.trainer_mode == "srpo_separate_async":
        raise ValueError(
            "trainer.v1.trainer_mode=srpo_separate_async: engines on GPUs of their own are not planned for"
        )
    ranks = trainer.n_gpus_per_node * trainer.nnodes
    shards = engine.fsdp_size if 0 < engine.fsdp_size < ranks else ranks
    precision = OmegaConf.to_container(engine.mixed_precision) if engine.get("mixed_precision") else {}
    assert isinstance(precision, dict)
    # Ranks that share rows have an equal part of each.
    split = max(actor.ulysses_sequence_parallel_size, engine.ulysses_sequence_parallel_size)
    longest = math.ceil((data.max_prompt_length + data.max_response_length) / split)
    actor_tokens, log_prob_tokens = (_budget(*item, longest) for item in _budgets(actor, rollout))
    max_teacher_prompt = _max_teacher_prompt(config, srpo) if srpo.distils else 0
    attention = (model.override_config or {}).get("attn_implementation")
    shape = shape or shape_of(str(model.path))
    adapter, moves = _adapter(model, shape), srpo.moves_teacher
    in_actor = adapter > 0 and srpo.teacher.path is None and not (moves and srpo.teacher.lora_ema == "exact")
    return Settings(
        shape=shape,
        cpu=trainer.device == "cpu",
        ranks=ranks,
        ranks_per_node=trainer.n_gpus_per_node,
        nodes=trainer.nnodes,
        shards=shards,
        weight_bytes=_BYTES[engine.model_dtype or "fp32"],
        compute_bytes=_BYTES[str(precision.get("param_dtype", "bf16"))],
        reduce_bytes=_BYTES[str(precision.get("reduce_dtype", "fp32"))],
        checkpointing=bool(model.enable_gradient_checkpointing),
        mask=bool(model.use_remove_padding) and (attention == "sdpa" if attention else not flash_attn),
        param_offload=bool(engine.param_offload or engine.offload_policy),
        optimizer_offload=bool(engine.optimizer_offload or engine.offload_policy),
        entropy_chunk=engine.entropy_from_logits_chunk_size if engine.entropy_from_logits_with_chunking else None,
        actor_tokens=actor_tokens,
        log_prob_tokens=log_prob_tokens,
        teacher_tokens=max(
            srpo.teacher.max_token_len_per_gpu or rollout.log_prob_max_token_len_per_gpu,
            math.ceil((max_teacher_prompt + data.max_response_length) / split),
        ),
        sequence_parallel=split,
        prompts=data.train_batch_size,
        group=rollout.n,
        mini_batches=max(1, data.train_batch_size // actor.ppo_mini_batch_size) * actor.ppo_epochs,
        max_prompt=data.max_prompt_length,
        max_response=data.max_response_length,
        max_teacher_prompt=max_teacher_prompt,
        max_model_len=rollout.max_model_len or data.max_prompt_length + data.max_response_length,
        adapter=adapter,
        adapter_rank=model.lora_rank if adapter else 0,
        teacher_in_actor=in_actor,
        teacher_weights=srpo.owns_teacher and not in_actor,
        teacher_bytes=_BYTES[srpo.teacher.dtype],
        teacher_offload=srpo.teacher.offload_policy or srpo.teacher.param_offload,
        teacher_streams=srpo.teacher.offload_policy,
        teacher_forward=srpo.distils,
        moving_teacher=srpo.moves_teacher,
        logit_loss=srpo.logit_loss,
        one_pass=srpo.own_log_probs,
        fused_linear=srpo.fused_linear,
        divided=rollout.temperature != 1,
        topk=srpo.topk if srpo.logit_loss else 1,
        chunk=srpo.chunk_size,
        reference=bool(actor.use_kl_loss or config.algorithm.use_kl_in_reward),
        rollout_bytes=_BYTES[str(rollout.dtype)],
        tensor_parallel=rollout.tensor_model_parallel_size,
        memory_share=rollout.gpu_memory_utilization,
        sleeps=bool(rollout.free_cache_engine),
        max_sequences=rollout.max_num_seqs,
        bucket=rollout.checkpoint_engine.update_weights_bucket_megabytes << 20,
        save_optimizer="optimizer" in actor.checkpoint.save_contents,
        save_base=not (adapter and actor.checkpoint.get("save_lora_only")),
        agents=rollout.agent.num_workers,
        reward_workers=config.reward.num_workers,
        storage_units=config.transfer_queue.backend.SimpleStorage.num_data_storage_units,
        asynchronous=trainer.v1.trainer_mode == "srpo_colocate_async",
    )


def _check_numbers(config: DictConfig) -> None:
    for key in (
        "data.max_prompt_length",
        "data.max_response_length",
        "data.train_batch_size",
        "actor_rollout_ref.rollout.n",
        "trainer.n_gpus_per_node",
        "trainer.nnodes",
    ):
        value = OmegaConf.select(config, key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{key}={value}: it must be a whole number above 0")


def _adapter(model: Any, shape: ModelShape) -> int:
    if model.lora_rank <= 0:
        return 0
    chosen = model.target_modules
    return shape.adapter_parameters(model.lora_rank, None if chosen == "all-linear" else list(chosen))


def lengths_of(settings: Settings, response: float | None = None, prompt: float | None = None) -> Lengths:
    """The assumed lengths; by default prompts fill a quarter of their limit and responses an eighth."""
    response = min(response or max(16.0, settings.max_response / 8), settings.max_response)
    prompt = min(prompt or max(16.0, settings.max_prompt / 4), settings.max_prompt)
    return Lengths(
        prompt=prompt,
        response=response,
        longest=min(settings.max_response, 3 * response) / response,
        teacher_prompt=min(settings.max_teacher_prompt, prompt + response + 40) if settings.teacher_forward else 0,
    )


def worst_case(settings: Settings) -> Lengths:
    """Every rollout at its limits."""
    return Lengths(settings.max_prompt, settings.max_response, 1.0, settings.max_teacher_prompt)


def _budgets(actor: Any, rollout: Any) -> tuple[tuple[bool, int, int | None], tuple[bool, int, int | None]]:
    """(dynamic batches, token budget, fixed rows) of the update and of the log-prob passes."""
    return (
        (actor.use_dynamic_bsz, actor.ppo_max_token_len_per_gpu, actor.ppo_micro_batch_size_per_gpu),
        (
            rollout.log_prob_use_dynamic_bsz,
            rollout.log_prob_max_token_len_per_gpu,
            rollout.log_prob_micro_batch_size_per_gpu,
        ),
    )


def _budget(dynamic: bool, tokens: int, rows: int | None, longest: int) -> int:
    """Tokens of the largest micro-batch: the budget, which one full rollout may exceed, or a fixed number of rows."""
    return max(tokens, longest) if dynamic else (rows or 1) * longest


def _max_teacher_prompt(config: DictConfig, srpo: Any) -> int:
    from srpo_verl.training.step.teacher_prompts import max_teacher_prompt_length

    return max_teacher_prompt_length(config, srpo)
