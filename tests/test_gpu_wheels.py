"""Wheels in pieces: what is chosen, and that what is joined again is what was cut."""

import csv
import hashlib
import io
import random
import subprocess
import sys
import zipfile

import pytest

from tests.requirements_module import ROOT, load

wheels, join = load("wheels"), load("join")


def make_wheel(folder, name, files):
    path = folder / f"{name}-1.0-py3-none-any.whl"
    record = f"{name}-1.0.dist-info/RECORD"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, data in files.items():
            archive.writestr(file, data)
        archive.writestr(
            record, "".join(f"{file},sha256=x,{len(data)}\n" for file, data in files.items()) + f"{record},,\n"
        )
    return path


def contents(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def packed(tmp_path):
    """Three wheels, one of them with noise that does not shrink, in pieces of 10 kB."""
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    out.mkdir()
    made = [
        make_wheel(source, "plain", {"plain/__init__.py": b"x = 1\n" * 1000}),
        make_wheel(source, "noisy", {"noisy/data.bin": random.Random(0).randbytes(25_000)}),
        make_wheel(source, "ray", {"ray/__init__.py": b"y = 2\n", "ray/jars/a.jar": b"j" * 5000}),
    ]
    pieces = wheels.pack(made, "worker", out, 10_000, preset=0)
    wheels.write_sums(out)
    return made, pieces, out


def test_pieces_are_small_and_joined_they_are_the_wheels(packed):
    made, pieces, out = packed
    assert [piece.name for piece in pieces] == [f"worker.tar.xz.{number:04d}" for number in range(3)]
    assert [piece.stat().st_size for piece in pieces[:-1]] == [10_000] * (len(pieces) - 1)
    assert 0 < pieces[-1].stat().st_size <= 10_000
    assert sorted(join.join(out, "worker", out / "wheels")) == sorted(path.name for path in made)
    for path in made[:2]:
        assert contents(out / "wheels" / path.name) == contents(path)


def test_what_no_stage_loads_is_left_out_of_the_wheel_and_of_its_record(packed):
    made, _, out = packed
    join.join(out, "worker", out / "wheels")
    found = contents(out / "wheels" / made[2].name)
    assert sorted(found) == ["ray-1.0.dist-info/RECORD", "ray/__init__.py"]
    rows = [row[0] for row in csv.reader(io.StringIO(found["ray-1.0.dist-info/RECORD"].decode()))]
    assert rows == ["ray/__init__.py", "ray-1.0.dist-info/RECORD"]


@pytest.mark.parametrize(("harm", "said"), [("remove", "is missing"), ("damage", "is damaged"), ("rename", "names no")])
def test_a_piece_that_is_missing_or_damaged_is_named(packed, harm, said):
    _, pieces, out = packed
    if harm == "remove":
        pieces[1].unlink()
    elif harm == "damage":
        pieces[1].write_bytes(pieces[1].read_bytes()[:-1] + b"?")
    with pytest.raises(SystemExit, match=said):
        join.join(out, "stack" if harm == "rename" else "worker", out / "wheels")
    assert not list((out / "wheels").glob("*"))


def test_sums_are_those_of_sha256sum(packed):
    _, pieces, out = packed
    lines = (out / "SHA256SUMS").read_text().splitlines()
    assert lines == [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in pieces]


def test_join_needs_the_standard_library_only(packed):
    *_, out = packed
    program = out / "join.py"
    program.write_text((ROOT / "requirements" / "join.py").read_text())
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(program), "worker"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"worker: 3 wheels in {out / 'wheels'}\n"


LOCK = """
a==1.0 \\
    --hash=sha256:00
    # via b
B_c[extra]==2.0 ; python_full_version < '3.12' \\
    --hash=sha256:01 \\
    --hash=sha256:02
b-c==3.0 ; python_full_version == '3.12.*' \\
    --hash=sha256:03
"""


def test_a_lock_is_read_for_one_python():
    found = wheels.read_lock(LOCK, "3.12")
    assert {name: pin.version for name, pin in found.items()} == {"a": "1.0", "b-c": "3.0"}
    assert found["a"].text == "a==1.0 --hash=sha256:00"
    assert wheels.read_lock(LOCK, "3.11")["b-c"].text == "B_c==2.0 --hash=sha256:01 --hash=sha256:02"


def test_what_the_machine_has_stays_there_unless_it_must_be_another_version():
    lists = wheels.read_lists("[worker]\n!a\nb # why\nc\n[stack]\n*\n[left out]\nd\n")
    lock = ["a", "b", "c", "d", "e", "f"]
    have = wheels.read_have("A==9\nB @ file:///x\nf\n# nothing\n")
    assert have == {"a", "b", "f"}
    assert wheels.chosen("worker", lists, lock, have) == ["a", "c"]
    assert wheels.chosen("stack", lists, lock, have) == ["e"]
    with pytest.raises(ValueError, match=r"\[worker\] names c, of which"):
        wheels.chosen("worker", lists, ["a", "b"], have)


@pytest.mark.parametrize("python", ["3.11", "3.12"])
def test_every_package_of_the_lists_has_a_version(python):
    lists = wheels.read_lists((ROOT / "requirements" / "gpu-check.txt").read_text())
    gpu, cpu = (wheels.read_lock((ROOT / "requirements" / name).read_text(), python) for name in ("gpu.txt", "cpu.txt"))
    named = {name for names in lists.sections.values() for name in names} - {"*"}
    assert named <= gpu.keys() | cpu.keys()
    assert lists.sections.keys() == {"assumed", "worker", "stack", "left out"}
    assert len(gpu) > 250
    stack = wheels.chosen("stack", lists, gpu, frozenset())
    assert "vllm" in stack
    assert "torch" not in stack
