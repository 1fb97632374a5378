"""Threads by Horovod's names: what its tests and scripts rely on."""

from __future__ import annotations

import threading

import pytest

from phalanx.horovod.runner.util.threads import execute_function_multithreaded, in_thread, on_event


def test_a_thread_is_begun_with_its_arguments():
    seen = []
    thread = in_thread(lambda *given: seen.append(given), (1, 2), name="mine", daemon=False)
    thread.join()
    assert seen == [(1, 2)]
    assert thread.name == "mine"
    assert not thread.daemon


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_silent_thread_says_nothing_of_its_exception():
    in_thread(lambda: 1 / 0, silent=True).join()


def test_arguments_that_are_no_tuple_are_refused():
    with pytest.raises(ValueError, match="args must be a tuple"):
        in_thread(print, "text")
    with pytest.raises(ValueError, match="args must be a tuple"):
        on_event(threading.Event(), print, "text")


def test_a_function_is_called_on_an_event():
    event, seen = threading.Event(), []
    thread = on_event(event, seen.append, ("called",))
    assert thread.is_alive()
    event.set()
    thread.join()
    assert seen == ["called"]


def test_a_function_is_not_called_after_a_stop():
    event, stop, seen = threading.Event(), threading.Event(), []
    thread = on_event(event, seen.append, ("called",), stop=stop, check_stop_interval_s=0.01, daemon=False)
    stop.set()
    thread.join()
    event.set()
    assert seen == []


def test_an_event_is_needed_and_a_way_to_end():
    with pytest.raises(ValueError, match="event must not be None"):
        on_event(None, print)
    with pytest.raises(ValueError, match="needs a stop event"):
        on_event(threading.Event(), print, daemon=False)


def test_a_function_is_called_with_each_arguments_and_answers_by_index():
    arguments = [[number, 2] for number in range(20)]
    assert execute_function_multithreaded(pow, arguments) == {number: number**2 for number in range(20)}
    assert execute_function_multithreaded(pow, [], True) == {}


def test_no_more_threads_than_allowed_run_at_the_same_time():
    barrier = threading.Barrier(2)
    most = execute_function_multithreaded(lambda: barrier.wait(10), [[]] * 4, max_concurrent_executions=2)
    assert len(most) == 4


def test_calls_that_are_not_waited_for_answer_nothing():
    done = threading.Event()
    assert execute_function_multithreaded(done.set, [[]], block_until_all_done=False) is None
    assert done.wait(10)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_call_that_raises_is_told():
    def divide(number):
        return 1 / number

    with pytest.raises(RuntimeError, match="1 of 2 calls of divide failed"):
        execute_function_multithreaded(divide, [[0], [1]])
