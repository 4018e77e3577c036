"""The `srpo.*` keys. The defaults are the paper's algorithm (arXiv 2604.02288, sections 3.1-3.3 and Table 3).

GRPO, SDPO, the ablations and the diagnosis runs are settings of the same code: which rollouts are distilled (`route`),
which keep the policy gradient (`policy_gradient`), how the distilled tokens are weighted (`beta`), and whether the
teacher enters as a loss on logits or as an advantage (`advantage_mix`). Some keys name variants: `srpo_verl.variants`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from srpo_verl import variants
from srpo_verl.config.safety import CheckpointConfig, GuardsConfig
from srpo_verl.core import TEMPLATE

POLICY_GRADIENT = ("unrouted", "all", "none")
SUPPORTS = ("student", "teacher")


@dataclass
class TeacherConfig:
    """Who the teacher is and what its prompt looks like."""

    # ema: follows the actor, once per training step. frozen: the initial weights. live: the actor itself.
    # trust_region: logits between the initial weights and the actor. Or a registered one.
    kind: str = "ema"
    # Hugging Face folder or name that the teacher's weights start from, of the actor's architecture. null: the actor's.
    path: str | None = None
    # teacher <- (1 - ema_rate) teacher + ema_rate actor
    ema_rate: float = 0.05
    # trust_region: (1 - mix) * initial logits + mix * actor logits
    trust_region_mix: float = 0.5
    # Tokens of question + demonstration + template. null: prompt + response + 512, as in the paper's 18944.
    max_prompt_length: int | None = None
    # Token budget of one micro-batch of the teacher's forward pass. null: the actor's log-prob budget.
    max_token_len_per_gpu: int | None = None
    # Drop <think>...</think> from the demonstration.
    remove_thinking: bool = True
    # The last user message that the teacher sees: {prompt} is the question, {information} what it is shown.
    template: str = TEMPLATE
    # By provider: how its {text} stands in there, instead of the provider's own section.
    sections: dict[str, str] = field(default_factory=dict)
    # Takes the place of the system message in the teacher's prompt. null: the student's stays.
    system_prompt: str | None = None


@dataclass
class WatchdogConfig:
    """Seconds after which a wait ends the run, with a report. 0: no limit."""

    # Seconds between two looks. 0: no watchdog.
    interval: float = 5.0
    # Loading model and engines.
    startup: float = 3600.0
    # All rollouts of a batch, with their verdicts.
    gen: float = 7200.0
    # One pass over the validation set.
    testing: float = 14400.0
    # Each of the stages that compute: log-probs, teacher, advantages, update.
    compute: float = 7200.0
    # The actor's weights on their way to the rollout engine.
    update_weights: float = 1800.0
    save_checkpoint: float = 3600.0
    # One verdict of the reward function: the rollout then counts as failed, the run goes on.
    reward: float = 600.0


@dataclass
class SRPOConfig:
    """Settings of the algorithm; see docs/configuration.md for one line each."""

    # Distilled: among rollouts with teacher information, the incorrect ones (SRPO), the correct ones, all, or none; or
    # a registered route.
    route: str = "incorrect"
    # Where teacher information comes from; a rollout takes the first that has something for it. sibling, feedback, or
    # registered providers.
    providers: list[str] = field(default_factory=lambda: ["sibling"])
    # Policy gradient on: rollouts that are not distilled (SRPO), all, or none.
    policy_gradient: str = "unrouted"
    # > 0: the teacher enters as an advantage, (1 - m) A_grpo + m (log q(y) - log p_old(y)), with no logit loss.
    advantage_mix: float = 0.0
    # A rollout is correct if its verdict (`acc`, else the score) is at least this.
    threshold: float = 0.5
    # Baseline of the policy gradient: group_mean, leave_one_out, or a registered one.
    advantage: str = "group_mean"
    # Between student and teacher, per token: jsd, or a registered one.
    divergence: str = "jsd"
    # Of jsd. 0.5: Jensen-Shannon. 0: KL(teacher || student). 1: KL(student || teacher). In between: generalised JSD.
    alpha: float = 0.5
    topk: int = 100
    # One bucket for the probability outside the top-K. Without it, mass escapes from the support.
    add_tail: bool = True
    # Whose top-K tokens the divergence is taken over.
    support: str = "student"
    # Weight of a distilled token before the mean is made 1: entropy, or a registered one.
    weighting: str = "entropy"
    # Of entropy: exp(-beta * teacher entropy). 0: all weights 1.
    beta: float = 1.0
    # pi / pi_old on distilled tokens is clamped at this; exactly 1 with one update per batch.
    ratio_clip: float = 2.0
    # The most rows of logits handled at once in the logit loss and in the teacher's targets.
    chunk_size: int = 256
    # Measure the gradient norm of each branch every so many steps (two more backward passes). 0: never.
    grad_norm_freq: int = 0
    # Measure every so many steps what the teacher makes of the siblings that it is shown (srpo/teacher_gain). 0: never.
    teacher_gain_freq: int = 10
    # Folder for the teacher prompts (JSON lines, one file per step). null: none.
    dump_dir: str | None = None
    dump_freq: int = 1
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
    guards: GuardsConfig = field(default_factory=GuardsConfig)
    watchdog: WatchdogConfig = field(default_factory=WatchdogConfig)

    def __post_init__(self) -> None:
        variants.import_modules(self.variant_modules)
        for problem in self._problems():
            raise ValueError(problem)
        self.options = variants.typed_options(self.named_variants(), self.options)

    def variant(self, kind: str) -> variants.Variant:
        """The one that is named; of the kinds route, advantage, divergence, weighting and teacher."""
        return variants.get(kind, self.teacher.kind if kind == "teacher" else getattr(self, kind))

    def named_variants(self) -> list[variants.Variant]:
        """All that are used. Raises VariantError (a ValueError) for a name that is not registered."""
        return [
            *map(self.variant, ("route", "advantage", "divergence", "weighting", "teacher")),
            *(variants.get("provider", name) for name in self.providers),
            *(variants.get("metric", name) for name in self.metrics),
        ]

    def sections(self) -> dict[str, str]:
        """By provider: how its text stands in the teacher's prompt."""
        own = {name: variants.get("provider", name).section for name in self.providers}
        return {**own, **self.teacher.sections}

    def _problems(self):
        for key, allowed in (("policy_gradient", POLICY_GRADIENT), ("support", SUPPORTS)):
            if getattr(self, key) not in allowed:
                yield f"srpo.{key}={getattr(self, key)!r} is not one of {', '.join(allowed)}"
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
        if self.teacher.path is not None and not self.owns_teacher:
            yield f"srpo.teacher.path: srpo.teacher.kind={self.teacher.kind} has no weights of its own; leave it null"
        if not self.providers or len(set(self.providers)) != len(self.providers):
            yield f"srpo.providers={self.providers} must name at least one provider, and none twice"
        for key, value, low, high in (
            ("threshold", self.threshold, 0.0, 1.0),
            ("alpha", self.alpha, 0.0, 1.0),
            ("advantage_mix", self.advantage_mix, 0.0, 1.0),
            ("teacher.ema_rate", self.teacher.ema_rate, 0.0, 1.0),
            ("teacher.trust_region_mix", self.teacher.trust_region_mix, 0.0, 1.0),
        ):
            if not low <= value <= high:
                yield f"srpo.{key}={value} must be between {low:g} and {high:g}"
        for key, value in (("topk", self.topk), ("chunk_size", self.chunk_size), ("dump_freq", self.dump_freq)):
            if value < 1:
                yield f"srpo.{key}={value} must be at least 1"
        frequencies = [(key, getattr(self, key)) for key in ("grad_norm_freq", "teacher_gain_freq")]
        for key, value in (("beta", self.beta), *frequencies):
            if not value >= 0:
                yield f"srpo.{key}={value} must not be negative"
        for key, value in vars(self.guards).items():
            if value < (1 if key == "window" else 0):
                yield f"srpo.guards.{key}={value} must not be negative (0 switches it off)"
        if self.checkpoint.max_failures < 1:
            yield f"srpo.checkpoint.max_failures={self.checkpoint.max_failures} must be at least 1"
        for key, value in (("ratio_clip", self.ratio_clip), ("poll_interval", self.poll_interval)):
            if not value > 0:
                yield f"srpo.{key}={value} must be positive"
        for limit in fields(WatchdogConfig):
            if not getattr(self.watchdog, limit.name) >= 0:
                yield f"srpo.watchdog.{limit.name}={getattr(self.watchdog, limit.name)} must not be negative"
        if self.score_range is not None and sorted(set(self.score_range))[:2] != list(self.score_range):
            yield f"srpo.score_range={self.score_range} must be [least, greatest], or null for any finite score"
        if self.advantage_mix > 0 and not self.distils:
            yield "srpo.advantage_mix > 0 needs a teacher: srpo.route must not be none"
        if self.advantage_mix > 0 and self.policy_gradient != "all":
            yield "srpo.advantage_mix > 0 acts through the policy gradient: set srpo.policy_gradient=all"
        if not self.distils and self.policy_gradient == "none":
            yield "srpo.route=none with srpo.policy_gradient=none trains nothing: choose at least one of them"

    @property
    def distils(self) -> bool:
        """Whether any rollout can need the teacher."""
        return self.route != "none"

    @property
    def logit_loss(self) -> bool:
        """Whether distilled rollouts enter through a loss on the student's logits."""
        return self.distils and self.advantage_mix == 0

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
        raise ValueError(f"srpo: {str(error).splitlines()[0]}") from error


def _as_node(node: DictConfig | dict[str, Any]) -> DictConfig:
    return node if isinstance(node, DictConfig) else OmegaConf.create(node)
