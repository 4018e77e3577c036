"""One rule says what is a secret: the preflight refuses it, the run record masks it."""

import pytest
from omegaconf import OmegaConf

from srpo_verl.config.secrets import is_secret
from srpo_verl.launch.preflight import secrets
from srpo_verl.training.durable.run_record import write_run_record
from tests.compose import compose

SECRET = (
    "wandb_token", "github_token", "hf_token", "HF_TOKEN", "accessToken", "token", "api_key", "WANDB_API_KEY",
    "api_keys", "AWS_SECRET_ACCESS_KEY", "client_secret", "db_password", "passwd", "credentials",
)  # fmt: skip
HARMLESS = (
    "pad_token", "eos_token", "bos_token", "padToken", "image_token", "think_end_token", "max_token", "max_tokens",
    "num_tokens", "max_token_len_per_gpu", "skip_special_tokens", "tokenizer", "loss_agg_mode", "prompt_key", "keys",
)  # fmt: skip


@pytest.mark.parametrize(("names", "secret"), [(SECRET, True), (HARMLESS, False)])
def test_names(names, secret):
    assert [name for name in names if is_secret(name) != secret] == []
    assert [name for name in names if is_secret(f"trainer.wandb_token.{name}") != secret] == []
    assert [name for name in names if is_secret(f"trainer.{name}.0") != secret] == []


def test_preflight_and_run_record_agree(tmp_path, monkeypatch):
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", "")
    monkeypatch.setenv("TENSORBOARD_DIR", "")
    config = compose("srpo", [f"trainer.default_local_dir={tmp_path}"])
    for number, name in enumerate((*SECRET, *HARMLESS)):
        OmegaConf.update(config, f"trainer.{name}", f"text {number}", force_add=True)
    refused = {line.split()[0].removeprefix("trainer.") for line in secrets(config)}
    written = OmegaConf.load(f"{write_run_record(config)}/config.yaml").trainer
    masked = {name for name in (*SECRET, *HARMLESS) if written[name] == "***"}
    assert refused == masked == set(SECRET)


@pytest.mark.parametrize("name", ["srpo", "srpo_tiny", "srpo_lora", "sdpo"])
def test_no_setting_of_ours_or_of_verl_is_taken_for_a_secret(name):
    def keys(node, path=""):
        for key, value in node.items() if isinstance(node, dict) else ():
            yield f"{path}{key}"
            yield from keys(value, f"{path}{key}.")

    found = [key for key in keys(OmegaConf.to_container(compose(name))) if is_secret(key)]
    assert found == []
