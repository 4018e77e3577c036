"""Lets Hydra find `--config-name srpo` and its relatives from any directory."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from srpo_verl.config.schema import SRPOConfig


class SRPOSearchPath(SearchPathPlugin):
    """Appends `srpo_verl/config` to the search path and stores the typed defaults of `srpo.*`."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        node = OmegaConf.structured(SRPOConfig)
        for free in (node.options, node.teacher.sections):  # keys of variants, without a "+" before them
            OmegaConf.set_struct(free, False)
        ConfigStore.instance().store(name="srpo_schema", node=node, provider="srpo_verl")
        search_path.append(provider="srpo_verl", path="pkg://srpo_verl.config")
