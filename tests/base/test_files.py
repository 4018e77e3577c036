"""A file is the old one or the new one, and nothing is left beside it."""

import errno
import os

import pytest

from srpo_verl.base.files import replacing, write_atomically


def test_text_and_bytes_replace_what_was_there(tmp_path):
    path = tmp_path / "file"
    for content, stored in (("ä\n", "ä\n".encode()), (b"\x00\xff", b"\x00\xff"), ("", b"")):
        write_atomically(path, content)
        assert path.read_bytes() == stored
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "no space"), KeyboardInterrupt()])
def test_the_old_file_stays_when_the_block_raises(tmp_path, error):
    path = tmp_path / "file"
    write_atomically(path, "old")

    def half() -> None:
        with replacing(path) as partial:
            partial.write_text("ne")
            raise error

    with pytest.raises(type(error)):
        half()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_it_is_on_the_disk_before_it_has_the_name(tmp_path, monkeypatch):
    """Content, then name, then the folder that holds the name."""
    done = []
    real = {name: getattr(os, name) for name in ("fsync", "replace")}
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append(os.readlink(f"/proc/self/fd/{fd}")), real["fsync"](fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("replace"), real["replace"](a, b)))
    write_atomically(tmp_path / "file", "new")
    assert done == [str(tmp_path / f".file.{os.getpid()}"), "replace", str(tmp_path)]
