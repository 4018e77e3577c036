"""The typed `srpo.*` settings, the checks made before anything starts, and one small YAML per method."""

from srpo_verl.config.methods import FAMILY, METHODS, method_settings
from srpo_verl.config.schema import SRPOConfig, TeacherConfig, WatchdogConfig, settings

__all__ = [
    "FAMILY",
    "METHODS",
    "SRPOConfig",
    "TeacherConfig",
    "WatchdogConfig",
    "method_settings",
    "settings",
]
