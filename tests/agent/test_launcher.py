"""The launcher: what it arranges, and how it refuses."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.timeouts import BOUND

from samovard.agent import launcher

ENVIRON = {"LANG": "C.UTF-8", "PATH": "/usr/bin:/bin"}


@pytest.fixture
def directory() -> Iterator[int]:
    """A private directory, open."""
    with tempfile.TemporaryDirectory() as path:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        yield descriptor
        os.close(descriptor)


def _run(
    directory: int,
    *command: str,
    parent: int | None = None,
    limits: tuple[str, str, str, str] = ("-", "-", "-", "-"),
    rules: str = "-",
    keep: str = "-",
    where: str = "-",
    passed: tuple[int, ...] = (),
    environ: dict[str, str] = ENVIRON,
) -> "subprocess.CompletedProcess[str]":
    number = str(os.getpid() if parent is None else parent)
    numbers = [number, str(directory), *limits, keep, rules, where]
    return subprocess.run(
        [sys.executable, "-I", "-S", launcher.__file__, *numbers, "--", *command],
        env=environ,
        capture_output=True,
        text=True,
        pass_fds=(directory, *passed),
        timeout=BOUND,
        check=False,
    )


def _status(text: str, field: str) -> str:
    return next(line.split()[1] for line in text.splitlines() if line.startswith(f"{field}:"))


def test_program_gets_its_arguments_as_they_are(directory: int) -> None:
    """Blanks, flags, dashes and non-ASCII text pass through untouched."""
    words = ["a b", "--", "-c", "", "größe", "$(id)"]
    done = _run(directory, "/usr/bin/printf", "%s|", *words)
    assert done.stdout == "|".join([*words, ""])
    assert (done.returncode, done.stderr) == (0, "")


def test_environment_is_what_was_given(directory: int) -> None:
    """Python adds no variable of its own on the way."""
    done = _run(directory, "/bin/cat", "/proc/self/environ")
    given = "".join(f"{name}={value}\0" for name, value in ENVIRON.items())
    assert done.stdout == given


def test_working_directory_is_the_descriptor_s(directory: int) -> None:
    """The directory is entered by descriptor, so that no path is walked twice."""
    done = _run(directory, "/bin/pwd")
    assert done.stdout.strip() == str(Path(f"/proc/self/fd/{directory}").resolve())


@pytest.mark.parametrize("mode", [0o755, 0o500, 0o1700])
def test_directory_of_another_mode_is_refused(directory: int, mode: int) -> None:
    """A directory that changed since it was checked is not entered."""
    os.fchmod(directory, mode)
    done = _run(directory, "/bin/true")
    os.fchmod(directory, 0o700)
    assert done.returncode == 127
    assert done.stderr == "samovar launcher: enter: the directory is not private\n"


def test_file_is_no_directory(directory: int) -> None:
    """A descriptor of something else is refused."""
    with tempfile.TemporaryFile() as file:
        os.fchmod(file.fileno(), 0o700)
        done = _run(file.fileno(), "/bin/true")
    assert (done.returncode, done.stderr[:24]) == (127, "samovar launcher: enter:")


def test_files_are_private(directory: int) -> None:
    """What the agent makes, others cannot read."""
    done = _run(directory, "/bin/sh", "-c", "touch made && stat -c %a made")
    assert done.stdout == "600\n"


def test_privileges_cannot_be_gained(directory: int) -> None:
    """A setuid program gives the agent nothing."""
    done = _run(directory, "/bin/cat", "/proc/self/status")
    assert _status(done.stdout, "NoNewPrivs") == "1"


def test_limits_are_set_hard_and_soft(directory: int) -> None:
    """Descriptors, file size, processes and memory are bounded; core files are off."""
    limits = ("256", "1048576", "5000", "9999360")
    done = _run(directory, "/bin/cat", "/proc/self/limits", limits=limits)
    rows = {line[:26].strip(): line[26:].split()[:2] for line in done.stdout.splitlines()}
    assert rows["Max open files"] == ["256", "256"]
    assert rows["Max file size"] == ["1048576", "1048576"]
    assert rows["Max processes"] == ["5000", "5000"]
    assert rows["Max data size"] == ["9999360", "9999360"]
    assert rows["Max core file size"] == ["0", "0"]


def test_limit_is_never_raised(directory: int) -> None:
    """A service that is bound to less starts its agents with less."""
    numbers = f"$$ {directory} 4096 - - - - - -"
    launched = f"'{sys.executable}' -I -S '{launcher.__file__}' {numbers} -- /bin/sh -c 'ulimit -n'"
    done = subprocess.run(
        ["/bin/sh", "-c", f"ulimit -n 128; {launched}; true"],
        env=ENVIRON,
        capture_output=True,
        text=True,
        pass_fds=(directory,),
        timeout=BOUND,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("128\n", "")


def test_only_listed_descriptors_stay_open(directory: int) -> None:
    """Neither the directory's descriptor nor a stray one reaches the program."""
    reading, writing = os.pipe()
    stray = os.dup(reading)
    code = "import os; print([n for n in range(100) if os.path.exists(f'/proc/self/fd/{n}')])"
    command = [sys.executable, "-I", "-S", "-c", code]
    try:
        done = _run(directory, *command, keep=str(reading), passed=(reading, stray))
    finally:
        for descriptor in (reading, writing, stray):
            os.close(descriptor)
    assert done.stdout == f"{[0, 1, 2, reading]}\n"


def test_signals_are_as_a_program_expects_them(directory: int) -> None:
    """Nothing is blocked, whatever was, and of the ignored ones only SIGXFSZ stays."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        done = _run(directory, "/bin/cat", "/proc/self/status")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert int(_status(done.stdout, "SigBlk"), 16) == 0
    # 32 and 33 are the C library's own; who started the tests may have ignored them.
    ignored = int(_status(done.stdout, "SigIgn"), 16) & ~(0b11 << 31)
    assert ignored == 1 << 24


def test_file_at_its_limit_is_an_error_and_no_death(directory: int) -> None:
    """A program that writes too much is told so."""
    # The shell and no Python: that would cache modules, cut off at the limit, where all see it.
    line = "head -c 200 /dev/zero > made; echo $?; stat -c %s made"
    done = _run(directory, "/bin/sh", "-c", line, limits=("-", "99", "-", "-"))
    assert done.stdout == "1\n99\n"
    assert "File too large" in done.stderr


def test_foreign_parent_is_refused(directory: int) -> None:
    """A launcher whose service is gone, or that somebody else started, does nothing."""
    done = _run(directory, "/bin/echo", "ran", parent=1)
    assert (done.returncode, done.stdout) == (127, "")
    assert done.stderr == "samovar launcher: check_parent: the parent is gone\n"


def test_missing_program_is_one_line(directory: int) -> None:
    """A program that cannot be run is said so, and not which it was."""
    done = _run(directory, "/nonexistent/claude", "--secret=canary")
    assert done.returncode == 127
    assert done.stderr == "samovar launcher: become: No such file or directory\n"


@pytest.mark.parametrize("numbers", [["1"], ["a", "b", "-", "-", "-", "-", "-", "--", "/bin/true"]])
def test_wrong_arguments_are_one_line(numbers: list[str]) -> None:
    """No traceback reaches the log of a service that calls it wrongly."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", launcher.__file__, *numbers],
        env=ENVIRON,
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (127, 1)
    assert done.stderr.startswith("samovar launcher: run: ")


def test_a_step_that_the_kernel_refuses_raises() -> None:
    """No agent runs with less than it was to have."""
    with pytest.raises(OSError, match="Invalid argument"):
        launcher._prctl(-1, 0)


def test_launcher_imports_little() -> None:
    """A start waits for every module, so the launcher has only what it needs."""
    code = f"import sys; exec(open({launcher.__file__!r}).read().split('def ')[0])"
    code += "; print(*sorted({'enum', 'signal', 're', 'typing', 'pathlib'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], env=ENVIRON, capture_output=True, timeout=BOUND
    )
    assert (done.stdout, done.stderr) == (b"\n", b"")


@pytest.mark.parametrize(
    ("abi", "rights"), [(1, 13), (2, 14), (3, 15), (4, 15), (5, 16), (6, 16), (7, 16)]
)
def test_landlock_withholds_all_that_the_kernel_can(abi: int, rights: int) -> None:
    """Each version knows the rights of the one before, and lacks those of the next."""
    assert launcher._file_rights(abi) == (1 << rights) - 1


def test_a_kernel_without_landlock_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules that nothing keeps are no walls; without rules for files there is nothing to keep."""
    monkeypatch.setattr(launcher, "landlock_abi", lambda: 0)
    with tempfile.TemporaryFile() as rules:
        launcher.confine(str(rules.fileno()))
        rules.write(b"r/usr\0")
        rules.flush()
        with pytest.raises(OSError, match="no Landlock"):
            launcher.confine(str(rules.fileno()))


def test_landlock_is_for_the_process_and_what_it_starts(directory: int, tmp_path: Path) -> None:
    """What no rule allows is denied, and what is allowed to read cannot be written."""
    (tmp_path / "shown").write_text("shown")
    (tmp_path / "hidden").write_text("hidden")
    line = f"cat {tmp_path}/shown {tmp_path}/hidden; echo x > {tmp_path}/shown; true"
    with tempfile.TemporaryFile() as rules:
        paths = ("r/usr", "r/bin", "r/lib", "r/lib64", "r/etc/ld.so.cache", f"r{tmp_path}/shown")
        rules.write("".join(f"{path}\0" for path in (*paths, "r/nonexistent/path")).encode())
        rules.flush()
        number = rules.fileno()
        done = _run(directory, "/bin/sh", "-c", line, rules=str(number), passed=(number,))
    assert done.stdout == "shown"
    assert done.stderr.count("Permission denied") == 2


def test_a_socket_that_listens_is_passed_to_the_service(directory: int) -> None:
    """It listens on the port before the program runs, which keeps neither it nor the way out."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        number = theirs.fileno()
        done = _run(
            directory, "/bin/ls", "/proc/self/fd", where=f"{number}:{port}", passed=(number,)
        )
        assert (done.stdout.split(), done.stderr) == (["0", "1", "2", "3"], "")
        (descriptor,) = socket.recv_fds(ours, 1, 1)[1]
    with socket.socket(fileno=descriptor) as listener:
        assert listener.getsockname() == ("127.0.0.1", port)
        with socket.create_connection(("127.0.0.1", port), BOUND):
            listener.accept()[0].close()


def test_a_port_that_is_taken_stops_the_start(directory: int) -> None:
    """An agent that could not reach the broker is not run."""
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.create_server(("127.0.0.1", 0)) as taken:
        number = theirs.fileno()
        where = f"{number}:{taken.getsockname()[1]}"
        done = _run(directory, "/bin/true", where=where, passed=(number,))
        theirs.close()
        assert done.returncode == 127
        assert done.stderr == "samovar launcher: listen: Address already in use\n"
        assert ours.recv(1) == b""
