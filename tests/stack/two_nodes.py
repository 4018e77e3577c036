"""A Ray cluster of two nodes on this machine: two network namespaces joined by a virtual cable, one raylet in each.

Needs root and iproute2. Everything that runs in the namespaces is ended by `close`, and nothing else.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil

from tests.stack.launch import ENVIRONMENT, REPOSITORY

PORT, DASHBOARD = 6379, 8265


def available() -> bool:
    return os.geteuid() == 0 and shutil.which("ip") is not None and _ip("netns", "list", check=False) == 0


class TwoNodes:
    """`head` and `worker` are names of namespaces, `addresses` their IP addresses."""

    def __init__(self) -> None:
        tag = uuid.uuid4().hex[:4]
        self.head, self.worker = f"srpo-h{tag}", f"srpo-w{tag}"
        self.addresses = {self.head: "10.77.0.1", self.worker: "10.77.0.2"}
        self.folder = Path("/tmp") / f"srpo-ray-{tag}"  # short: Ray puts sockets below it
        self.folder.mkdir()
        self.environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(REPOSITORY), "GLOO_SOCKET_IFNAME": "eth0"}
        self.environment["RAY_AUTH_MODE"] = "disabled"  # a token of this user is not the test's
        for name in ("PYTHONDONTWRITEBYTECODE", "RAY_ADDRESS"):
            self.environment.pop(name, None)
        for namespace in self.addresses:
            _ip("netns", "add", namespace)
        _ip("link", "add", f"h{tag}", "type", "veth", "peer", "name", f"w{tag}")
        for namespace, end in ((self.head, f"h{tag}"), (self.worker, f"w{tag}")):
            _ip("link", "set", end, "netns", namespace)
            inside = ("-n", namespace)
            _ip(*inside, "link", "set", end, "name", "eth0")
            _ip(*inside, "address", "add", f"{self.addresses[namespace]}/24", "dev", "eth0")
            _ip(*inside, "link", "set", "eth0", "up")
            _ip(*inside, "link", "set", "lo", "up")
            # Programs find their own address by the route they would take outwards.
            _ip(*inside, "route", "add", "default", "dev", "eth0")

    def start_head(self) -> None:
        options = [f"--temp-dir={self.folder}", f"--port={PORT}", f"--dashboard-port={DASHBOARD}"]
        self._start(self.head, "--head", "--dashboard-host=0.0.0.0", *options)

    def start_worker(self) -> None:
        self._start(self.worker, f"--address={self.addresses[self.head]}:{PORT}")

    def popen(self, namespace: str, command: list[str], **options) -> subprocess.Popen:
        full = ["ip", "netns", "exec", namespace, *command]
        return subprocess.Popen(full, env=self.environment, start_new_session=True, **options)

    def processes(self, namespace: str) -> list[psutil.Process]:
        told = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True).stdout
        return [psutil.Process(int(pid)) for pid in told.split() if psutil.pid_exists(int(pid))]

    def titles(self, namespace: str) -> set[str]:
        """What the namespace's Ray workers call themselves."""
        found = set()
        for process in self.processes(namespace):
            try:
                found.add(process.cmdline()[0])
            except (psutil.NoSuchProcess, IndexError):
                continue
        return {title for title in found if title.startswith("ray::")}

    def lose(self, namespace: str) -> None:
        """What a power failure does to a node."""
        deadline = time.monotonic() + 20
        while (processes := self.processes(namespace)) and time.monotonic() < deadline:
            for process in processes:
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    continue
            psutil.wait_procs(processes, timeout=2)

    def close(self) -> None:
        for namespace in self.addresses:
            self.lose(namespace)
            _ip("netns", "delete", namespace, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, namespace: str, *options: str) -> None:
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--num-cpus=16", "--num-gpus=1"]
        common = [f"--node-ip-address={self.addresses[namespace]}", "--object-store-memory=200000000", "--block"]
        with open(self.folder / f"{namespace}.log", "a") as log:
            self.popen(namespace, [*ray, *common, *options], stdout=log, stderr=subprocess.STDOUT)


def _ip(*arguments: str, check: bool = True) -> int:
    return subprocess.run(["ip", *arguments], check=check, capture_output=True).returncode
