"""The door: parts of the algorithm under a name, ours and yours alike. docs/variants.md shows how to write one.

    from srpo_verl import register

    @register.divergence("total_variation")
    def total_variation(student, teacher, srpo):
        return 0.5 * (student.exp() - teacher.exp()).abs().sum(-1)

A config names what is used (`srpo.divergence: total_variation`). A module that registers variants is found through the
entry-point group `srpo_verl.variants` of an installed package, or through `srpo.variant_modules: [my_module]`; it is
imported in every process that reads the settings. Each function gets its tensors and, last, the whole `srpo` settings,
whose node `options` is free: `srpo.options["<name of the variant>"]` is a dict, or the dataclass given with `options=`.

No torch and no verl in here: every process imports this module with the package.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, TypeVar

from omegaconf import OmegaConf

from srpo_verl.base.imports import how_to_find
from srpo_verl.base.versions import sources_digest

GROUP = "srpo_verl.variants"
BUILT_IN = ("srpo_verl.built_in", "srpo_verl.built_in_family")
# What a provider names among its columns to see a rollout's turns, as JSON; no column of the data set.
ROLLOUT_TURNS = "srpo_turns"
F = TypeVar("F")

# Kind of a variant: the key of the settings that names it.
KEYS = {
    "route": "srpo.route",
    "provider": "srpo.providers",
    "divergence": "srpo.divergence",
    "weighting": "srpo.weighting",
    "question_weight": "srpo.question_weight",
    "modulator": "srpo.modulator",
    "state": "srpo.states",
    "advantage": "srpo.advantage",
    "teacher": "srpo.teacher.kind",
    "metric": "srpo.metrics",
    "trainer": "trainer.v1.trainer_mode",
}


class VariantError(ValueError):
    """A variant that is missing, was registered twice, or broke its contract; the message names it."""


@dataclass(frozen=True)
class Variant:
    """A registered function.

    Attributes:
        module: the one that registered it.
        place: `module:name` of the function itself, `none` for a teacher without one.
        options: the dataclass of its own settings.
        columns, section: of a provider. responses: of a provider or a state. own_weights, mix_logits: of a teacher.
        states: what it reads of `rollouts.states`.
    """

    kind: str
    name: str
    function: Any
    module: str
    place: str
    options: type | None = None
    columns: tuple[str, ...] | Callable[[Any], Iterable[str]] = ()
    section: str = ""
    responses: bool = False
    states: tuple[str, ...] = ()
    own_weights: bool = True
    mix_logits: Callable[..., Any] | None = None

    @property
    def built_in(self) -> bool:
        return self.module in BUILT_IN

    @property
    def origin(self) -> str:
        """The place, the package and version that it is of, and a hash of the sources beside the module."""
        if self.built_in:
            return self.place
        package = _packages().get(self.module.partition(".")[0])
        return ", ".join([self.place, *([package] if package else []), f"sha256 {_digest(self.module)}"])

    def columns_of(self, srpo: Any) -> tuple[str, ...]:
        """The columns of the data set that a provider reads with these settings."""
        return tuple(self.columns(srpo) if callable(self.columns) else self.columns)

    def __str__(self) -> str:
        return f"{KEYS[self.kind]}={self.name} ({self.origin})"

    def __call__(self, *args: Any) -> Any:
        return self.named(self.function, *args)

    def named(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call a function of the variant's. What one that is not ours raises becomes a VariantError with its name."""
        if self.built_in:
            return function(*args, **options)
        try:
            return function(*args, **options)
        except Exception as error:
            if isinstance(error, VariantError) or type(error).__name__ == "OutOfMemoryError":
                raise
            raise VariantError(f"{self} failed: {type(error).__name__}: {error}") from error


_variants: dict[tuple[str, str], Variant] = {}
# Why an installed package of variants could not be imported; it stops only the runs that name a variant of it.
_failures: list[str] = []


class _Register:
    """`register`: one decorator for each kind. The contracts are in docs/variants.md and beside our own variants."""

    def route(self, name: str, *, states: Iterable[str] = (), options: type | None = None) -> Callable[[F], F]:
        """`(rollouts: core.Rollouts, available: bool (N,), srpo) -> (N,)`, bool or in [0, 1]: who is distilled.

        Args:
            states: those that it reads; a run without one of them is refused. As of the other kinds.
        """
        return _adder("route", name, options=options, states=tuple(states))

    def provider(
        self,
        name: str,
        *,
        columns: Iterable[str] | Callable[[Any], Iterable[str]] = (),
        section: str = "\n{text}",
        responses: bool = False,
        states: Iterable[str] = (),
        options: type | None = None,
    ) -> Callable[[F], F]:
        """`(rollouts: core.Rollouts, srpo)` -> N texts or None, or int64 (N,) with the sibling to show, -1 for none.

        For `srpo.contrast`: int64 (N, M), the siblings of M passes.

        Args:
            columns: of the data set, to be found in `rollouts.columns`; or a function of `srpo` that gives them. Of
                `column.key` the column is there, and a data set without the key in it is refused.
                `srpo_turns` is there too, the rollout's turns.
            section: how the text stands in the teacher's prompt, `{text}` once; `srpo.teacher.sections` overrides it.
            responses: whether it reads `rollouts.responses`, which have to be decoded.
        """
        if section.count("{text}") != 1:
            raise VariantError(f"the section of provider {name!r} must hold {{text}} once, not {section!r}")
        columns = columns if callable(columns) else tuple(columns)
        properties = {"columns": columns, "section": section, "responses": responses, "states": tuple(states)}
        return _adder("provider", name, options=options, **properties)

    def divergence(self, name: str, *, options: type | None = None) -> Callable[[F], F]:
        """`(student (R, K+1), teacher (R, K+1), srpo) -> (R,)`, of log-probs that sum to 1; K without a tail bucket."""
        return _adder("divergence", name, options=options)

    def weighting(self, name: str, *, options: type | None = None) -> Callable[[F], F]:
        """`(tokens: core.TokenSignals, srpo) -> (T,)`, not negative; masking and the mean of 1 are ours."""
        return _adder("weighting", name, options=options)

    def question_weight(
        self, name: str, *, states: Iterable[str] = (), options: type | None = None
    ) -> Callable[[F], F]:
        """`(rollouts: core.Rollouts, share (N,), srpo) -> (N,)`, not negative: a factor on the divergence of each."""
        return _adder("question_weight", name, options=options, states=tuple(states))

    def modulator(self, name: str, *, states: Iterable[str] = (), options: type | None = None) -> Callable[[F], F]:
        """`(tokens: core.AdvantageTokens, srpo) -> (T,)`: advantages per token, from what teacher and student say."""
        return _adder("modulator", name, options=options, states=tuple(states))

    def state(self, name: str, *, responses: bool = False, options: type | None = None) -> Callable[[F], F]:
        """`(state, rollouts: core.Rollouts, srpo) -> state`: what the run keeps from step to step, a dict of JSON.

        `{}` at first; every route, provider, question weight and modulator finds it in `rollouts.states[name]`.

        Args:
            responses: whether it reads `rollouts.responses`, which have to be decoded.
        """
        return _adder("state", name, options=options, responses=responses)

    def advantage(self, name: str, *, options: type | None = None) -> Callable[[F], F]:
        """`(rewards: core.GroupRewards, srpo) -> (N,)` of the policy-gradient branch."""
        return _adder("advantage", name, options=options)

    def teacher(
        self,
        name: str,
        *,
        own_weights: bool = True,
        mix_logits: Callable[..., Any] | None = None,
        options: type | None = None,
    ) -> Callable[[F], F]:
        """`(teacher, actor, step: int, srpo) -> None`, in place on a shard of each parameter after each step.

        `None` instead of a function: the weights never move.

        Args:
            own_weights: False for a teacher that is the actor itself.
            mix_logits: `(teacher (R, V), student (R, V), srpo) -> (R, V)`, what the teacher says instead of its logits.
        """
        return _adder("teacher", name, options=options, own_weights=own_weights, mix_logits=mix_logits)

    def metric(self, name: str, *, options: type | None = None) -> Callable[[F], F]:
        """`(step: StepView, srpo) -> {key: number}`, logged as `srpo/metric/<name>/<key>`."""
        return _adder("metric", name, options=options)

    def trainer(self, name: str, place: str) -> None:
        """A subclass of one of SRPO's trainers as mode `name`; `place` is "module:Class", imported when verl asks."""
        _adder("trainer", name)(place)


register = _Register()


def get(kind: str, name: str) -> Variant:
    """The variant of that name. Raises VariantError with the names there are."""
    _load()
    try:
        return _variants[kind, name]
    except KeyError:
        found = f"{KEYS[kind]}={name!r} is not one of {', '.join(names(kind))}"
        raise VariantError("; ".join([found, *_failures])) from None


def names(kind: str | None = None) -> list[str]:
    """Registered names, of one kind or of all, our own first."""
    _load()
    return [name for of, name in _variants if kind in (of, None)]


def failures() -> list[str]:
    """A sentence for each installed package whose variants could not be imported."""
    _load()
    return list(_failures)


def failed(sentence: str) -> None:
    """Add to `failures`."""
    _failures.append(sentence)


def import_modules(modules: Iterable[str]) -> None:
    """Import modules that register variants (`srpo.variant_modules`). Raises VariantError if one cannot be imported."""
    _load()
    for module in modules:
        _import(f"srpo.variant_modules={module}", module)


def typed_options(variants: Iterable[Variant], options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` with the node of each variant that has a dataclass turned into one.

    Raises:
        VariantError: a key that the dataclass lacks, or a value of another type.
    """
    typed = dict(options)
    for variant in variants:
        given = typed.get(variant.name, {})
        if variant.options is None or isinstance(given, variant.options):
            continue
        try:
            typed[variant.name] = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(variant.options), given))
        except Exception as error:
            known = ", ".join(entry.name for entry in dataclasses.fields(variant.options))
            raise VariantError(
                f"srpo.options.{variant.name}: {str(error).splitlines()[0]}; {variant} has the options {known}"
            ) from error
    return typed


def _adder(kind: str, name: str, **properties: Any) -> Callable[[F], F]:
    def add(function: F) -> F:
        module = function.partition(":")[0] if isinstance(function, str) else _caller()
        place = function if isinstance(function, str) else f"{module}:{getattr(function, '__qualname__', 'none')}"
        variant = Variant(kind, name, function, module, place, **properties)
        before = _variants.get((kind, name))
        if before is not None and _source(before) != _source(variant):
            raise VariantError(f"{variant} cannot be registered: there is {before} already; choose another name")
        others = [other for (of, called), other in _variants.items() if called == name and of != kind]
        if variant.options is not None and any(other.options is not None for other in others):
            raise VariantError(
                f"{variant} cannot be registered: {others[0]} has srpo.options.{name}; choose another name"
            )
        _variants[kind, name] = variant
        return function

    return add


def _caller() -> str:
    """The module that registers."""
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    return str(frame.f_globals.get("__name__"))


def _source(variant: Variant) -> tuple[Any, ...]:
    """What stays the same when a module is imported again."""
    code = getattr(variant.function, "__code__", None)
    return variant.place, *((code.co_filename, code.co_firstlineno) if code is not None else ())


@functools.cache
def _digest(module: str) -> str:
    """Of the Python files of the module's top-level package, or of its single file."""
    top = sys.modules.get(module.partition(".")[0])
    return sources_digest(getattr(top, "__file__", None), package=hasattr(top, "__path__"))


@functools.cache
def _load() -> None:
    """Import our own variants, then those of installed packages; once."""
    for module in BUILT_IN:
        importlib.import_module(module)
    for point, package in _entry_points():
        try:
            _import(f"the entry point {point.name} of {package} (group {GROUP})", point.module)
        except VariantError as error:
            _failures.append(str(error))


def _entry_points() -> Iterator[tuple[metadata.EntryPoint, str]]:
    for point in sorted(metadata.entry_points(group=GROUP), key=lambda point: point.value):
        yield point, f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"


@functools.cache
def _packages() -> dict[str, str]:
    """Top-level module of each entry point: package and version."""
    return {point.module.partition(".")[0]: package for point, package in _entry_points()}


def _import(what: str, module: str) -> None:
    try:
        importlib.import_module(module)
    except VariantError:
        raise
    except Exception as error:
        raise VariantError(
            f"{what}: importing {module} failed: {type(error).__name__}: {error}{how_to_find(module, error)}"
        ) from error
