"""The system-call filter of a sandbox, as the BPF program that bubblewrap loads.

A second layer below namespaces and limits. What it forbids is what one program could use to reach
past itself: its sibling processes and their priority, memory that outlives it, sockets, new
namespaces, and kernel interfaces no test has a use for.
"""

import errno
import platform
import struct

from windrow.environments.errors import SandboxUnavailable

FORBIDDEN = {
    "x86_64": {
        "socket": 41, "socketpair": 53, "ptrace": 101, "process_vm_readv": 310,
        "process_vm_writev": 311, "process_madvise": 440, "pidfd_open": 434, "pidfd_getfd": 438,
        "pidfd_send_signal": 424, "setpriority": 141, "sched_setparam": 142,
        "sched_setscheduler": 144, "sched_setaffinity": 203, "sched_setattr": 314,
        "ioprio_set": 251, "shmget": 29, "shmat": 30, "semget": 64, "msgget": 68, "mq_open": 240,
        "add_key": 248, "request_key": 249, "keyctl": 250, "unshare": 272, "setns": 308,
        "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161, "bpf": 321,
        "perf_event_open": 298, "userfaultfd": 323, "io_uring_setup": 425,
        "open_by_handle_at": 304, "personality": 135, "memfd_create": 319,
    },
    "aarch64": {
        "socket": 198, "socketpair": 199, "ptrace": 117, "process_vm_readv": 270,
        "process_vm_writev": 271, "process_madvise": 440, "pidfd_open": 434, "pidfd_getfd": 438,
        "pidfd_send_signal": 424, "setpriority": 140, "sched_setparam": 118,
        "sched_setscheduler": 119, "sched_setaffinity": 122, "sched_setattr": 274,
        "ioprio_set": 30, "shmget": 194, "shmat": 196, "semget": 190, "msgget": 186,
        "mq_open": 180, "add_key": 217, "request_key": 218, "keyctl": 219, "unshare": 97,
        "setns": 268, "mount": 40, "umount2": 39, "pivot_root": 41, "chroot": 51, "bpf": 280,
        "perf_event_open": 241, "userfaultfd": 282, "io_uring_setup": 425,
        "open_by_handle_at": 265, "personality": 92, "memfd_create": 279,
    },
}  # fmt: skip
PRLIMIT = {"x86_64": 302, "aarch64": 261}
"""Allowed on the calling process itself (pid 0), which is how a program's own limits are set."""

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32_BIT = 0x40000000
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # offsets into struct seccomp_data

LOAD, JUMP_EQUAL, JUMP_AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM


def filter_program() -> bytes:
    """The compiled filter for this machine; forbidden calls fail with EPERM.

    Raises SandboxUnavailable on a processor whose system calls are not listed.
    """
    machine = platform.machine()
    if machine not in FORBIDDEN:
        raise SandboxUnavailable(
            f"no system-call filter is known for processor {machine!r}; untrusted programs run "
            f"only on {' and '.join(sorted(FORBIDDEN))}"
        )
    program = [
        _op(LOAD, ARCHITECTURE),
        _op(JUMP_EQUAL, AUDIT_ARCH[machine], if_true=1),
        _op(RETURN, KILL),
        _op(LOAD, NUMBER),
        _op(JUMP_AT_LEAST, X32_BIT, if_false=1),
        _op(RETURN, KILL),
    ]
    for number in FORBIDDEN[machine].values():
        program += [_op(JUMP_EQUAL, number, if_false=1), _op(RETURN, REFUSE)]
    program += [
        _op(JUMP_EQUAL, PRLIMIT[machine], if_false=3),
        _op(LOAD, FIRST_ARGUMENT),
        _op(JUMP_EQUAL, 0, if_true=1),
        _op(RETURN, REFUSE),
        _op(RETURN, ALLOW),
    ]
    return b"".join(program)


def _op(code: int, value: int, *, if_true: int = 0, if_false: int = 0) -> bytes:
    """One struct sock_filter; jumps count the instructions to skip."""
    return struct.pack("=HBBI", code, if_true, if_false, value)
