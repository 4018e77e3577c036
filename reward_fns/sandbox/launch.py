"""How a sandbox process is started: under bubblewrap, or plainly; and the probe that finds out what works here.

When the owner is root, each sandbox runs as a user id of its own (leased machine-wide): it cannot signal or read
anything else, limits on processes bind, and whatever it leaves behind is found by its owner. Without root and without
namespaces, Landlock and seccomp (where the kernel has them) are what stands between a program and this user's files.
"""

from __future__ import annotations

import functools
import os
import shutil
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from reward_fns.sandbox.config import SandboxConfig

FIRST_UID = 61_000
UIDS = 512
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Launch:
    """One way of starting sandboxes on this machine."""

    namespaces: bool
    own_uid: bool
    python: str

    def describe(self) -> str:
        if self.namespaces:
            level = "bubblewrap namespaces (user, pid, network, mount, ipc)"
        else:
            level = "no namespaces; process limits, and Landlock and seccomp where the kernel has them"
        return f"{level}; {'a user id per sandbox' if self.own_uid else 'this user id'}; interpreter {self.python}"


def can_use_own_uid() -> bool:
    """Whether this process may start children under other user ids."""
    if os.geteuid() != 0:
        return False
    capabilities = next((line for line in _read("/proc/self/status").splitlines() if line.startswith("CapEff")), "")
    bits = int(capabilities.split()[-1], 16) if capabilities else 0
    return all(bits >> number & 1 for number in (0, 5, 6, 7))  # chown, kill, setgid, setuid


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def find_python(config: SandboxConfig, own_uid: bool) -> str:
    """An interpreter that the sandbox's user can read and that is at least 3.9."""
    if config.python:
        return config.python
    candidates = [os.path.realpath(getattr(sys, "_base_executable", sys.executable) or sys.executable)]
    candidates += ["/usr/bin/python3", "/usr/local/bin/python3"]
    for candidate in candidates:
        if os.path.exists(candidate) and (not own_uid or _others_can_run(Path(os.path.realpath(candidate)))):
            return os.path.realpath(candidate)
    raise RuntimeError(
        f"no Python interpreter here can be read by another user (tried {', '.join(candidates)}); install one in a "
        "public place (apt-get install python3) or set sandbox.python"
    )


def _others_can_run(path: Path) -> bool:
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in path.parents) and bool(
        path.stat().st_mode & stat.S_IXOTH
    )


@functools.cache
def source_of(name: str) -> str:
    """The source of one of the self-contained modules of this folder."""
    return (_HERE / name).read_text(encoding="utf-8")


@functools.cache
def runner_source(
    base: str, scope: str, confined: bool, extra_paths: tuple[str, ...], readable: tuple[str, ...]
) -> str:
    """The program text given to the interpreter inside."""
    parts = [source_of("codec.py"), source_of("runner.py")]
    confine = "None"
    if confined:
        parts.append(source_of("confine.py"))
        parts.append("become_subreaper()\n")
        confine = f"lambda cwd: confine(cwd, {readable!r})"
    parts.append(f"sys.path.extend({list(extra_paths)!r})\nmain({base!r}, {scope!r}, {confine})\n")
    return "\n".join(parts)


def python_command(python: str, source: str) -> list[str]:
    return [python, "-I", "-S", "-B", "-X", "utf8", "-c", source]


def plain_command(launch: Launch, config: SandboxConfig, base: str) -> list[str]:
    """The command line without namespaces; ``base`` is the sandbox's own directory on the host."""
    readable = (*_library_folders(launch.python), *config.extra_paths)
    scope = "all" if launch.own_uid else "children"
    return python_command(launch.python, runner_source(base, scope, True, config.extra_paths, readable))


def bwrap_command(launch: Launch, config: SandboxConfig, info_fd: int) -> list[str]:
    """The command line under bubblewrap: nothing of the host but libraries and the interpreter, read-only."""
    command = [shutil.which("bwrap") or "bwrap", "--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc"]
    command += ["--unshare-uts", "--unshare-cgroup-try", "--die-with-parent", "--new-session", "--hostname", "sandbox"]
    command += ["--clearenv", "--setenv", "PATH", "/usr/bin:/bin", "--setenv", "LANG", "C.UTF-8"]
    for folder in _library_folders(launch.python):
        if os.path.islink(folder):
            command += ["--symlink", os.readlink(folder), folder]
        else:
            command += ["--ro-bind", folder, folder]
    command += [
        "--ro-bind-try",
        "/etc/ld.so.cache",
        "/etc/ld.so.cache",
        "--ro-bind-try",
        "/etc/localtime",
        "/etc/localtime",
    ]
    for folder in config.extra_paths:
        command += ["--ro-bind", folder, folder]
    size = str(config.tmp_mb << 20)
    command += ["--proc", "/proc", "--dev", "/dev", "--size", size, "--tmpfs", "/dev/shm", "--remount-ro", "/dev"]
    command += [
        "--size",
        size,
        "--tmpfs",
        "/tmp",
        "--chdir",
        "/tmp",
        "--remount-ro",
        "/",
        "--info-fd",
        str(info_fd),
        "--",
    ]
    return command + python_command(launch.python, runner_source("/tmp", "all", False, config.extra_paths, ()))


def _library_folders(python: str) -> tuple[str, ...]:
    folders = [f for f in ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32") if os.path.lexists(f)]
    prefix = str(Path(python).parent.parent)
    if not prefix.startswith("/usr"):
        folders.append(prefix)
    return tuple(folders)
