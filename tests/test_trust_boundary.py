"""What SECURITY.md promises: no code of others is run, no bytes of others are unpickled, no secret is written down."""

import ast
from pathlib import Path

import pytest
from omegaconf import OmegaConf, open_dict

from srpo_verl.launch.preflight import secrets
from tests.compose import compose

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("srpo_verl", "workflows", "reward_fns", "hydra_plugins", "laboratory", "examples", "benchmarks")
# The program that runs a candidate solution: inside the sandbox, in a process that is thrown away.
SANDBOXED = {("reward_fns/sandbox/runner.py", name) for name in ("exec", "compile")}
FORBIDDEN = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "yaml.full_load",
    "joblib.load", "numpy.load", "np.load",
    *(f"{module}.{name}" for module in ("pickle", "cloudpickle", "dill", "marshal") for name in ("load", "loads")),
    "pickle.Unpickler", "shelve.open",
}  # fmt: skip


def unsafe_calls(source: str) -> list[str]:
    """Names of calls that run or unpickle what they are given."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if name in FORBIDDEN:
            found.append(name)
        if name == "torch.load" and keywords.get("weights_only") != "True":
            found.append("torch.load without weights_only=True")
        if keywords.get("shell", "False") != "False":
            found.append(f"{name} with a shell")
        if keywords.get("trust_remote_code", "False") == "True":
            found.append(f"{name} with trust_remote_code")
    return found


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("eval(text)", 1),
        ("model.eval()", 0),
        ("re.compile('x')", 0),
        ("import pickle; pickle.loads(data)", 1),
        ("torch.load(path)", 1),
        ("torch.load(path, weights_only=False)", 1),
        ("torch.load(path, weights_only=True)", 0),
        ("subprocess.run(line, shell=True)", 1),
        ("AutoModel.from_pretrained(name, trust_remote_code=True)", 1),
    ],
)
def test_the_check_itself(line, count):
    assert len(unsafe_calls(line)) == count


def test_nothing_of_ours_evaluates_or_unpickles_what_it_is_given():
    found = {
        (str(path.relative_to(REPOSITORY)), name)
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("*.py")
        for name in unsafe_calls(path.read_text())
    }
    assert found <= SANDBOXED
    assert found >= SANDBOXED, "the list of exceptions is out of date"


SMOLLM2 = str(REPOSITORY / "examples" / "smollm2" / "srpo_smollm2.yaml")


@pytest.mark.parametrize("name", ["srpo", "grpo", "sdpo", "srpo_tiny", "srpo_lora", "advantage_mix", SMOLLM2])
def test_no_config_trusts_the_code_of_a_model(name):
    config = OmegaConf.to_container(compose(name, resolve=False))
    found = []

    def walk(node, path):
        for key, value in node.items():
            if key == "trust_remote_code":
                found.append((path, value))
            if isinstance(value, dict):
                walk(value, f"{path}.{key}")

    walk(config, name)
    assert len(found) >= 3
    assert all(value in (None, False) or str(value).startswith("${") for _, value in found), found


@pytest.mark.parametrize(
    ("key", "refused"),
    [
        ("trainer.wandb_api_key", True),
        ("ray_kwargs.ray_init.runtime_env.env_vars.WANDB_API_KEY", True),
        ("ray_kwargs.ray_init.runtime_env.env_vars.HF_TOKEN", True),
        ("actor_rollout_ref.model.auth_token", True),
        ("reward.password", True),
        ("actor_rollout_ref.model.eos_token", False),
        ("data.max_tokens", False),
    ],
)
@pytest.mark.parametrize("value", ["abc123", "${oc.env:HOME}"])
def test_a_secret_in_the_config_is_refused_because_verl_prints_the_config(key, value, refused):
    config = compose("srpo", resolve=False)
    assert secrets(config) == []
    with open_dict(config):
        OmegaConf.update(config, key, value, force_add=True)
    found = secrets(config)
    assert bool(found) == refused
    assert all(key in line and "abc123" not in line for line in found)
