"""Join the pieces of a set of wheels that `make gpu-wheels` made, check them, and unpack the wheels.

    python3 join.py worker [stack]        # beside the pieces; the wheels are in wheels/ then

Only the standard library is needed.
"""

import hashlib
import sys
import tarfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SUMS, WHEELS = "SHA256SUMS", "wheels"


class Pieces:
    """The bytes of several files, one after another, as a file that is read once."""

    def __init__(self, paths):
        self._paths = list(paths)
        self._file = None

    def read(self, size):
        while True:
            if self._file is None:
                if not self._paths:
                    return b""
                self._file = open(self._paths.pop(0), "rb")  # noqa: SIM115  (closed at its end)
            if data := self._file.read(size):
                return data
            self._file.close()
            self._file = None


def checked_pieces(folder, name):
    """The pieces of a set in their order. Raises SystemExit if one is missing or damaged."""
    sums = dict(reversed(line.split()) for line in (folder / SUMS).read_text().splitlines())
    pieces = sorted(piece for piece in sums if piece.startswith(f"{name}.tar.xz."))
    if not pieces:
        raise SystemExit(f"{folder / SUMS} names no pieces of {name!r}")
    for piece in pieces:
        path = folder / piece
        if not path.is_file():
            raise SystemExit(f"{path} is missing")
        with open(path, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sums[piece]:
                raise SystemExit(f"{path} is damaged: its sha256 is not the one in {SUMS}")
    return [folder / piece for piece in pieces]


def join(folder, name, out):
    """Unpack the wheels of a set into `out`; returns their names."""
    out.mkdir(exist_ok=True)
    with tarfile.open(fileobj=Pieces(checked_pieces(folder, name)), mode="r|xz") as archive:
        names = []
        for member in archive:
            archive.extract(member, out, filter="data")
            names.append(member.name)
    return names


if __name__ == "__main__":
    for wanted in sys.argv[1:] or ["worker"]:
        print(f"{wanted}: {len(join(HERE, wanted, HERE / WHEELS))} wheels in {HERE / WHEELS}")
