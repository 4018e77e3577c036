"""Accesses to verl's workers that no override is."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from srpo_verl.verl_names.worker import loss_function, set_fields


def test_a_loss_function_is_lent_and_given_back():
    worker = SimpleNamespace(loss_fn="verl's")
    with loss_function(worker, len):
        assert worker.loss_fn is len
    with pytest.raises(ZeroDivisionError), loss_function(worker, len):
        _ = 1 / 0
    assert worker.loss_fn == "verl's"


def test_a_frozen_config_is_changed_in_fields_that_it_has():
    @dataclass(frozen=True)
    class Config:
        forward_only: bool = False

    assert set_fields(Config(), forward_only=True) == Config(forward_only=True)
    with pytest.raises(AttributeError, match="model_dtype"):
        set_fields(Config(), model_dtype="fp32")
