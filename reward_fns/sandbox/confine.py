"""Landlock and seccomp for executions without namespaces. Self-contained: appended to the runner's source.

Landlock limits files to the execution's own directory (and system libraries, read-only) and, from Linux 6.12, signals
to its own processes; it also forbids to trace or read the memory of any other process. The seccomp filter forbids
sockets (pairs and pipes remain), tracing, keyrings and System V IPC. Each is skipped where the kernel
lacks it; the owner says so.
"""

import ctypes
import os
import platform
import struct

_libc = ctypes.CDLL(None, use_errno=True)
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_SYSCALLS = {  # socket, ptrace, process_vm_readv, process_vm_writev, io_uring_setup, keyctl, add_key, request_key, bpf,
    # userfaultfd, perf_event_open, unshare, mount, setns, shmget, semget, msgget, mq_open
    "x86_64": (0xC000003E, (41, 101, 310, 311, 425, 250, 248, 249, 321, 323, 298, 272, 165, 308, 29, 64, 68, 240)),
    "aarch64": (0xC00000B7, (198, 117, 270, 271, 425, 219, 217, 218, 280, 282, 241, 97, 40, 268, 194, 190, 186, 180)),
}
_READ = 1 << 0 | 1 << 2 | 1 << 3  # execute, read file, read directory
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")


def become_subreaper():
    """Orphans of an execution become our children, to be killed with the rest."""
    _libc.prctl(36, 1, 0, 0, 0)


def landlock_version():
    """The kernel's Landlock version, 0 when it has none."""
    return max(0, _libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1))


def confine(cwd, readable):
    """Give up, for this process and all it starts, what a program under test does not need."""
    _libc.prctl(38, 1, 0, 0, 0)  # no new privileges
    landlock(cwd, readable)
    seccomp()


def landlock(cwd, readable):
    version = landlock_version()
    if not version:
        return
    everything = (1 << (13 if version == 1 else 14 if version == 2 else 15 if version < 5 else 16)) - 1
    scoped = 3 if version >= 6 else 0  # abstract sockets, signals
    attributes = struct.pack("QQQ", everything, 0, scoped)[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = _libc.syscall(_LANDLOCK_CREATE, attributes, ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        return
    files = 1 << 0 | 1 << 1 | 1 << 2 | (1 << 14 if version >= 3 else 0)  # what applies to a file
    rules = [(path, _READ) for path in readable] + [(cwd, everything & ~(1 << 6 | 1 << 11))]  # no device nodes
    rules += [(path, 1 << 1 | 1 << 2) for path in _DEVICES]
    rules += [(path, _READ) for path in ("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/sys/devices")]
    rules += [(path, _READ) for path in ("/etc/localtime", "/etc/ld.so.cache", "/usr/share/zoneinfo")]
    if os.getuid() >= 61000:  # a user id of its own: what it leaves in shared memory is found by its owner
        rules.append(("/dev/shm", everything & ~(1 << 6 | 1 << 11)))
    for path, access in rules:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        if not os.path.isdir(path):
            access &= files
        _libc.syscall(_LANDLOCK_ADD, ruleset, 1, struct.pack("=Qi", access, fd), 0)
        os.close(fd)
    if _libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0) != 0:
        raise OSError(ctypes.get_errno(), "landlock_restrict_self failed")
    os.close(ruleset)


def seccomp():
    if platform.machine() not in _SYSCALLS:
        return
    architecture, denied = _SYSCALLS[platform.machine()]
    load, equal, give = 0x20, 0x15, 0x06
    allow, deny = 0x7FFF0000, 0x00050001  # EPERM
    program = [(load, 0, 0, 4), (equal, 1, 0, architecture), (give, 0, 0, deny), (load, 0, 0, 0)]
    if platform.machine() == "x86_64":
        program += [(0x35, 0, 1, 0x40000000), (give, 0, 0, deny)]  # the x32 twin of every call
    for number in denied:
        program += [(equal, 0, 1, number), (give, 0, 0, deny)]
    program.append((give, 0, 0, allow))
    code = b"".join(struct.pack("HBBI", *step) for step in program)
    buffer = ctypes.create_string_buffer(code)
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    if _libc.prctl(22, 2, header, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the seccomp filter was refused")
