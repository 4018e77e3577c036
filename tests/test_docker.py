"""The images without building them: what they copy is there, and what they name is what is locked."""

import re
import subprocess

import pytest

from tests.requirements_module import ROOT, load

FILES = ["Dockerfile", "Dockerfile.cpu"]


def instructions(name):
    """(keyword, rest) of a Dockerfile, continued lines joined."""
    text = re.sub(r"\\\n", " ", (ROOT / name).read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


@pytest.mark.parametrize("name", FILES)
def test_what_is_copied_is_there_and_not_ignored(name):
    ignored = (ROOT / ".dockerignore").read_text().split()
    sources = [path for key, rest in instructions(name) if key == "COPY" for path in rest.split()[:-1]]
    assert {"pyproject.toml", "requirements", "srpo_verl", "workflows", "reward_fns", "hydra_plugins"} <= set(sources)
    for path in sources:
        assert (ROOT / path).exists(), path
        assert path not in ignored
    assert instructions(name)[0][0] == "FROM"
    assert ":latest" not in instructions(name)[0][1]


def test_the_gpu_image_is_pinned_and_holds_the_versions_of_the_lock():
    pins = load("wheels").read_lock((ROOT / "requirements" / "gpu.txt").read_text(), "3.12")
    base = instructions("Dockerfile")[0][1]
    vllm = pins["vllm"].version
    assert re.fullmatch(rf"verlai/verl:vllm{vllm.replace('.', '')[:3]}\.\w+@sha256:[0-9a-f]{{64}}", base)
    text = (ROOT / "Dockerfile").read_text()
    assert f"('{pins['torch'].version}', '{vllm}')" in text
    assert f"verl.__version__ == '{pins['verl'].version}'" in text


def test_the_constraints_that_the_gpu_image_makes_are_the_whole_lock():
    """Its shell line, on the lock: a line for each pin, without extras, which pip refuses in a constraint."""
    command = re.search(r"RUN (grep .*?) > /tmp/constraints.txt", (ROOT / "Dockerfile").read_text()).group(1)
    found = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    lock = (ROOT / "requirements" / "gpu.txt").read_text()
    assert len(found) == len(re.findall(r"^[A-Za-z0-9].*==", lock, re.MULTILINE))
    assert all(re.fullmatch(r"[\w.-]+==[^\s\[\]]+( ; [^\\]*)?", line.strip()) for line in found)


def test_the_cpu_image_has_the_python_of_its_lock():
    assert instructions("Dockerfile.cpu")[0][1].startswith("python:3.11-")
    assert "Python 3.11" in (ROOT / "requirements" / "cpu.txt").read_text().splitlines()[0]
