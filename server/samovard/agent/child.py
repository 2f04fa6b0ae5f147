"""One child process: its handle, its pipes, its process tree, and its end.

Knows signals and pipes. Knows nothing of what is written or read there.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from subprocess import Popen

from samovard.agent import procfs
from samovard.agent.pipes import Pipes
from samovard.agent.process_tree import Tree
from samovard.core.process import Exit

EOF_TIMEOUT, EOF_TIMEOUT_SUSPECT = 5.0, 1.0  # T_eof: a busy CLI ignores the end of its input
TERM_TIMEOUT = 3.0  # T_term
KILL_TIMEOUT = 5.0  # T_kill
REAP_PAUSE = 0.005


class Child:
    """A child that was just spawned. `on_exit` is called once, when its main process has exited.

    `nested` is True if bubblewrap is that process, and the agent runs in a PID namespace below it.
    Raise `OSError` if no handle of it can be had; the child is then dead.
    """

    def __init__(
        self,
        spawned: Popen[bytes],
        marker: str,
        on_data: Callable[[bytes], None],
        on_stall: Callable[[], None],
        on_exit: Callable[[Exit], None],
        stall: float,
        *,
        nested: bool = False,
    ) -> None:
        try:
            self._pidfd = os.pidfd_open(spawned.pid)
        except OSError:
            # Without a handle it could never be stopped, so it is killed now, before it does
            # anything.
            spawned.kill()
            with spawned:
                raise
        self._spawned = spawned
        self._nested = nested
        self._on_exit = on_exit
        self._tree = Tree(spawned.pid, self._pidfd, marker)
        self._loop = asyncio.get_running_loop()
        self._exit: asyncio.Future[None] = self._loop.create_future()
        self._reaped = False
        self.pipes = Pipes(spawned, on_data, on_stall, stall)
        self._loop.add_reader(self._pidfd, self._exited)

    def __repr__(self) -> str:
        return f"<Child {self.pid} exited={self._exit.done()} reaped={self._reaped}>"

    @property
    def pid(self) -> int:
        """The process id."""
        return self._spawned.pid

    @property
    def agent(self) -> int:
        """The pid of the agent itself."""
        return procfs.nested_pid(self.pid) if self._nested else self.pid

    def _exited(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self.pipes.drain()
        # WNOWAIT leaves the exit status in place: the pid and the group cannot be reused yet.
        status = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOWAIT)
        assert status is not None
        by_exit = status.si_code == os.CLD_EXITED
        self._exit.set_result(None)
        self._on_exit(
            Exit(
                code=status.si_status if by_exit else None,
                signal=None if by_exit else status.si_status,
                stderr=self.pipes.stderr,
            )
        )

    def terminate(self) -> None:
        """Close the input and send SIGTERM, on which the CLI ends its own tools too."""
        if not self._reaped:
            self.pipes.close_input()
            self.pipes.resume()
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the whole process tree."""
        if not self._reaped:
            self._tree.kill()

    async def end(self, *, suspect: bool) -> None:
        """Stop the child in steps: end of input, SIGTERM, SIGKILL of the tree; then reap all of it.

        Raise `TimeoutError` if a process survives; call it again then. Idempotent.
        """
        if self._reaped:
            return
        self.pipes.close_input()
        self.pipes.resume()
        if not await self._ends_within(EOF_TIMEOUT_SUSPECT if suspect else EOF_TIMEOUT):
            self._signal(signal.SIGTERM)
            if not await self._ends_within(TERM_TIMEOUT):
                self.kill()
                if not await self._ends_within(KILL_TIMEOUT):
                    raise TimeoutError
        await self._reap()

    async def _ends_within(self, seconds: float) -> bool:
        await asyncio.wait({self._exit}, timeout=seconds)
        return self._exit.done()

    def _signal(self, number: signal.Signals) -> None:
        # It may exit at this moment; the pidfd will report it.
        with contextlib.suppress(ProcessLookupError):
            if self._nested and (agent := self.agent) != self.pid:
                # Of bubblewrap it would be the end, and of the agent with it, at once.
                os.kill(agent, number)
            else:
                os.killpg(self.pid, number)

    async def _reap(self) -> None:
        """Kill and reap what is left, the main process last, so that its pid is not reused
        earlier.
        """
        async with asyncio.timeout(KILL_TIMEOUT):
            while self._tree.survivors():
                self._tree.kill()
                self._tree.reap()
                await asyncio.sleep(REAP_PAUSE)
        self._tree.reap()
        # It has exited, so this does not wait.
        status = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)  # noqa: ASYNC222
        assert status is not None
        self._spawned.returncode = status.si_status  # any number: it is not waited for again
        self._reaped = True
        self.pipes.close()
        os.close(self._pidfd)
