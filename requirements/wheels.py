"""Wheels for `make gpu-check` on a machine without a network, in pieces that are small enough to be carried.

    python requirements/wheels.py --out runs/gpu_wheels --have FILE [--sets worker,stack] [--piece-mb 60]

FILE has the name of an installed package in each line (`pip list --format=freeze` on that machine). What is made: the
pieces of one `.tar.xz` per set, SHA256SUMS, join.py, and a README with the commands for that machine. pip fetches the
wheels from PyPI.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import lzma
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from packaging.markers import Marker

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
LISTS, SUMS = HERE / "gpu-check.txt", "SHA256SUMS"
# Has no wheel on PyPI.
SOURCE_ONLY = ("antlr4-python3-runtime",)
GLIBC = range(5, 40)
# Parts of a wheel that no stage loads: Java, the web pages of the dashboard, reinforcement learning of Ray's own.
SLIMMED = {"ray": ("ray/jars/", "ray/dashboard/client/", "ray/rllib/", "ray/thirdparty_files/memray")}
README = """# Wheels for `make gpu-check`

For Python {python}, Linux on x86-64, where torch for CUDA is installed. In this folder:

    python3 join.py {sets}
    python3 -m pip install --no-index --no-deps --target /tmp/gpu_check_site wheels/*.whl
    export PYTHONPATH=/tmp/gpu_check_site:REPOSITORY SRPO_COMMIT={commit}
    cd REPOSITORY && python3 -m workflows.gpu_check --stages {stages}

{table}
"""


@dataclass(frozen=True)
class Pin:
    """A line of a lock: `text` is `name==version` with all its hashes."""

    name: str
    version: str
    text: str


@dataclass(frozen=True)
class Lists:
    """gpu-check.txt."""

    sections: dict[str, list[str]] = field(default_factory=dict)
    always: frozenset[str] = frozenset()


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def read_lists(text: str) -> Lists:
    """Sections of names; `!` marks those that are brought whatever the machine has."""
    sections: dict[str, list[str]] = {}
    always = set()
    current: list[str] = []
    for line in filter(None, (line.partition("#")[0].strip() for line in text.splitlines())):
        if line.startswith("["):
            current = sections.setdefault(line.strip("[]"), [])
            continue
        name = canonical(line.removeprefix("!"))
        current.append(name)
        if line.startswith("!"):
            always.add(name)
    return Lists(sections, frozenset(always))


def read_lock(text: str, python: str) -> dict[str, Pin]:
    """The pins that hold for a Python, e.g. "3.12"."""
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    pins = {}
    for line in text.replace("\\\n", " ").splitlines():
        if not (found := re.match(r"([\w.-]+)(\[[\w,-]+\])?==(\S+)(?: ; ([^#]*?))?\s+(--hash=.*)", line)):
            continue
        name, _, version, marker, hashes = found.groups()
        if marker is None or Marker(marker).evaluate(environment):
            pins[canonical(name)] = Pin(
                canonical(name), version, f"{name}=={version} {' '.join(hashes.partition('#')[0].split())}"
            )
    return pins


def read_have(text: str) -> frozenset[str]:
    """Names of a list as pip prints it, with or without versions."""
    names = (re.match(r"[A-Za-z0-9][\w.-]*", line.strip()) for line in text.splitlines())
    return frozenset(canonical(found.group()) for found in names if found)


def chosen(name: str, lists: Lists, lock: Iterable[str], have: frozenset[str]) -> list[str]:
    """The packages of a set, sorted. Raises ValueError for one without a version."""
    lock = set(lock)
    wanted = lists.sections[name]
    if "*" in wanted:
        others = {package for other, names in lists.sections.items() if other != name for package in names}
        wanted = [package for package in lock if package not in others]
    if unknown := sorted(set(wanted) - lock):
        raise ValueError(f"[{name}] names {', '.join(unknown)}, of which gpu.txt and cpu.txt have no version")
    return sorted(package for package in wanted if package in lists.always or package not in have)


def download(pins: list[Pin], folder: Path, python: str) -> None:
    """The wheels of these pins for that Python, checked against their hashes; what is source only is built here."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    tags = [f"manylinux_2_{minor}_x86_64" for minor in reversed(GLIBC)] + ["manylinux2014_x86_64", "manylinux1_x86_64"]
    platform = [word for tag in (*tags, "linux_x86_64") for word in ("--platform", tag)]
    target = ["--python-version", python, "--implementation", "cp", *platform, "--only-binary", ":all:"]
    wheels, built = ([pin for pin in pins if (pin.name in SOURCE_ONLY) == source] for source in (False, True))
    with tempfile.TemporaryDirectory() as scratch:
        for part, command in ((wheels, ["download", *target]), (built, ["wheel"])):
            if part:
                wanted = Path(scratch) / "wanted.txt"
                wanted.write_text("\n".join(pin.text for pin in part) + "\n")
                place = ["--dest" if command[0] == "download" else "--wheel-dir", str(folder)]
                subprocess.run([*pip, *command, "--no-deps", "--require-hashes", "-r", str(wanted), *place], check=True)


def own_wheel(folder: Path) -> None:
    """This project's, whose metadata makes verl load its plugin."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "source"
        keep = ("srpo_verl", "workflows", "reward_fns", "hydra_plugins", "pyproject.toml", "README.md", "LICENSE")
        for name in keep:
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, (copy.mkdir(exist_ok=True) or copy) / name)
        command = [sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps", str(copy), "--wheel-dir", str(folder)]
        subprocess.run(command, check=True)


def stored(wheel: Path, left_out: tuple[str, ...] = ()) -> bytes:
    """The wheel without compression, which xz does better over all of them, and without some of its files."""
    content = io.BytesIO()
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as target:
        for entry in source.infolist():
            if entry.filename.startswith(left_out) if left_out else False:
                continue
            data = source.read(entry)
            if left_out and entry.filename.endswith(".dist-info/RECORD"):
                rows = [row for row in csv.reader(io.StringIO(data.decode())) if not row[0].startswith(left_out)]
                text = io.StringIO()
                csv.writer(text, lineterminator="\n").writerows(rows)
                data = text.getvalue().encode()
            kept = zipfile.ZipInfo(entry.filename, entry.date_time)
            kept.external_attr = entry.external_attr
            target.writestr(kept, data)
    return content.getvalue()


class _Pieces(io.RawIOBase):
    """A file that goes on in the next piece when one is full."""

    def __init__(self, folder: Path, name: str, size: int):
        self.paths: list[Path] = []
        self._folder, self._name, self._size = folder, name, size
        self._room, self._file = 0, None

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        rest = memoryview(data).cast("B")
        while len(rest):
            if self._room == 0:
                if self._file is not None:
                    self._file.close()
                self.paths.append(self._folder / f"{self._name}.tar.xz.{len(self.paths):04d}")
                self._file, self._room = self.paths[-1].open("wb"), self._size
            part = rest[: self._room]
            self._file.write(part)
            self._room -= len(part)
            rest = rest[len(part) :]
        return memoryview(data).nbytes

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        super().close()


def pack(wheels: Iterable[Path], name: str, out: Path, piece_bytes: int, *, preset: int = 6) -> list[Path]:
    """One `.tar.xz` of the wheels, cut into pieces of at most `piece_bytes`; returns them."""
    pieces = _Pieces(out, name, piece_bytes)
    with (
        pieces,
        lzma.open(pieces, "wb", preset=preset) as packed,  # type: ignore[arg-type]
        tarfile.open(fileobj=packed, mode="w|") as archive,
    ):
        for wheel in sorted(wheels):
            data = stored(wheel, SLIMMED.get(canonical(wheel.name.partition("-")[0]), ()))
            entry = tarfile.TarInfo(wheel.name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return pieces.paths


def write_sums(out: Path) -> None:
    """Of every piece in the folder, as `sha256sum` writes them."""
    lines = []
    for path in sorted(out.glob("*.tar.xz.*")):
        with path.open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}\n")
    (out / SUMS).write_text("".join(lines))


def collect(out: Path, sets: list[str], have: frozenset[str], *, python: str, piece_bytes: int) -> Iterator[str]:
    """Download, pack and describe; yields a line per set."""
    lists = read_lists(LISTS.read_text())
    tools = read_lock((HERE / "cpu.txt").read_text(), python)
    lock = {
        **{name: tools[name] for name in lists.sections["worker"] if name in tools},
        **read_lock((HERE / "gpu.txt").read_text(), python),
    }
    out.mkdir(parents=True, exist_ok=True)
    rows = ["| set | packages | MB | pieces |", "|---|---|---|---|"]
    for name in sets:
        for old in out.glob(f"{name}.tar.xz.*"):
            old.unlink()
        packages = chosen(name, lists, lock, have)
        with tempfile.TemporaryDirectory(dir=out) as scratch:
            folder = Path(scratch)
            download([lock[package] for package in packages], folder, python)
            if name == "worker":
                own_wheel(folder)
            count = len(list(folder.glob("*.whl")))
            pieces = pack(folder.glob("*.whl"), name, out, piece_bytes)
        size = sum(path.stat().st_size for path in pieces)
        rows.append(f"| {name} | {count} | {size / 1e6:.1f} | {len(pieces)} |")
        yield f"{name}: {count} wheels, {size / 1e6:.1f} MB, {len(pieces)} piece(s) in {out}"
    write_sums(out)
    shutil.copy(HERE / "join.py", out / "join.py")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    stages = "core,worker" + (",stack,demo --model tiny" if "stack" in sets else "")
    text = README.format(
        python=python, sets=" ".join(sets), commit=commit or "unknown", stages=stages, table="\n".join(rows)
    )
    (out / "README.md").write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu_wheels"), help="default: %(default)s")
    parser.add_argument("--have", type=Path, help="packages that the machine has, a name in each line")
    parser.add_argument("--sets", default="worker,stack", help="default: %(default)s")
    parser.add_argument("--piece-mb", type=float, default=60, help="largest size of a piece in 10^6 bytes")
    parser.add_argument("--python", default="3.12", help="default: %(default)s")
    options = parser.parse_args()
    have = read_have(options.have.read_text()) if options.have else frozenset()
    piece = int(options.piece_mb * 1e6)
    for line in collect(
        options.out.absolute(), options.sets.split(","), have, python=options.python, piece_bytes=piece
    ):
        print(line, flush=True)


if __name__ == "__main__":
    main()
