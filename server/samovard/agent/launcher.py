"""Make the last arrangements inside a new process, then become the agent.

Run as `python -I -S launcher.py PARENT DIRECTORY NOFILE FSIZE NPROC KEEP -- PROGRAM ARG...` with
numbers only: the parent's pid, a descriptor of the working directory, limits (`-`: unchanged), and
the descriptors to keep, `-` or separated by commas. Imports the standard library alone, and little
of it: each start waits for it. Knows nothing of the service; a step that fails ends the process
with status 127 and a line on stderr.
"""

import ctypes
import os
import resource
import stat
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
# By number: the signal module costs more to import than everything else here does.
_SIGHUP, _SIGINT, _SIGQUIT, _SIGKILL, _SIGPIPE, _SIGTERM, _SIGCHLD = 1, 2, 3, 9, 13, 15, 17
_SIG_SETMASK = 2
_SIGSET_BYTES = 128

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> None:
    if result == -1:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def _prctl(option: int, value: int) -> None:
    arguments = [ctypes.c_ulong(n) for n in (value, 0, 0, 0)]
    _checked(_libc.prctl(option, *arguments))


def check_parent(parent: int) -> None:
    """Exit unless the parent is the service that started this process."""
    if os.getppid() != parent:
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


def enter(directory: int) -> None:
    """Make a private directory the working directory."""
    found = os.fstat(directory)
    private = stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o700
    if not private or found.st_uid != os.geteuid():
        raise OSError("the directory is not private")
    os.fchdir(directory)
    os.set_inheritable(directory, False)


def become(command: list[str]) -> None:
    """Become the agent, with the environment that this process was given."""
    os.execv(command[0], command)  # noqa: S606  # this is what it is for


def run(arguments: list[str]) -> None:
    """Run every step in order. Return only by an exception."""
    parent, directory, nofile, fsize, nproc, keep, dashes, *command = arguments
    if dashes != "--" or not command:
        raise ValueError("a program must follow --")
    kept = set() if keep == "-" else {int(number) for number in keep.split(",")}
    close_others(kept | {int(directory)})
    os.umask(0o077)
    restore_signals()
    limit(resource.RLIMIT_CORE, "0")
    limit(resource.RLIMIT_NOFILE, nofile)
    limit(resource.RLIMIT_FSIZE, fsize)
    limit(resource.RLIMIT_NPROC, nproc)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    # After every change of privileges, because such a change clears it. The parent may have died
    # before it was set, so that is checked again.
    _prctl(_PR_SET_PDEATHSIG, _SIGKILL)
    check_parent(int(parent))
    enter(int(directory))
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
