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
_PR_SET_SECCOMP, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 22, 36, 38
_SECCOMP_MODE_FILTER = 2
_BPF_LOAD, _BPF_JUMP_EQUAL, _BPF_JUMP_AT_LEAST, _BPF_RETURN = 0x20, 0x15, 0x35, 0x06
_SECCOMP_ALLOW, _SECCOMP_EPERM = 0x7FFF0000, 0x00050001
_DENIED = {  # call: its number on x86_64, on aarch64
    "socket": (41, 198), "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "io_uring_setup": (425, 425), "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    "bpf": (321, 280), "userfaultfd": (323, 282), "perf_event_open": (298, 241), "unshare": (272, 97),
    "mount": (165, 40), "setns": (308, 268), "shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186),
    "mq_open": (240, 180),
}  # fmt: skip
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  # audit number, column of _DENIED
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
_MAKE_CHAR, _MAKE_BLOCK = 1 << 6, 1 << 11
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")


def become_subreaper():
    """Orphans of an execution become our children, to be killed with the rest."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def landlock_version():
    """The kernel's Landlock version, 0 when it has none."""
    return max(0, _libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1))


def confine(cwd, readable):
    """Give up, for this process and all it starts, what a program under test does not need."""
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
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
    files = _EXECUTE | _WRITE_FILE | _READ_FILE | (_TRUNCATE if version >= 3 else 0)  # what applies to a file
    rules = [(path, _READ) for path in readable] + [(cwd, everything & ~(_MAKE_CHAR | _MAKE_BLOCK))]
    rules += [(path, _WRITE_FILE | _READ_FILE) for path in _DEVICES]
    rules += [(path, _READ) for path in ("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/sys/devices")]
    rules += [(path, _READ) for path in ("/etc/localtime", "/etc/ld.so.cache", "/usr/share/zoneinfo")]
    if os.getuid() >= 61000:  # a user id of its own: what it leaves in shared memory is found by its owner
        rules.append(("/dev/shm", everything & ~(_MAKE_CHAR | _MAKE_BLOCK)))
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
    if platform.machine() not in _ARCHITECTURES:
        return
    architecture, column = _ARCHITECTURES[platform.machine()]
    program = [
        (_BPF_LOAD, 0, 0, 4),
        (_BPF_JUMP_EQUAL, 1, 0, architecture),
        (_BPF_RETURN, 0, 0, _SECCOMP_EPERM),
        (_BPF_LOAD, 0, 0, 0),
    ]
    if platform.machine() == "x86_64":  # the x32 twin of every call
        program += [(_BPF_JUMP_AT_LEAST, 0, 1, 0x40000000), (_BPF_RETURN, 0, 0, _SECCOMP_EPERM)]
    for numbers in _DENIED.values():
        program += [(_BPF_JUMP_EQUAL, 0, 1, numbers[column]), (_BPF_RETURN, 0, 0, _SECCOMP_EPERM)]
    program.append((_BPF_RETURN, 0, 0, _SECCOMP_ALLOW))
    code = b"".join(struct.pack("HBBI", *step) for step in program)
    buffer = ctypes.create_string_buffer(code)
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    if _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the seccomp filter was refused")
