"""A config composed as `python -m verl.trainer.main_ppo --config-name NAME` would, without starting anything."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from hydra import compose, initialize_config_dir, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from workflows.unknown_key import sentence, unknown_key

VERL_CONFIGS = "verl.trainer.config"
# Hydra has one state for the whole process.
_COMPOSING = threading.Lock()


class ConfigError(ValueError):
    """A config that cannot be composed; the message says what to change."""


def config_names() -> list[str]:
    """The names of our configs."""
    folder = resources.files("srpo_verl.config")
    return sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def compose_config(name: str, overrides: Sequence[str] = (), *, resolve: bool = True) -> DictConfig:
    """The config `name` with Hydra overrides as a person types them.

    Args:
        name: of a config in srpo_verl/config or verl/trainer/config, with or without `.yaml`; or the path of one's own
            YAML file, with a `/` in it.
        overrides: e.g. `["platform=cpu", "data.train_batch_size=8"]`.
        resolve: replace interpolations by their values; otherwise they stay as `${...}`.

    Raises:
        ConfigError: no such config, an override that does not parse or names an unknown key, or an interpolation
            without a value.
    """
    given, (folder, name) = name, config_place(name)
    place = initialize_config_dir if folder else initialize_config_module
    # A folder of one's own stands where verl's configs are otherwise: these are looked for behind it.
    search = [f"hydra.searchpath=[pkg://{VERL_CONFIGS}]"] if folder else []
    try:
        with _COMPOSING, place(folder or VERL_CONFIGS, version_base=None):
            config = _composed(name, search, overrides)
        if resolve:
            OmegaConf.resolve(config)
    except MissingConfigException as error:
        if error.missing_cfg_file and error.missing_cfg_file.removesuffix(".yaml") == name:
            raise ConfigError(f"there is no config {given!r}; the configs are: {', '.join(config_names())}") from error
        raise ConfigError(str(error)) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_sentence(error)) from error
    return config


def _composed(name: str, search: Sequence[str], overrides: Sequence[str]) -> DictConfig:
    """Hydra's compose; for a key that does not exist, the error says which one does. Within Hydra's context."""
    try:
        return compose(name, overrides=[*search, *overrides])
    except HydraException as error:
        said = str(error)
        if (key := unknown_key(said)) is None:
            raise
        # A file of one's own may itself have the key.
        file = said.startswith("In '")
        known = compose("srpo" if file else name, overrides=[*search], return_hydra_config=True)
        groups = GlobalHydra.instance().config_loader().list_groups("")
        raise ConfigError(sentence(said, key, known, groups)) from error


def config_place(name: str) -> tuple[str, str]:
    """The absolute folder of a config that is named by its path, "" for one of ours or verl's; and its bare name."""
    path = Path(name.removesuffix(".yaml"))
    return (str(path.parent.resolve()) if "/" in name else "", path.name)


def _sentence(error: Exception) -> str:
    """Hydra's message and that of the error behind it, which often holds the key."""
    cause = f" ({error.__cause__})" if error.__cause__ else ""
    return f"the config cannot be composed: {error}{cause}"
