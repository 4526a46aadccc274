"""An event loop in virtual time, with processes that can be killed or stand still between any two of its steps.

Time moves to the next timer at once, so an hour costs what happens in it. Callbacks run in asyncio's own order: what
varies from seed to seed is how long everything takes that a network or a disk is part of, and what fails.

Not a library's: `looptime` turns 42 times before each move of the clock, which is nearly all that a history would do,
and knows no processes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any


class Process:
    """What runs together, stands still together and dies together: all callbacks that it, or its tasks, have asked for.

    A killed process runs nothing more, not even what is in a `finally`. One that stands still goes on with everything
    that has become due meanwhile, in order.
    """

    def __init__(self, name: str, loop: VirtualLoop) -> None:
        self.name = name
        self.is_alive = True
        self.is_still = False
        self.steps = 0
        #: Called at the first step after this one, once: how faults fall between two steps.
        self.interrupt_at: int | None = None
        self.on_interrupt: Callable[[], None] = lambda: None
        self._loop = loop
        self._due: list[asyncio.Handle] = []
        #: Kept, so that nothing of a dead process is run by the garbage collector.
        self.tasks: dict[asyncio.Task[Any], None] = {}

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run something in this process."""
        context = copy_context()
        context.run(_process.set, self)
        task: asyncio.Task[Any] = self._loop.create_task(work, context=context)
        return task

    def kill(self) -> None:
        self.is_alive = False
        self._due.clear()

    def stand_still(self) -> None:
        self.is_still = True

    def go_on(self) -> None:
        self.is_still = False
        due, self._due = self._due, []
        self._loop.run_now(due)

    def step(self, handle: asyncio.Handle, callback: Callable[..., Any], *args: Any) -> None:
        if self.interrupt_at is not None and self.is_alive and self.steps >= self.interrupt_at:
            self.interrupt_at = None
            self.on_interrupt()
        if not self.is_alive:
            return
        if self.is_still:
            self._due.append(handle)
            return
        self.steps += 1
        callback(*args)


_process: ContextVar[Process | None] = ContextVar("process", default=None)


def _bound(handle: Any) -> Any:
    """The handle, run only while its process may run it."""
    process: Process | None = handle._context.get(_process)
    if process is not None:
        callback = handle._callback

        def step(*args: Any) -> None:
            process.step(handle, callback, *args)

        handle._callback = step
    return handle


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs until nothing is due any more, or `run_until_complete` says so."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._selector = self
        self._is_over = False
        #: What belongs to no process.
        self.outside = copy_context()
        self.set_exception_handler(self._note)
        self.faults: list[str] = []

    # What the base class asks of a loop ----------------------------------------------------------------------------

    def time(self) -> float:
        return self._now

    def select(self, timeout: float | None) -> list[Any]:
        """The selector's part: nothing comes from outside, so the time of the next timer has come."""
        if timeout is None:
            raise RuntimeError("nothing will ever happen again: everybody waits for somebody")
        self._now += timeout
        return []

    def _process_events(self, event_list: list[Any]) -> None: ...

    def _write_to_self(self) -> None: ...

    # Processes -----------------------------------------------------------------------------------------------------

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> Any:  # type: ignore[override]
        if self._is_over:
            return asyncio.Handle(callback, args, self, context)
        return _bound(super().call_soon(callback, *args, context=context))

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> Any:
        return _bound(super().call_at(when, callback, *args, context=context))

    def create_task(self, coro: Any, **kwargs: Any) -> Any:
        if self._is_over:
            coro.close()
            raise RuntimeError("it is over")
        task = super().create_task(coro, **kwargs)
        context = kwargs.get("context")
        process = context.get(_process) if context is not None else _process.get()
        if process is not None and process.is_alive:
            process.tasks[task] = None
            task.add_done_callback(lambda done: process.tasks.pop(done, None))
        return task

    def run_now(self, handles: list[asyncio.Handle]) -> None:
        """Once more what a process could not run."""
        self._ready.extend(handles)  # type: ignore[attr-defined]

    def outside_at(self, when: float, callback: Callable[..., Any], *args: Any) -> asyncio.TimerHandle:
        """Call at a moment what happens whoever has died meanwhile."""
        return super().call_at(max(when, self._now), callback, *args, context=self.outside)

    # The end -------------------------------------------------------------------------------------------------------

    def _note(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.faults.append(f"{context.get('message')}: {context.get('exception')!r}")

    def bury(self, processes: list[Process]) -> None:
        """End everything without a word: what is left of tasks must not run later, in another history."""
        self._is_over = True
        for process in processes:
            process.kill()
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            with contextlib.suppress(BaseException):
                task.get_coro().close()
        for process in processes:
            process.tasks.clear()
        self._ready.clear()  # type: ignore[attr-defined]
        self._scheduled.clear()  # type: ignore[attr-defined]
        self.close()
