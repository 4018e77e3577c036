"""The list of methods is that of the shipped configs."""

import pytest

from srpo_verl.config import METHODS, method_settings, settings
from tests.compose import compose


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_settings_are_those_of_its_config(name):
    assert settings(method_settings(name)) == settings(compose(name).srpo)
    assert compose(name).trainer.experiment_name == name


def test_an_unknown_method():
    with pytest.raises(ValueError, match=r"unknown method 'spro': choose one of grpo, sdpo, srpo"):
        method_settings("spro")
