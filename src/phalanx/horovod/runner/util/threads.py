"""Functions in threads, by Horovod's names."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any


def in_thread(
    target: Callable[..., Any],
    args: tuple[Any, ...] = (),
    name: str | None = None,
    daemon: bool = True,
    silent: bool = False,
) -> threading.Thread:
    """Call `target(*args)` in a thread that has begun when this returns. `silent`: its exceptions are not shown.

    Raises ValueError for arguments that are no tuple.
    """
    if not isinstance(args, tuple):
        raise ValueError(f"args must be a tuple, not {type(args)}: for a single argument, (argument,)")

    def quietly() -> None:
        with contextlib.suppress(BaseException):
            target(*args)

    thread = threading.Thread(target=quietly if silent else target, args=() if silent else args, name=name)
    thread.daemon = daemon
    thread.start()
    return thread


def on_event(
    event: threading.Event,
    func: Callable[..., Any],
    args: tuple[Any, ...] = (),
    stop: threading.Event | None = None,
    check_stop_interval_s: float = 1.0,
    daemon: bool = True,
    silent: bool = False,
) -> threading.Thread:
    """Call `func(*args)` in a thread once `event` is set, unless `stop` is set first: that is looked at each interval.

    Raises ValueError without an event, for arguments that are no tuple, and for a thread that nothing can end.
    """
    if event is None:
        raise ValueError("event must not be None")
    if not isinstance(args, tuple):
        raise ValueError(f"args must be a tuple, not {type(args)}: for a single argument, (argument,)")
    if stop is None and not daemon:
        raise ValueError("a thread that is no daemon needs a stop event")

    def wait() -> None:
        while not event.wait(None if stop is None else check_stop_interval_s):
            if stop is not None and stop.is_set():
                return
        if stop is None or not stop.is_set():
            func(*args)

    return in_thread(wait, daemon=daemon, silent=silent)


def execute_function_multithreaded(
    fn: Callable[..., Any],
    args_list: Sequence[Sequence[Any]],
    block_until_all_done: bool = True,
    max_concurrent_executions: int = 1000,
) -> dict[int, Any] | None:
    """Call `fn` with each of the lists of arguments, in as many threads; what each call returned, by its index.

    Without `block_until_all_done`: None, at once. Raises RuntimeError when a call raised.
    """
    results: dict[int, Any] = {}
    indices = itertools.count()
    one_at_a_time = threading.Lock()

    def work() -> None:
        while True:
            with one_at_a_time:
                index = next(indices)
            if index >= len(args_list):
                return
            results[index] = fn(*args_list[index])

    count = min(max_concurrent_executions, len(args_list))
    threads = [in_thread(work, daemon=not block_until_all_done) for _ in range(count)]
    if not block_until_all_done:
        return None
    for thread in threads:
        thread.join()
    if len(results) != len(args_list):
        raise RuntimeError(f"{len(args_list) - len(results)} of {len(args_list)} calls of {fn.__name__} failed")
    return results
