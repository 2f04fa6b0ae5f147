"""Make the last arrangements inside a new process, then become the agent.

Run as
`python -I -S launcher.py PARENT DIRECTORY NOFILE FSIZE NPROC DATA KEEP RULES LISTEN -- COMMAND...`
with numbers only: the parent's pid, a descriptor of the working directory, limits (`-`: unchanged),
the descriptors to keep, `-` or separated by commas, a descriptor of Landlock rules (`-`: none),
and, inside a network namespace (else `-`), the descriptor of a unix socket and a port, as `7:4180`.
PARENT is `-` inside a PID namespace, where the service cannot be seen. Imports the standard library
alone, and little of it: each start waits for it. Knows nothing of the service; a step that fails
ends the process with status 127 and a line on stderr.
"""

import ctypes
import os
import resource
import select
import stat
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
# By number: the signal module costs more to import than everything else here does.
_SIGHUP, _SIGINT, _SIGQUIT, _SIGKILL, _SIGPIPE, _SIGTERM, _SIGCHLD = 1, 2, 3, 9, 13, 15, 17
_SIG_SETMASK = 2
_SIGSET_BYTES = 128

# Landlock's system calls have these numbers on every architecture that Linux has gained since 2019,
# and on x86 and ARM.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ABI_VERSION, _PATH_BENEATH, _NET_PORT = 1, 1, 2
_CONNECT_TCP = 1 << 1
_SCOPES = 0b11  # abstract unix sockets, signals
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE_CHAR, _MAKE_BLOCK = 1 << 6, 1 << 11
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
#: What a rule's first letter allows beneath its path: to read, to write, to use a device.
_ALLOWED = {
    "r": _EXECUTE | _READ_FILE | _READ_DIR,
    "w": ~(_MAKE_CHAR | _MAKE_BLOCK | _IOCTL_DEV),
    "d": _READ_FILE | _WRITE_FILE | _TRUNCATE | _IOCTL_DEV,
}
_MOST_RULES = 1 << 20  # bytes
_BACKLOG = 64
_CAPABILITIES_V3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> None:
    if result == -1:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def _prctl(option: int, value: int) -> None:
    arguments = [ctypes.c_ulong(n) for n in (value, 0, 0, 0)]
    _checked(_libc.prctl(option, *arguments))


def check_parent(parent: str) -> None:
    """Raise `OSError` unless the service that started this process is still there.

    Inside a PID namespace its pid means nothing. What made the namespace dies with the service from
    early on; before that, a service that is gone has closed the other end of standard error.
    """
    if parent == "-":
        hangup = select.poll()
        hangup.register(2, 0)
        gone = bool(hangup.poll(0))
    else:
        gone = os.getppid() != int(parent)
    if gone:
        raise OSError("the parent is gone")


def close_others(kept: set[int]) -> None:
    """Close every descriptor that is neither standard nor listed."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in kept:
            try:
                os.close(int(name))
            except OSError:
                continue  # it listed the directory and was closed with it


def restore_signals() -> None:
    """Reset the signals that Python and the service's own parent changed.

    SIGXFSZ stays ignored: a write beyond the limit of a file's size then fails, where the default
    action would end the agent.
    """
    _libc.signal.restype = ctypes.c_void_p
    for number in (_SIGHUP, _SIGINT, _SIGQUIT, _SIGPIPE, _SIGTERM, _SIGCHLD):
        _libc.signal(number, None)
    _checked(_libc.sigprocmask(_SIG_SETMASK, ctypes.create_string_buffer(_SIGSET_BYTES), None))


def limit(kind: int, wanted: str) -> None:
    """Set a hard and soft limit, never above the limit of the service itself."""
    if wanted == "-":
        return
    hard = resource.getrlimit(kind)[1]
    value = int(wanted) if hard == resource.RLIM_INFINITY else min(int(wanted), hard)
    resource.setrlimit(kind, (value, value))


def enter(directory: int, *, mounted: bool) -> None:
    """Make a private directory the working directory.

    One that is `mounted` is it already, under a path of the namespace's own. Entered by the
    descriptor, it would lie outside of the namespace.
    """
    found = os.fstat(directory)
    private = stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o700
    if not private or found.st_uid != os.geteuid():
        raise OSError("the directory is not private")
    if not mounted:
        os.fchdir(directory)
    elif not os.path.samestat(found, os.stat(".")):
        raise OSError("another directory is mounted")
    os.set_inheritable(directory, False)
    # What bubblewrap adds is not the agent's.
    os.environ.pop("PWD", None)


def listen(where: str) -> None:
    """Listen on a port of this network namespace, and pass the socket to the service.

    A socket belongs to the namespace that it was made in; another process may accept there.
    """
    if where == "-":
        return
    import _socket  # only here: most of the module is not needed, and most rungs need none of it

    descriptor, port = map(int, where.split(":"))
    listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", port))
    listener.listen(_BACKLOG)
    service = _socket.socket(fileno=descriptor)
    passed = listener.fileno().to_bytes(4, sys.byteorder)
    service.sendmsg([b"\0"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, passed)])
    service.close()
    listener.close()


class _Ruleset(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("files", "net", "scoped")]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


class _Port(ctypes.Structure):
    _fields_ = [("allowed", ctypes.c_uint64), ("port", ctypes.c_uint64)]


def _syscall(number: int, *arguments: object) -> int:
    _libc.syscall.restype = ctypes.c_long
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    _checked(result)
    return result


def landlock_abi() -> int:
    """Return the version of the kernel's Landlock, 0 if it has none."""
    try:
        return _syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_ABI_VERSION))
    except OSError:
        return 0


def _file_rights(abi: int) -> int:
    """Return every right on files that this version of Landlock can withhold."""
    newer = {2: _REFER, 3: _TRUNCATE, 5: _IOCTL_DEV}
    return _REFER - 1 | sum(right for since, right in newer.items() if abi >= since)


def _allow(ruleset: int, rule: str, rights: int) -> None:
    """Allow what a rule says: beneath its path, or to its port. What is not there needs none."""
    if rule[0] == "t":
        port = ctypes.byref(_Port(_CONNECT_TCP, int(rule[1:])))
        _syscall(_ADD_RULE, ctypes.c_int(ruleset), _NET_PORT, port, ctypes.c_uint32(0))
        return
    try:
        path = os.open(rule[1:], os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    allowed = _ALLOWED[rule[0]] & rights
    if not stat.S_ISDIR(os.fstat(path).st_mode):
        allowed &= _OF_FILES
    beneath = ctypes.byref(_Beneath(allowed, path))
    _syscall(_ADD_RULE, ctypes.c_int(ruleset), _PATH_BENEATH, beneath, ctypes.c_uint32(0))
    os.close(path)


def drop_capabilities() -> None:
    """Give up every capability, so that root is a user like others.

    One that may watch performance or administer the system reads the environment of processes
    outside of its Landlock domain (measured on Linux 6.18).
    """
    header, held = (ctypes.c_uint32 * 2)(_CAPABILITIES_V3, 0), (ctypes.c_uint32 * 6)()
    _checked(_libc.capget(ctypes.byref(header), ctypes.byref(held)))
    if any(held):
        none = (ctypes.c_uint32 * 6)()
        _checked(_libc.capset(ctypes.byref(header), ctypes.byref(none)))


def confine(rules: str) -> None:
    """Restrict this process by Landlock and without capabilities, for good.

    `rules` is a descriptor of lines that end in NUL: a letter of `_ALLOWED` and a path, or `t` and
    the only port that TCP may connect to, on any host, where the kernel can do that. Without lines
    files stay as they are: signals and abstract sockets end at this process's own tree, where the
    kernel can do that.
    """
    if rules == "-":
        return
    lines = os.pread(int(rules), _MOST_RULES, 0).decode("utf-8", "surrogateescape").split("\0")[:-1]
    abi = landlock_abi()
    rights = _file_rights(abi) if lines else 0
    scopes = _SCOPES if abi >= 6 else 0
    if abi < 4:
        lines = [line for line in lines if line[0] != "t"]
    net = _CONNECT_TCP if any(line[0] == "t" for line in lines) else 0
    if not abi and lines:
        raise OSError("the kernel has no Landlock")
    if not rights and not scopes:
        return
    drop_capabilities()
    # Older kernels know the first fields only.
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    given = ctypes.byref(_Ruleset(rights, net, scopes))
    ruleset = _syscall(_CREATE_RULESET, given, ctypes.c_size_t(size), ctypes.c_uint32(0))
    for line in lines:
        _allow(ruleset, line, rights)
    _syscall(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    os.close(ruleset)


def become(command: list[str]) -> None:
    """Become the agent, with the environment that this process was given."""
    os.execv(command[0], command)  # noqa: S606  # this is what it is for


def run(arguments: list[str]) -> None:
    """Run every step in order. Return only by an exception."""
    parent, directory, nofile, fsize, nproc, data, keep, rules, where, dashes, *command = arguments
    if dashes != "--" or not command:
        raise ValueError("a program must follow --")
    kept = set() if keep == "-" else {int(number) for number in keep.split(",")}
    ours = {directory, rules, where.partition(":")[0]} - {"-"}
    close_others(kept | set(map(int, ours)))
    os.umask(0o077)
    restore_signals()
    limit(resource.RLIMIT_CORE, "0")
    limit(resource.RLIMIT_NOFILE, nofile)
    limit(resource.RLIMIT_FSIZE, fsize)
    limit(resource.RLIMIT_NPROC, nproc)
    limit(resource.RLIMIT_DATA, data)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    # After every change of privileges, because such a change clears it. The parent may have died
    # before it was set, so that is checked again.
    _prctl(_PR_SET_PDEATHSIG, _SIGKILL)
    check_parent(parent)
    enter(int(directory), mounted=parent == "-")
    listen(where)
    confine(rules)
    if rules != "-":
        os.close(int(rules))
    become(command)


def main() -> None:
    """Run, or print the reason for a failure on one line."""
    try:
        run(sys.argv[1:])
    except (OSError, ValueError) as error:
        # Print the step and its error, never the arguments, which are the agent's.
        inside = error.__traceback__ and error.__traceback__.tb_next
        step = inside and (inside.tb_next or inside)
        name = step.tb_frame.f_code.co_name if step else "run"
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        os.write(2, f"samovar launcher: {name}: {reason}\n".encode())
    os._exit(127)


if __name__ == "__main__":
    main()
