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
import hashlib
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

GROUP = "srpo_verl.variants"
BUILT_IN = "srpo_verl.built_in"
F = TypeVar("F")

# Kind of a variant: the key of the settings that names it.
KEYS = {
    "route": "srpo.route",
    "provider": "srpo.providers",
    "divergence": "srpo.divergence",
    "weighting": "srpo.weighting",
    "advantage": "srpo.advantage",
    "teacher": "srpo.teacher.kind",
    "metric": "srpo.metrics",
    "trainer": "trainer.v1.trainer_mode",
}


class VariantError(ValueError):
    """A variant that is missing, was registered twice, or broke its contract; the message names it."""


@dataclass(frozen=True)
class Variant:
    """A registered function. `place` is its `module:name`; `options` is the dataclass of its own settings."""

    kind: str
    name: str
    function: Any
    place: str
    options: type | None = None
    # What only some kinds have: `columns` and `section` of a provider, `own_weights` and `mix_logits` of a teacher.
    columns: tuple[str, ...] = ()
    section: str = ""
    own_weights: bool = True
    mix_logits: Callable[..., Any] | None = None

    @property
    def module(self) -> str:
        return self.place.partition(":")[0]

    @property
    def built_in(self) -> bool:
        return self.module == BUILT_IN

    @property
    def origin(self) -> str:
        """The place, and the package and version that it is of, or a hash of the module's file."""
        if self.built_in:
            return self.place
        if package := _packages().get(self.module.partition(".")[0]):
            return f"{self.place}, {package}"
        file = getattr(sys.modules.get(self.module), "__file__", None)
        content = Path(file).read_bytes() if file and Path(file).is_file() else b""
        return f"{self.place}, sha256 {hashlib.sha256(content).hexdigest()[:12]}"

    def __str__(self) -> str:
        return f"{KEYS[self.kind]}={self.name} ({self.origin})"

    def __call__(self, *args: Any) -> Any:
        """Call the function; what one that is not ours raises is raised as VariantError with its name."""
        if self.built_in:
            return self.function(*args)
        try:
            return self.function(*args)
        except Exception as error:
            raise VariantError(f"{self} failed: {type(error).__name__}: {error}") from error


_variants: dict[tuple[str, str], Variant] = {}


class _Register:
    """`register`: one decorator for each kind. The contracts are in docs/variants.md and beside our own variants."""

    def route(self, name: str, *, options: type | None = None) -> Callable[[F], F]:
        """`(rollouts: core.Rollouts, available: bool (N,), srpo) -> (N,)`, bool or in [0, 1]: who is distilled."""
        return _adder("route", name, options=options)

    def provider(
        self, name: str, *, columns: Iterable[str] = (), section: str = "\n{text}", options: type | None = None
    ) -> Callable[[F], F]:
        """`(rollouts: core.Rollouts, srpo)` -> N texts or None, or int64 (N,) with the sibling to show, -1 for none.

        Args:
            columns: of the data set, to be found in `rollouts.columns`.
            section: how the text stands in the teacher's prompt, `{text}` once; `srpo.teacher.sections` overrides it.
        """
        if section.count("{text}") != 1:
            raise VariantError(f"the section of provider {name!r} must hold {{text}} once, not {section!r}")
        return _adder("provider", name, options=options, columns=tuple(columns), section=section)

    def divergence(self, name: str, *, options: type | None = None) -> Callable[[F], F]:
        """`(student (R, K+1), teacher (R, K+1), srpo) -> (R,)`, of log-probs that sum to 1; K without a tail bucket."""
        return _adder("divergence", name, options=options)

    def weighting(self, name: str, *, options: type | None = None) -> Callable[[F], F]:
        """`(tokens: core.TokenSignals, srpo) -> (T,)`, not negative; masking and the mean of 1 are ours."""
        return _adder("weighting", name, options=options)

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
        """`(step: StepView, srpo) -> {key: number}`, logged as `srpo/<name>/<key>`."""
        return _adder("metric", name, options=options)

    def trainer(self, name: str, place: str) -> None:
        """A subclass of `SRPOTrainer` as trainer mode `name`; `place` is "module:Class", imported when verl asks."""
        _adder("trainer", name)(place)


register = _Register()


def get(kind: str, name: str) -> Variant:
    """The variant of that name. Raises VariantError with the names there are."""
    _load()
    try:
        return _variants[kind, name]
    except KeyError:
        raise VariantError(f"{KEYS[kind]}={name!r} is not one of {', '.join(names(kind))}") from None


def names(kind: str) -> list[str]:
    """Registered names, our own first."""
    _load()
    return [name for of, name in _variants if of == kind]


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
        except (OmegaConfBaseException, ValueError) as error:
            known = ", ".join(entry.name for entry in dataclasses.fields(variant.options))
            raise VariantError(
                f"srpo.options.{variant.name}: {str(error).splitlines()[0]}; {variant} has the options {known}"
            ) from error
    return typed


def _adder(kind: str, name: str, **properties: Any) -> Callable[[F], F]:
    def add(function: F) -> F:
        variant = Variant(kind, name, function, _place(function), **properties)
        before = _variants.get((kind, name))
        if before is not None and before.place != variant.place:
            raise VariantError(f"{variant} cannot be registered: there is {before} already; choose another name")
        _variants[kind, name] = variant
        return function

    return add


def _place(function: Any) -> str:
    """`module:name`; of a teacher without a function the module that registers it."""
    if isinstance(function, str):
        return function
    if function is not None:
        return f"{function.__module__}:{function.__qualname__}"
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    return f"{frame.f_globals.get('__name__')}:none"


@functools.cache
def _load() -> None:
    """Import our own variants, then those of installed packages; once, unless it fails."""
    importlib.import_module(BUILT_IN)
    for point, package in _entry_points():
        _import(f"the entry point {point.name} of {package} (group {GROUP})", point.module)


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
        raise VariantError(f"{what}: importing {module} failed: {type(error).__name__}: {error}") from error
