"""`horovod.run`: a function that real processes call, and what comes back."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

import phalanx.horovod
from phalanx.foundation import PhalanxError, UsageError
from phalanx.horovod import wire
from phalanx.horovod.runner import calls as calls_module
from phalanx.horovod.runner.calls import CallFailed, Calls, dump
from phalanx.horovod.runner.launch import WorkerFailed
from tests.processes import left_behind


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path):
    """Functions of this file are pickled by what they are, as those of a script."""
    import cloudpickle

    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    yield
    cloudpickle.unregister_pickle_by_value(module)


def place(word, other=""):
    return int(os.environ["HOROVOD_RANK"]), int(os.environ["HOROVOD_SIZE"]), word + other


def test_every_rank_calls_the_function_and_results_come_by_rank(tmp_path):
    results = phalanx.horovod.run(place, args=("a",), kwargs={"other": "b"}, num_proc=3)
    assert results == [(0, 3, "ab"), (1, 3, "ab"), (2, 3, "ab")]
    assert list(tmp_path.iterdir()) == []


def joins():
    import phalanx.horovod.torch as hvd

    hvd.init()
    return hvd.rank(), hvd.size()


def test_of_an_elastic_job_come_as_many_results_as_it_has_at_least(monkeypatch, capfd):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert phalanx.horovod.run(joins, num_proc=2, min_num_proc=1) == [(0, 2)]
    discovered = {"host_discovery_script": "echo localhost:2"}
    assert phalanx.horovod.run(joins, num_proc=2, min_num_proc=2, **discovered) == [(0, 2), (1, 2)]


def test_closures_go_both_ways():
    given = os.urandom(1 << 20)

    def back():
        return given[::-1]

    assert phalanx.horovod.run(back) == [given[::-1]]


def fails(rank, how):
    if os.environ["HOROVOD_RANK"] == str(rank):
        exec(how)
    import time

    time.sleep(600)


def test_an_exception_is_raised_in_the_caller_with_its_rank_and_traceback(capfd):
    with pytest.raises(CallFailed) as failed:
        phalanx.horovod.run(fails, (1, "raise ValueError('bad batch')"), num_proc=2)
    assert isinstance(failed.value, RuntimeError)
    assert failed.value.rank == 1
    lines = str(failed.value).splitlines()
    assert lines[0] == "rank 1: ValueError: bad batch"
    assert lines[1] == "Traceback (most recent call last):"
    assert "in fails" in str(failed.value)
    assert "[1]<stderr>:ValueError: bad batch" in capfd.readouterr().err


def test_a_process_that_ends_otherwise_is_raised_with_its_rank(capfd):
    with pytest.raises(WorkerFailed, match="rank 1 on localhost: ended with exit code 7"):
        phalanx.horovod.run(fails, (1, "import sys; sys.exit(7)"), num_proc=2)
    with pytest.raises(WorkerFailed, match="rank 0 on localhost: was killed by SIGKILL"):
        phalanx.horovod.run(fails, (0, "import os; os.kill(os.getpid(), 9)"), num_proc=2)
    with pytest.raises(PhalanxError, match="rank 0 ended before the function returned"):
        phalanx.horovod.run(fails, (0, "import sys; sys.exit(0)"), num_proc=1)


def test_a_result_that_cannot_be_pickled_is_said(capfd):
    with pytest.raises(CallFailed, match="cannot be pickled"):
        phalanx.horovod.run(threading.Lock, num_proc=1)


def test_an_argument_that_cannot_be_pickled_starts_nothing():
    with pytest.raises(PhalanxError, match="cannot be pickled"):
        phalanx.horovod.run(place, (threading.Lock(),), num_proc=1)


def test_old_names_are_taken_with_a_warning():
    with pytest.warns(DeprecationWarning, match="np is an old name: use num_proc"):
        assert len(phalanx.horovod.run(place, ("a",), np=2)) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(phalanx.horovod.run(place, ("a",), num_proc=1, verbose=2, use_gloo=1, use_mpi=0)) == 1


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(ValueError, match="hosts and hostfile"):
        phalanx.horovod.run(place, hosts="a:1", hostfile="b")
    with pytest.raises(ValueError, match="use_gloo and use_mpi"):
        phalanx.horovod.run(place, use_gloo=True, use_mpi=True)
    with pytest.raises(UsageError, match="3 processes were asked for, but there are 2 slots"):
        phalanx.horovod.run(place, num_proc=3, hosts="localhost:2")


def test_what_the_processes_write_goes_where_it_is_asked_for(tmp_path, capfd):
    assert phalanx.horovod.run(print, ("hello",), num_proc=2, output_filename=str(tmp_path / "out")) == [None, None]
    assert sorted(capfd.readouterr().out.splitlines()) == ["[0]<stdout>:hello", "[1]<stdout>:hello"]
    assert (tmp_path / "out" / "rank.1" / "stdout").read_text() == "[1]<stdout>:hello\n"


def test_another_python_can_be_named(tmp_path):
    wrapper = tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\nOURS=1 exec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    assert phalanx.horovod.run(lambda: os.environ["OURS"], executable=str(wrapper)) == ["1"]
    wrapper.unlink()


def test_a_notebook_or_thread_may_call_it_too():
    results = []
    thread = threading.Thread(target=lambda: results.append(phalanx.horovod.run(place, ("a",), num_proc=1)))
    thread.start()
    thread.join(30)
    assert results == [[(0, 1, "a")]]


def test_nothing_is_served_to_those_who_do_not_know_the_key(tmp_path):
    with Calls(dump("secret"), f"unix:{tmp_path / 'calls'}", "key") as calls:
        assert oct((tmp_path / "calls").stat().st_mode)[-3:] == "600"
        with pytest.raises(wire.WireError):
            wire.connect(calls.address, b"another", 5)
        good = wire.connect(calls.address, b"key", 5)
        assert good.receive(5) == 1
        good.close()


def test_what_is_larger_than_a_message_goes_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(calls_module, "_PIECE", 1000)
    monkeypatch.setenv("HOROVOD_RANK", "3")
    given = os.urandom(12_345)
    (tmp_path / "key").write_bytes(b"key")
    with Calls(dump(lambda: given[::-1]), f"unix:{tmp_path / 'calls'}", "key") as calls:
        environment = {"PHALANX_KEY_FILE": str(tmp_path / "key"), calls_module.ADDRESS: calls.address}
        assert calls_module.call(environment) == 0
        assert calls.result(3) == given[::-1]


def test_a_script_that_is_interrupted_leaves_nothing(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import time\nimport phalanx.horovod as hvd\n"
        "def wait(mark):\n    print('waiting', flush=True)\n    time.sleep(600)\n"
        f"hvd.run(wait, ('{tmp_path}',), num_proc=2, executable='{tmp_path}/python')\n"
    )
    wrapper = tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} "$@" {tmp_path}\n')  # which names it for all to see
    wrapper.chmod(0o755)
    caller = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert caller.stdout is not None
    for _ in range(2):
        assert b"waiting" in caller.stdout.readline()
    caller.kill()
    caller.communicate()
    assert not left_behind(Path(tmp_path))


def test_torch_is_not_loaded_by_the_caller():
    code = "import sys, horovod\nhorovod.run(int, num_proc=1)\nassert 'torch' not in sys.modules"
    folder = Path(phalanx.horovod.__file__).parent / "path"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(folder)}, check=False)
    assert done.returncode == 0
