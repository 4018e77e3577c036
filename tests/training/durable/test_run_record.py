"""The run's folder says what the run was, without its secrets."""

import json
from pathlib import Path

import yaml
from omegaconf import OmegaConf, open_dict

from srpo_verl.training.durable.run_record import write_run_record
from tests.compose import compose


def test_record(tmp_path, monkeypatch):
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", "")
    monkeypatch.setenv("TENSORBOARD_DIR", "")
    config = compose("srpo", ["srpo.topk=20", f"trainer.default_local_dir={tmp_path}"], resolve=False)
    with open_dict(config):
        config.trainer.wandb_api_key = "abc123"
        OmegaConf.resolve(config)
    folder = write_run_record(config)
    record = json.loads(Path(folder, "run.json").read_text())
    assert record["differs_from_table_3"] == {"srpo.topk": [100, 20]}
    assert record["versions"]["verl"] == "0.9.1"
    assert record["seeds"] == {"data.seed": 1, "actor_rollout_ref.rollout.seed": 42}
    written = Path(folder, "config.yaml").read_text()
    assert "abc123" not in written
    assert yaml.safe_load(written)["actor_rollout_ref"]["srpo"]["topk"] == 20
