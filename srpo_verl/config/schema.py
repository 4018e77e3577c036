"""The `srpo.*` keys. The defaults are the paper's algorithm (arXiv 2604.02288, sections 3.1-3.3 and Table 3).

GRPO, SDPO, the ablations and the diagnosis runs are settings of the same code: which rollouts are distilled (`route`),
which keep the policy gradient (`policy_gradient`), how the distilled tokens are weighted (`beta`), and whether the
teacher enters as a loss on logits or as an advantage (`advantage_mix`). Some keys name variants: `srpo_verl.variants`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from srpo_verl import variants
from srpo_verl.config.safety import CheckpointConfig, GuardsConfig, LeaseConfig, WatchdogConfig
from srpo_verl.core import DEMONSTRATIONS, TEMPLATE, trapezoid

POLICY_GRADIENT = ("unrouted", "all", "none")
SUPPORTS = ("student", "teacher")
DENOMINATORS = ("all_tokens", "distilled_tokens")
LORA_EMA = ("adapter", "exact")


@dataclass
class TeacherConfig:
    """Who the teacher is and what its prompt looks like."""

    # ema: follows the actor, once per training step. frozen: the initial weights. live: the actor itself.
    # trust_region: logits between the initial weights and the actor. Or a registered one.
    kind: str = "ema"
    # Hugging Face folder or name that the teacher's weights start from, of the actor's architecture. null: the actor's.
    path: str | None = None
    # Of its own weights: float32, or bfloat16 (half the memory; what an EMA needs beyond it is one byte per weight on
    # the host).
    dtype: str = "float32"
    # Where they rest, as for verl's engines. offload_policy: on the host, whence each layer comes for each micro-batch.
    # param_offload: on the host between the teacher's passes. Neither: on the device.
    offload_policy: bool = True
    param_offload: bool = False
    # teacher <- (1 - ema_rate) teacher + ema_rate actor
    ema_rate: float = 0.05
    # Where the actor trains an adapter, what a teacher that moves is. adapter: another adapter, which follows factor by
    # factor. exact: all weights, which follow those of the actor with its adapter merged.
    lora_ema: str = "adapter"
    # trust_region: (1 - mix) * initial logits + mix * actor logits
    trust_region_mix: float = 0.5
    # Tokens of question + demonstration + template. null: prompt + response + 512, as in the paper's 18944.
    max_prompt_length: int | None = None
    # Token budget of one micro-batch of the teacher's forward pass. null: the actor's log-prob budget.
    max_token_len_per_gpu: int | None = None
    # Drop <think>...</think> from the demonstration.
    remove_thinking: bool = True
    # How a sibling of several turns is shown, with its tool calls and their results. text: with labels, in the last
    # user message. conversation: as messages of the chat template, behind the question, which is then asked again.
    demonstration: str = "text"
    # The last user message that the teacher sees: {prompt} is the question, {information} what it is shown.
    template: str = TEMPLATE
    # By provider: how its {text} stands in there, instead of the provider's own section.
    sections: dict[str, str] = field(default_factory=dict)
    # Takes the place of the system message in the teacher's prompt. null: the student's stays.
    system_prompt: str | None = None


@dataclass
class DistillationConfig:
    """What the divergence is multiplied by."""

    coefficient: float = 1.0
    # It rises to that over so many steps, and from another step on falls to 0 over so many. 0: it does not.
    warmup_steps: int = 0
    decay_start: int = 0
    decay_steps: int = 0


@dataclass
class SRPOConfig:
    """Settings of the algorithm; see docs/configuration.md for one line each."""

    # Distilled: among rollouts with teacher information, the incorrect ones (SRPO), the correct ones, all, or none; or
    # a registered route.
    route: str = "incorrect"
    # Where teacher information comes from; a rollout takes the first that has something for it. sibling, feedback, or
    # registered providers.
    providers: list[str] = field(default_factory=lambda: ["sibling"])
    # Whom the teacher is asked about besides those that are distilled, for a modulator or a metric: a route.
    asked: str = "none"
    # A provider of siblings that the teacher is shown in further passes, for a modulator. null: none.
    contrast: str | None = None
    # What the run keeps of its questions from step to step, for routes and providers: registered states.
    states: list[str] = field(default_factory=list)
    # Policy gradient on: rollouts that are not distilled (SRPO), all, or none.
    policy_gradient: str = "unrouted"
    # > 0: the teacher enters as an advantage, (1 - m) A_grpo + m (log q(y) - log p_old(y)), with no logit loss.
    advantage_mix: float = 0.0
    # A rollout is correct if its verdict (`acc`, else the score) is at least this.
    threshold: float = 0.5
    # Baseline of the policy gradient: group_mean, leave_one_out, or a registered one.
    advantage: str = "group_mean"
    # Makes advantages per token out of it and the teacher's and the student's log-probs. null: none.
    modulator: str | None = None
    # Between student and teacher, per token: jsd, or a registered one.
    divergence: str = "jsd"
    # Of jsd. 0.5: Jensen-Shannon. 0: KL(teacher || student). 1: KL(student || teacher). In between: generalised JSD.
    alpha: float = 0.5
    # Of jsd: the most that one vocabulary entry may add to a token's divergence, in nats. null: no limit.
    entry_clip: float | None = None
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    topk: int = 100
    # One bucket for the probability outside the top-K. Without it, mass escapes from the support.
    add_tail: bool = True
    # Whose top-K tokens the divergence is taken over.
    support: str = "student"
    # Weight of a distilled token before the mean is made 1: entropy, or a registered one.
    weighting: str = "entropy"
    # Of entropy: exp(-beta * teacher entropy). 0: all weights 1.
    beta: float = 1.0
    # A factor on the divergence of each rollout, by its question. null: 1.
    question_weight: str | None = None
    # What the sum of the divergence is divided by: all response tokens, as the policy gradient's (SRPO), or the
    # distilled ones (SDPO, which has no policy gradient).
    denominator: str = "all_tokens"
    # pi / pi_old on distilled tokens is clamped at this; exactly 1 with one update per batch.
    ratio_clip: float = 2.0
    # The most rows of logits handled at once in the logit loss and in the teacher's targets.
    chunk_size: int = 256
    # Log-probs and divergence as one function of the logits, whose gradient takes their place.
    one_pass: bool = True
    # On CUDA: Triton kernels for the passes over the logits. false: PyTorch's operations, as on a CPU.
    kernels: bool = True
    # No logits: log-probs out of hidden states and the output layer's weights, block by block.
    fused_linear: bool = False
    # Measure the gradient norm of each branch every so many steps (two more backward passes). 0: never.
    grad_norm_freq: int = 0
    # Measure every so many steps what the teacher makes of the siblings that it is shown (srpo/teacher_gain). 0: never.
    teacher_gain_freq: int = 10
    # Every turn of the model's counts alike in each branch, instead of every token.
    turn_mean: bool = False
    # Folder for the teacher prompts (JSON lines, one file per step). null: none.
    dump_dir: str | None = None
    dump_freq: int = 1
    # Folder for whole steps to look at with `srpo inspect`, one file each, every so many steps, with the tokens of so
    # many groups. null: none.
    inspect_dir: str | None = None
    inspect_freq: int = 10
    inspect_groups: int = 4
    # Seconds between two looks at the replay buffer.
    poll_interval: float = 2.0
    # Least and greatest score of a verdict; one outside counts nowhere. null: any finite number.
    score_range: list[float] | None = field(default_factory=lambda: [0.0, 1.0])
    # Give every rollout a seed of its own, from the run's seed, the step, the prompt and the sample's number.
    seeded_rollouts: bool = False
    # Registered metrics to log.
    metrics: list[str] = field(default_factory=list)
    # Modules to import that register variants; those of installed packages are found without.
    variant_modules: list[str] = field(default_factory=list)
    # Settings of variants, by the variant's name; free.
    options: dict[str, Any] = field(default_factory=dict)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    lease: LeaseConfig = field(default_factory=LeaseConfig)
    guards: GuardsConfig = field(default_factory=GuardsConfig)
    watchdog: WatchdogConfig = field(default_factory=WatchdogConfig)

    def __post_init__(self) -> None:
        variants.import_modules(self.variant_modules)
        for problem in self._problems():
            raise ValueError(problem)
        self.options = variants.typed_options(self.named_variants(), self.options)

    def variant(self, kind: str) -> variants.Variant:
        """The one that is named; of the kinds of which there is one."""
        return variants.get(kind, self.teacher.kind if kind == "teacher" else getattr(self, kind))

    def named_variants(self) -> list[variants.Variant]:
        """All that are used. Raises VariantError (a ValueError) for a name that is not registered."""
        optional = [kind for kind in ("question_weight", "modulator") if getattr(self, kind) is not None]
        return [
            *map(self.variant, ("route", "advantage", "divergence", "weighting", "teacher", *optional)),
            *([variants.get("route", self.asked)] if self.asked not in ("none", self.route) else []),
            *self.used_providers(),
            *(variants.get("state", name) for name in self.states),
            *(variants.get("metric", name) for name in self.metrics),
        ]

    def used_providers(self) -> list[variants.Variant]:
        """Those of teacher information, in order, then that of the contrast."""
        return [
            variants.get("provider", name) for name in (*self.providers, *([self.contrast] if self.contrast else []))
        ]

    def columns(self) -> dict[str, str]:
        """Columns of the data set that providers read, or keys in them (`extra_info.key`), each with one's name."""
        return {column: variant.name for variant in self.used_providers() for column in variant.columns_of(self)}

    def column_names(self) -> list[str]:
        """`columns`, without the keys in them."""
        return sorted({column.partition(".")[0] for column in self.columns()})

    def sections(self) -> dict[str, str]:
        """By provider: how its text stands in the teacher's prompt."""
        return {**{variant.name: variant.section for variant in self.used_providers()}, **self.teacher.sections}

    @property
    def reads_responses(self) -> bool:
        """Whether a provider or a state reads what was answered as text."""
        return any(variant.responses for variant in self.named_variants())

    def _problems(self):
        for key, allowed in (
            ("policy_gradient", POLICY_GRADIENT),
            ("support", SUPPORTS),
            ("denominator", DENOMINATORS),
        ):
            if getattr(self, key) not in allowed:
                yield f"srpo.{key}={getattr(self, key)!r} is not one of {', '.join(allowed)}"
        for key, kind in (("asked", "route"), ("contrast", "provider")):
            name, known = getattr(self, key), variants.names(kind)
            if name is not None and name not in known:
                yield f"srpo.{key}={name!r} is not one of {', '.join(known)}"
        for place in ("{prompt}", "{information}"):
            if self.teacher.template.count(place) != 1:
                yield f"srpo.teacher.template must hold {place} once, not {self.teacher.template!r}"
        template = self.teacher.template
        if template.find("{information}") < template.find("{prompt}"):
            yield f"srpo.teacher.template must have {{prompt}} before {{information}}, not {template!r}"
        for name, section in self.teacher.sections.items():
            if name not in variants.names("provider"):
                yield f"srpo.teacher.sections.{name}: there is no such provider"
            if section.count("{text}") != 1:
                yield f"srpo.teacher.sections.{name} must hold {{text}} once, not {section!r}"
        if self.teacher.demonstration not in DEMONSTRATIONS:
            forms = ", ".join(DEMONSTRATIONS)
            yield f"srpo.teacher.demonstration={self.teacher.demonstration!r} is not one of {forms}"
        if self.fused_linear and not self.logit_loss:
            yield "srpo.fused_linear=true is for a loss on logits: set it to false with route=none or advantage_mix"
        if self.fused_linear and self.variant("teacher").mix_logits is not None:
            yield f"srpo.fused_linear=true: srpo.teacher.kind={self.teacher.kind} mixes logits, so they must exist"
        if self.teacher.dtype not in ("float32", "bfloat16"):
            yield f"srpo.teacher.dtype={self.teacher.dtype} must be float32 or bfloat16"
        if self.teacher.lora_ema not in LORA_EMA:
            yield f"srpo.teacher.lora_ema={self.teacher.lora_ema!r} is not one of {', '.join(LORA_EMA)}"
        if self.teacher.offload_policy and self.teacher.param_offload:
            yield "srpo.teacher.param_offload=true needs srpo.teacher.offload_policy=false: one way to offload"
        if self.teacher.path is not None and not self.owns_teacher:
            yield f"srpo.teacher.path: srpo.teacher.kind={self.teacher.kind} has no weights of its own; leave it null"
        if not self.providers or len(set(self.providers)) != len(self.providers):
            yield f"srpo.providers={self.providers} must name at least one provider, and none twice"
        least, greatest = -math.inf, math.inf
        if self.score_range is not None and len(self.score_range) == 2:
            least, greatest = self.score_range
        for key, value, low, high in (
            ("threshold", self.threshold, least, greatest),
            ("alpha", self.alpha, 0.0, 1.0),
            ("advantage_mix", self.advantage_mix, 0.0, 1.0),
            ("teacher.ema_rate", self.teacher.ema_rate, 0.0, 1.0),
            ("teacher.trust_region_mix", self.teacher.trust_region_mix, 0.0, 1.0),
        ):
            if not low <= value <= high:
                yield f"srpo.{key}={value} must be between {low:g} and {high:g}"
        for key in ("topk", "chunk_size", "dump_freq", "inspect_freq", "inspect_groups"):
            if getattr(self, key) < 1:
                yield f"srpo.{key}={getattr(self, key)} must be at least 1"
        frequencies = [(key, getattr(self, key)) for key in ("grad_norm_freq", "teacher_gain_freq")]
        for key, value in (("beta", self.beta), *frequencies):
            if not value >= 0:
                yield f"srpo.{key}={value} must not be negative"
        for key, value in vars(self.guards).items():
            if value < (1 if key == "window" else 0):
                yield f"srpo.guards.{key}={value} must not be negative (0 switches it off)"
        if self.checkpoint.max_failures < 1:
            yield f"srpo.checkpoint.max_failures={self.checkpoint.max_failures} must be at least 1"
        if not self.checkpoint.grace >= 0:
            yield f"srpo.checkpoint.grace={self.checkpoint.grace} must not be negative"
        if not 0 < self.lease.interval <= self.lease.timeout / 3:
            yield (
                f"srpo.lease.interval={self.lease.interval} must be positive, and at most a third of "
                f"srpo.lease.timeout={self.lease.timeout}, so that two signs of life may fail"
            )
        for key, value in (("ratio_clip", self.ratio_clip), ("poll_interval", self.poll_interval)):
            if not value > 0:
                yield f"srpo.{key}={value} must be positive"
        for limit in fields(WatchdogConfig):
            if not getattr(self.watchdog, limit.name) >= 0:
                yield f"srpo.watchdog.{limit.name}={getattr(self.watchdog, limit.name)} must not be negative"
        if self.score_range is not None and not (len(self.score_range) == 2 and least < greatest):
            yield f"srpo.score_range={self.score_range} must be [least, greatest], or null for any finite score"
        if self.advantage_mix > 0 and self.route == "none":
            yield "srpo.advantage_mix > 0 needs a teacher: srpo.route must not be none"
        if self.advantage_mix > 0 and self.policy_gradient != "all":
            yield "srpo.advantage_mix > 0 acts through the policy gradient: set srpo.policy_gradient=all"
        if self.route == "none" and self.policy_gradient == "none":
            yield "srpo.route=none with srpo.policy_gradient=none trains nothing: choose at least one of them"
        if self.modulator is not None and self.policy_gradient == "none":
            yield "srpo.modulator acts through the policy gradient: set srpo.policy_gradient=all or unrouted"
        if self.modulator is not None and self.asked == "none" and self.route == "none":
            yield "srpo.modulator needs a teacher: name in srpo.asked the rollouts that it is asked about, e.g. all"
        if self.modulator is not None and self.advantage_mix > 0:
            yield "srpo.modulator and srpo.advantage_mix > 0 both act on the advantages: choose one of them"
        if self.contrast is not None and self.modulator is None:
            yield "srpo.contrast is for a modulator: name one in srpo.modulator"
        if self.entry_clip is not None and not self.entry_clip > 0:
            yield f"srpo.entry_clip={self.entry_clip} must be positive, or null for no limit"
        if not math.isfinite(self.distillation.coefficient):
            yield f"srpo.distillation.coefficient={self.distillation.coefficient} must be a number"
        for key in ("warmup_steps", "decay_start", "decay_steps"):
            if getattr(self.distillation, key) < 0:
                yield f"srpo.distillation.{key}={getattr(self.distillation, key)} must not be negative"
        if len(set(self.states)) != len(self.states):
            yield f"srpo.states={self.states} must name none twice"
        for variant in self.named_variants():
            if missing := sorted(set(variant.states) - set(self.states)):
                yield f"{variant} reads what the run keeps: add {', '.join(missing)} to srpo.states"
        if self.modulator == "contrast" and self.contrast is None:
            yield "srpo.modulator=contrast changes nothing without a contrast: set srpo.contrast=wrong_siblings"
        whole = self.route in ("incorrect", "correct", "all") and self.policy_gradient == "unrouted"
        if self.modulator is not None and whole and self.asked in ("none", self.route):
            yield (
                "srpo.modulator sees no token: whoever the teacher is asked about is distilled whole; name others in "
                "srpo.asked, e.g. all"
            )

    @property
    def distils(self) -> bool:
        """Whether any rollout can need the teacher."""
        return self.route != "none" or self.asked != "none"

    @property
    def logit_loss(self) -> bool:
        """Whether distilled rollouts enter through a loss on the student's logits."""
        return self.route != "none" and self.advantage_mix == 0

    def coefficient(self, step: int) -> float:
        """What the divergence is multiplied by in a step, which counts from 1."""
        of = self.distillation
        along = trapezoid(step, warmup_steps=of.warmup_steps, decay_start=of.decay_start, decay_steps=of.decay_steps)
        return of.coefficient * along

    @property
    def own_log_probs(self) -> bool:
        """Whether log-probs and entropy of the policy come from our functions in every pass, instead of verl's."""
        return self.logit_loss and (self.one_pass or self.fused_linear)

    @property
    def owns_teacher(self) -> bool:
        """Whether a second set of weights is kept beside the actor's."""
        return self.distils and self.variant("teacher").own_weights

    @property
    def moves_teacher(self) -> bool:
        """Whether those weights follow the actor, and so are state of the run."""
        return self.owns_teacher and self.variant("teacher").function is not None


def settings(node: DictConfig | dict[str, Any]) -> SRPOConfig:
    """`SRPOConfig` from a config node. Raises ValueError in a sentence for unknown keys, types and ranges."""
    try:
        merged = OmegaConf.merge(OmegaConf.structured(SRPOConfig), OmegaConf.to_container(_as_node(node), resolve=True))
        return OmegaConf.to_object(merged)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        beside = list(error.parent_node) if isinstance(error.parent_node, DictConfig) else []
        close = get_close_matches(str(error.key), beside, n=1) if isinstance(error, ConfigKeyError) else []
        meant = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"srpo: {str(error).splitlines()[0]}{meant}") from error


def _as_node(node: DictConfig | dict[str, Any]) -> DictConfig:
    return node if isinstance(node, DictConfig) else OmegaConf.create(node)
