"""Memory, shared memory, disk, ports and the code sandbox of this machine."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from omegaconf import DictConfig, OmegaConf

from workflows.doctor.check import Check, fail, ok, warn

GIB = 2**30
# A run of the smallest model keeps about this much of processes in memory (docs/planning.md).
LEAST_MEMORY = 7 * GIB
# Ray's logs and spilled objects go to /tmp.
LEAST_TMP = 5 * GIB
SHM = Path("/dev/shm")
# What NVIDIA's documentation of NCCL tells containers to have; Docker's own 64 MiB end in "unhandled system error".
NCCL_SHM = GIB
# Shared memory for weights on their way to vLLM, made by verl; Ray's object store.
LEFTOVERS = ("verl_weights_", "plasma")


def check_memory(needed: int | None = None, *, measured: bool = True) -> Iterator[Check]:
    """`needed`: bytes that the planned run takes on this node; the least of any run if not known.

    Too little is a warning, no failure, where such estimates were never `measured`.
    """
    memory = psutil.virtual_memory()
    needed = needed or LEAST_MEMORY
    found = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB available"
    found += f", the run needs about {needed / GIB:.1f}"
    limit = cgroup_limit(Path("/sys/fs/cgroup/memory.max"))
    if limit is not None and limit < memory.total:
        found += f"; this container is limited to {limit / GIB:.1f} GiB"
    if needed > min(memory.total, limit or memory.total):
        finding = fail if measured else warn
        yield finding(
            "memory", found, "a machine with more memory, a smaller model or smaller micro-batches: `srpo plan`"
        )
    elif needed > memory.available:
        yield warn("memory", found, "end what else runs here (`ps aux --sort=-rss | head`)")
    else:
        yield ok("memory", found)


def cgroup_limit(file: Path) -> int | None:
    """The memory limit of a container in bytes, None without one."""
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def check_shared_memory(bucket_bytes: int = 0, folder: Path = SHM, *, gpus: bool = False) -> Iterator[Check]:
    """Room in /dev/shm, and files left behind there.

    Args:
        bucket_bytes: of the weights' buckets of all ranks of this node.
        gpus: NCCL and vLLM's ranks talk through it.
    """
    if not folder.is_dir():
        yield fail("shared memory", f"there is no {folder}", f"mount it: mount -t tmpfs tmpfs {folder}")
        return
    usage = shutil.disk_usage(folder)
    found = f"{usage.free / GIB:.1f} of {usage.total / GIB:.1f} GiB free in {folder}"
    if bucket_bytes:
        found += f", the weight buckets take {bucket_bytes / GIB:.2f}"
    if gpus:
        found += f", NCCL asks for {NCCL_SHM / GIB:.0f}"
    left = leftovers(folder)
    if usage.free < bucket_bytes + NCCL_SHM * gpus:
        smaller = (
            ", or a smaller actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes"
            if bucket_bytes
            else ""
        )
        yield fail("shared memory", found, f"docker run --shm-size=16g{smaller}")
    elif left:
        size = sum(size for _, size in left)
        names = " ".join(str(path) for path, _ in left[:5]) + (" ..." if len(left) > 5 else "")
        yield warn(
            "shared memory",
            f"{found}; {len(left)} file(s) of ended runs hold {size / GIB:.2f} GiB",
            f"if no other run of yours is active: rm {names}",
        )
    else:
        yield ok("shared memory", found)


def leftovers(folder: Path = SHM) -> list[tuple[Path, int]]:
    """Files of ours in shared memory that no live process of ours has mapped, with their sizes in bytes."""
    mine = [
        path
        for path in folder.iterdir()
        if path.name.startswith(LEFTOVERS) and path.is_file() and path.stat().st_uid == os.getuid()
    ]
    if not mine:
        return []
    mapped = mapped_files(str(folder))
    return [(path, path.stat().st_size) for path in mine if str(path) not in mapped]


def mapped_files(beginning: str, proc: Path = Path("/proc")) -> set[str]:
    """Paths that start so and are mapped by a process that we may look at."""
    found: set[str] = set()
    for maps in proc.glob("[0-9]*/maps"):
        try:
            lines = maps.read_text().splitlines()
        except OSError:  # ended meanwhile, or another user's
            continue
        found.update(line.split(maxsplit=5)[-1] for line in lines if beginning in line)
    return found


def check_tmp(folder: Path | None = None, least: int = LEAST_TMP) -> Iterator[Check]:
    """Room where Ray keeps its session."""
    folder = folder or Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    free = shutil.disk_usage(folder).free
    found = f"{free / GIB:.1f} GiB free in {folder}"
    if free < least:
        yield warn(
            "temporary files", found, "remove old sessions (/tmp/ray/session_*), or set RAY_TMPDIR to another disk"
        )
    else:
        yield ok("temporary files", found)


def check_output(config: DictConfig, checkpoint_bytes: int | None) -> Iterator[Check]:
    """The folder of checkpoints can be written, and those that are kept at a time fit."""
    target = Path(os.path.expanduser(str(config.trainer.default_local_dir))).absolute()
    existing = next(folder for folder in (target, *target.parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"x" * 4096)
            file.flush()
    except OSError as error:
        found = f"{existing} cannot be written ({error.strerror})"
        yield fail("output", found, "set trainer.default_local_dir to a folder of yours, on a disk with room")
        return
    free = shutil.disk_usage(existing).free
    found = f"{target}: writable, {free / GIB:.1f} GiB free"
    if checkpoint_bytes is None or config.trainer.save_freq <= 0:
        yield ok("output", found)
        return
    # A new checkpoint is written before the oldest one is removed, and the best one stays however old it is.
    keep: Any = OmegaConf.select(config, "trainer.max_actor_ckpt_to_keep")
    kept = (keep or 1) + 1 + bool(OmegaConf.select(config, "srpo.checkpoint.keep_best"))
    found += f"; a checkpoint takes about {checkpoint_bytes / GIB:.1f} GiB"
    if free < checkpoint_bytes:
        yield fail("output", found, "set trainer.default_local_dir to a larger disk, or trainer.save_freq=-1")
    elif free < kept * checkpoint_bytes or not keep:
        yield warn(
            "output",
            f"{found}, {'all are kept' if not keep else f'{kept} of them exist at a time'}",
            "lower trainer.max_actor_ckpt_to_keep, or leave `optimizer` out of "
            "actor_rollout_ref.actor.checkpoint.save_contents",
        )
    else:
        yield ok("output", f"{found}, {kept} of them exist at a time")


def check_ports() -> Iterator[Check]:
    """This machine can open a port under the address that the other processes of the run will use."""
    host = node_address()
    try:
        with socket.create_server((host, 0)) as server, socket.create_connection(server.getsockname()[:2], timeout=5):
            yield ok("ports", f"{host}: ports can be opened and reached")
    except OSError as error:
        yield fail(
            "ports",
            f"{host}: {error}",
            "the host name resolves to an address of another machine, or a firewall blocks it: check /etc/hosts",
        )


def node_address() -> str:
    """The address that Ray takes for this node: that of the route outwards, without sending anything."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("8.8.8.8", 80))
            return probe.getsockname()[0]
        except OSError:
            return "127.0.0.1"


def check_sandbox(settings: dict[str, Any] | None = None) -> Iterator[Check]:
    """Where the programs that a model writes are run. `settings`: reward_kwargs.sandbox of the config."""
    from reward_fns.result import BadSettings
    from reward_fns.sandbox.config import SandboxConfig
    from reward_fns.sandbox.local import choose_launch

    try:
        config = SandboxConfig.from_dict(settings or {})
        if config.backend == "fusion":
            yield from _reach(config.url)
            return
        launch = choose_launch(config)
    except BadSettings as error:
        yield fail("sandbox", str(error))
        return
    if launch.namespaces:
        yield ok("sandbox", launch.describe())
    else:
        yield warn("sandbox", launch.describe(), "apt-get install bubblewrap (docs/rewards.md, Code)")


def _reach(url: str) -> Iterator[Check]:
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=5):
            yield ok("sandbox", f"SandboxFusion at {url} accepts connections")
    except OSError as error:
        yield fail("sandbox", f"SandboxFusion at {url}: {error}", "start it, or correct reward_kwargs.sandbox.url")
