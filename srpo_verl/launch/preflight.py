"""Everything that can be known to be wrong before Ray starts, said in a sentence.

A Hydra callback: it runs inside `python -m verl.trainer.main_ppo` between composing the config and verl's `main`.
Hydra turns an exception of a callback into a warning, so a problem ends the process with SystemExit.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from srpo_verl import variants
from srpo_verl.base.lease import FolderTakenError
from srpo_verl.config.model_files import model_config, weight_problems
from srpo_verl.config.model_path import missing_folder
from srpo_verl.config.schema import SRPOConfig, settings
from srpo_verl.config.secrets import is_secret
from srpo_verl.launch import (
    basic_values,
    data_checks,
    hardware,
    lora_checks,
    run_start,
    sequence_parallel,
    shards,
    trainer_checks,
)

# How many past calls Ray's control service remembers, 3 kB each. A step makes four for each rollout, so Ray's own
# 100,000 are 320 MiB that fill slowly; `ray list tasks` shows at most 10,000. A cluster that runs keeps its own bound.
RAY_HISTORY = {"RAY_task_events_max_num_task_in_gcs": "10000"}


class Preflight(Callback):
    """Refuses a config that cannot run, prints warnings and the differences from the paper's Table 3."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Before Hydra saves the config and copies it for verl's `main`: the only moment to change it."""
        _refuse(secrets(config))
        if chosen := hardware.choose_attention(config):
            print(f"srpo: note: {chosen}", file=sys.stderr)
        run_start.draw_token(config)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        _refuse(["one run is started at a time: leave out --multirun (-m)"])

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            problems, warnings = check(config)
        except Exception:  # noqa: BLE001  (shown, and the process ends)
            traceback.print_exc()
            raise SystemExit(1) from None
        for warning in warnings:
            print(f"srpo: warning: {warning}", file=sys.stderr)
        _refuse(problems)
        srpo = settings(config.srpo)
        # Before the checkpoints are looked at: they change while another run has the folder.
        try:
            lease = run_start.take_folder(config, srpo)
        except (FolderTakenError, OSError) as error:
            _refuse([str(error)])
            raise
        self._resume(config)
        run_start.heed_signals(lease, srpo.checkpoint.grace)
        from srpo_verl.training.durable.reward_sources import reward_sources
        from srpo_verl.training.durable.run_record import differences_from_paper, foreign_variants
        from srpo_verl.training.rollout.weight_socket import name_this_run

        name_this_run()
        for name, value in RAY_HISTORY.items():
            os.environ.setdefault(name, value)

        used = foreign_variants(settings(config.srpo), config.trainer.v1.trainer_mode)
        for key, origin in used.items():
            print(f"srpo: variant {key} from {origin}")
        for key, origin in reward_sources(config).items():
            print(f"srpo: reward {key} from {origin}")
        for key, (paper, here) in differences_from_paper(config).items():
            print(f"srpo: differs from the paper's Table 3: {key} = {here} (paper: {paper})")

    def _resume(self, config: DictConfig) -> None:
        """Say from where the run goes on; end here if it cannot (exit code 2) or if nothing is left to train (0)."""
        from srpo_verl.training.durable.resume import plan_resume

        plan = plan_resume(config, settings(config.srpo))
        for note in plan.notes:
            print(f"srpo: warning: {note}", file=sys.stderr)
        _refuse(plan.problems)
        if plan.finished:
            print(f"srpo: note: {plan.finished}", file=sys.stderr)
            raise SystemExit(0)


def _refuse(problems: list[str]) -> None:
    for problem in problems:
        print(f"srpo: {problem}", file=sys.stderr)
    if problems:
        raise SystemExit(2)


def secrets(config: DictConfig) -> list[str]:
    """Keys that hold a secret, each with what to do instead."""

    def walk(node: Any, path: str) -> Iterator[str]:
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for name, value in items:
            here = f"{path}.{name}" if path else str(name)
            if isinstance(value, str) and value and is_secret(here):
                yield here
            yield from walk(value, here)

    return [
        f"{key} holds a secret, and verl prints the whole config into its log: leave it out and set the environment "
        "variable that the library reads (WANDB_API_KEY, HF_TOKEN, ...)"
        for key in walk(OmegaConf.to_container(config, resolve=False), "")
    ]


def check(config: DictConfig) -> tuple[list[str], list[str]]:
    """Problems and warnings, each a sentence. Raises what the plugin raised if it cannot be imported."""
    loaded_by_verl = "srpo_verl.plugin" in sys.modules
    from srpo_verl.plugin import check_registered

    if not loaded_by_verl:
        return [
            "verl did not load the plugin srpo (entry-point group verl.plugins), so neither will its workers: unset "
            "VERL_USE_EXTERNAL_PLUGINS or add srpo to it, and install the package in this Python"
        ], []
    if wrong := list(basic_values.problems(config)):
        return wrong, []
    try:
        srpo = settings(config.srpo)
        described = model_config(config.actor_rollout_ref.model.path)
        weights = list(weight_problems(config.actor_rollout_ref.model.path))
    except ValueError as error:
        return [str(error)], []
    check_registered()
    data_problems, data_warnings = data_checks.problems_and_warnings(config, srpo)
    here = hardware.problems(config, hardware.this_machine(config))
    shared = [*sequence_parallel.problems(config, described), *shards.problems(config, srpo, described)]
    problems = [
        *here,
        *shared,
        *_combinations(config, srpo),
        *data_problems,
        *_model(config, srpo, described),
        *weights,
    ]
    unused = [
        f"srpo.options.{name} belongs to no variant that is registered"
        for name in srpo.options
        if name not in variants.names()
    ]
    return problems, [*variants.failures(), *unused, *data_warnings, *_warnings(config, srpo, described)]


def _combinations(config: DictConfig, srpo: SRPOConfig) -> Iterator[str]:
    """Settings of verl that SRPO cannot work with."""
    actor, rollout, model = (config.actor_rollout_ref[key] for key in ("actor", "rollout", "model"))
    yield from trainer_checks.problems(config, srpo)
    yield from lora_checks.problems(config, srpo)
    if config.algorithm.adv_estimator != "srpo":
        yield (
            f"algorithm.adv_estimator={config.algorithm.adv_estimator}: verl's estimators do not know which rollouts "
            "count; set it to srpo and name the baseline in srpo.advantage (group_mean, leave_one_out, or your own)"
        )
    if config.algorithm.rollout_correction.rollout_is and not rollout.calculate_log_probs:
        yield (
            "algorithm.rollout_correction.rollout_is needs the rollout engine's log-probs: set "
            "actor_rollout_ref.rollout.calculate_log_probs=true"
        )
    if config.trainer.default_hdfs_dir is not None:
        yield "trainer.default_hdfs_dir: verl 0.9.1 copies no FSDP checkpoint there; set it to null and copy the folder"
    if actor.checkpoint.get("async_save", False):
        yield "actor_rollout_ref.actor.checkpoint.async_save=true is Megatron's; set it to false"
    if srpo.seeded_rollouts and rollout.name != "vllm":
        yield f"srpo.seeded_rollouts=true gives requests seeds as vLLM takes them, not {rollout.name}: set it to false"
    if not srpo.distils:
        return
    if rollout.n < 2 and set(srpo.providers) <= {"sibling", "siblings", "shortest_sibling", "random_sibling"}:
        yield (
            f"actor_rollout_ref.rollout.n={rollout.n}: a failed rollout needs a sibling; set it to 2 or more (8), or "
            "add another source to srpo.providers"
        )
    if actor.strategy != "fsdp2":
        yield (
            f"actor_rollout_ref.actor.strategy={actor.strategy}: the teacher's EMA works on FSDP2 shards; "
            "set strategy=fsdp2 for actor and ref"
        )
    if model.use_fused_kernels:
        yield (
            "actor_rollout_ref.model.use_fused_kernels=true never builds the logits that the divergence reads; "
            "set it to false, and srpo.fused_linear=true for a loss that needs none"
        )
    if srpo.fused_linear and not model.use_remove_padding:
        yield "srpo.fused_linear=true takes packed rows: set actor_rollout_ref.model.use_remove_padding=true"
    if srpo.fused_linear and actor.calculate_sum_pi_squared:
        yield (
            "actor_rollout_ref.actor.calculate_sum_pi_squared=true reads the logits that srpo.fused_linear=true never "
            "builds; set one of them to false"
        )
    if actor.pad_to_length or OmegaConf.select(actor, "fsdp_config.pad_to_length"):
        yield (
            "actor_rollout_ref.actor.pad_to_length=true: verl's engine refuses it where a loss reads the logits; set "
            "it to false"
        )
    if actor.loss_agg_mode != "token-mean":
        yield (
            f"actor_rollout_ref.actor.loss_agg_mode={actor.loss_agg_mode}: both branches share the number of "
            "response tokens as denominator; set it to token-mean"
        )
    if config.algorithm.rollout_correction and config.algorithm.rollout_correction.bypass_mode:
        yield (
            "algorithm.rollout_correction.bypass_mode=true skips the old_log_prob pass that the student's top-K ids "
            "come from; set it to false"
        )
    if OmegaConf.select(config, "distillation.enabled"):
        yield "distillation.enabled=true: verl's own distillation uses the same hook; set it to false"
    if config.reward.reward_model.enable and not config.reward.reward_model.enable_resource_pool:
        yield "a colocated reward model gives its verdict per batch, without `acc`; use a reward function"


def _model(config: DictConfig, srpo: SRPOConfig, described: Mapping[str, Any]) -> Iterator[str]:
    if missing := missing_folder(config):
        yield missing
        return
    if srpo.distils and "vision_config" in described:
        yield (
            f"actor_rollout_ref.model.path={config.actor_rollout_ref.model.path} is a vision model, and the teacher's "
            "prompt is text, without the student's images: take a text model, or srpo.route=none"
        )
    vocabulary, hidden = described.get("vocab_size"), described.get("hidden_size")
    bucket = config.actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes
    if config.trainer.device == "cpu" and vocabulary and hidden and vocabulary * hidden * 4 > bucket << 20:
        yield (
            f"an embedding of {vocabulary} x {hidden} float32 numbers does not fit into a bucket of {bucket} MB: "
            "set actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes="
            f"{-(-vocabulary * hidden * 4 >> 20)}"
        )
    if srpo.logit_loss and vocabulary is not None and srpo.topk > vocabulary:
        yield f"srpo.topk={srpo.topk} is more than the model's vocabulary of {vocabulary} tokens; lower it"


def _warnings(config: DictConfig, srpo: SRPOConfig, described: Mapping[str, Any]) -> Iterator[str]:
    rollout, data = config.actor_rollout_ref.rollout, config.data
    contents = config.actor_rollout_ref.actor.checkpoint
    for key in ("save_contents", "load_contents"):
        if lacking := {"model", "optimizer", "extra"} - set(contents[key]):
            yield (
                f"actor_rollout_ref.actor.checkpoint.{key} lacks {', '.join(sorted(lacking))}: a resumed run is not "
                "the run that was interrupted"
            )
    yield from lora_checks.warnings(config)
    yield from trainer_checks.warnings(config)
    if not srpo.distils:
        return
    from srpo_verl.training.step.teacher_prompts import TEMPLATE_TOKENS, max_teacher_prompt_length

    prompt = max_teacher_prompt_length(config, srpo)
    wanted = data.max_prompt_length + data.max_response_length + TEMPLATE_TOKENS
    if prompt < wanted:
        yield (
            f"teacher prompts are limited to {prompt} tokens, a question with a full demonstration may need {wanted}: "
            "longer demonstrations are shortened, and counted. To fit all of them, set "
            f"actor_rollout_ref.rollout.max_model_len={wanted + data.max_response_length} "
            f"(now {rollout.max_model_len}) or srpo.teacher.max_prompt_length"
        )
    positions = described.get("max_position_embeddings")
    if positions is not None and prompt + data.max_response_length > positions:
        yield (
            f"a teacher sequence may have {prompt + data.max_response_length} tokens, the model has {positions} "
            "positions: lower srpo.teacher.max_prompt_length"
        )
    if config.algorithm.rollout_correction.rollout_is is None:
        yield "algorithm.rollout_correction.rollout_is=null: no truncated importance sampling on either branch"
