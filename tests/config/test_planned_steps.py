"""Steps from total_training_steps, epochs and the rows that are trained on."""

import pandas as pd
import pytest

from srpo_verl.config.planned_steps import planned_steps
from tests.compose import compose

ROW = {
    "data_source": "mcq",
    "prompt": [{"role": "user", "content": "?"}],
    "reward_model": {"ground_truth": "A", "style": "rule"},
}
BAD = {**ROW, "prompt": [{"role": "user", "content": " "}]}
EPOCHS = ("trainer.total_training_steps=null", "trainer.total_epochs=3", "data.train_batch_size=8")


@pytest.fixture
def steps(tmp_path):
    pd.DataFrame([ROW] * 40).to_parquet(tmp_path / "good.parquet")
    pd.DataFrame([ROW] * 39 + [BAD] * 2).to_parquet(tmp_path / "bad.parquet")
    pd.DataFrame({"a": range(40)}).to_parquet(tmp_path / "other.parquet")

    def of(name, *changes, filtered=False):
        files = ",".join(f"{tmp_path}/{one}.parquet" for one in name.split())
        words = [f"data.train_files=[{files}]", f"data.filter_overlong_prompts={str(filtered).lower()}"]
        return planned_steps(compose("srpo", [*words, *EPOCHS, *changes]))

    return of


def test_rows_that_are_left_out_do_not_count(steps):
    assert steps("good") == 15
    assert steps("bad") == 12  # 39 of 41 rows: four batches, not five
    assert steps("good bad") == 27


def test_the_run_ends_at_the_earlier_of_steps_and_epochs(steps):
    assert steps("good", "trainer.total_training_steps=10") == 10
    assert steps("good", "trainer.total_training_steps=100") == 15


def test_what_is_not_known_is_not_guessed(steps):
    for unknown in (
        lambda *more: steps("good", *more, filtered=True),
        lambda *more: steps("missing", *more),
        lambda *more: steps("other", *more),
        lambda *more: steps("good", "data.custom_cls.name=Mine", *more),
        lambda *more: steps("bad", "data.train_max_samples=16", *more),
    ):
        assert unknown() is None
        assert unknown("trainer.total_training_steps=10") == 10
    assert steps("good", "data.train_max_samples=16") == 6
