"""The door of a job: who knows the key gets in, whoever else stands there."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from phalanx.horovod import wire
from phalanx.horovod.wire import Listener, Wire

PATIENCE_S = 30.0


def open_door(kind: str, folder: Path) -> contextlib.closing[Listener]:
    where = f"unix:{folder / 'door'}" if kind == "unix" else "127.0.0.1:0"
    return contextlib.closing(wire.listen(where, b"right"))


@pytest.fixture(params=["unix", "tcp"])
def door(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Listener]:
    with open_door(request.param, tmp_path) as found:
        yield found


def stranger(door: Listener) -> socket.socket:
    """Somebody who comes and says nothing."""
    if door.address.startswith("unix:"):
        found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        found.connect(door.address.removeprefix("unix:"))
    else:
        host, _, port = door.address.rpartition(":")
        found = socket.create_connection((host, int(port)))
    found.settimeout(PATIENCE_S)
    return found


def is_sent_away(one: socket.socket) -> bool:
    """Once whatever it was asked has been read."""
    while one.recv(4096):
        pass
    return True


def both_ends(door: Listener) -> tuple[Wire, Wire]:
    caller = wire.connect(door.address, b"right", PATIENCE_S)
    found = door.accept(PATIENCE_S)
    assert found is not None
    return caller, found


def test_messages_go_both_ways(door: Listener) -> None:
    caller, found = both_ends(door)
    with contextlib.closing(caller), contextlib.closing(found):
        caller.send({"hello": [1, 2.5, None, "\u00e9"]})
        assert found.receive(PATIENCE_S) == {"hello": [1, 2.5, None, "\u00e9"]}
        found.send_soon("back")
        assert caller.receive(PATIENCE_S) == "back"
        with pytest.raises(wire.WireTimeout):
            caller.receive(0.01)


def test_who_does_not_know_the_key_is_not_let_in_and_harms_nobody(door: Listener) -> None:
    with pytest.raises(wire.WireError, match="does not know the key of this job"):
        wire.connect(door.address, b"wrong", PATIENCE_S)
    assert door.accept(0.01) is None
    caller, found = both_ends(door)
    caller.close()
    with contextlib.closing(found), pytest.raises(wire.WireClosed):
        found.receive(PATIENCE_S)


def test_strangers_who_say_nothing_keep_nobody_out(door: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_HANDSHAKE_S", 600.0)
    with contextlib.ExitStack() as theirs:
        strangers = [theirs.enter_context(stranger(door)) for _ in range(20)]
        for one in strangers:
            assert one.recv(4096), "it is not asked who it is"
        for end in both_ends(door):
            end.close()
        for one in strangers:
            one.setblocking(False)
            with pytest.raises(BlockingIOError):  # it still stands there
                one.recv(1)


def test_beyond_some_strangers_the_next_wait_until_one_has_been_sent_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "_HANDSHAKE_S", 0.2)
    monkeypatch.setattr(wire, "MOST_AT_ONCE", 2)
    with open_door("unix", tmp_path) as door, contextlib.ExitStack() as theirs:
        strangers = [theirs.enter_context(stranger(door)) for _ in range(5)]
        for end in both_ends(door):
            end.close()
        assert all(is_sent_away(one) for one in strangers)


def test_one_who_speaks_slowly_has_no_more_time_than_one_who_is_silent(
    door: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "_HANDSHAKE_S", 0.3)
    with stranger(door) as one:
        one.send((1 << 16).to_bytes(4, "big"))
        one.settimeout(0.02)

        def speak() -> None:
            for _ in range(1 << 16):  # one byte now and then, for 20 minutes
                one.send(b"x")
                with contextlib.suppress(TimeoutError):
                    one.recv(4096)

        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            speak()


def test_a_door_at_which_nobody_answers_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_HANDSHAKE_S", 0.1)
    with pytest.raises(wire.WireTimeout, match="nobody answers"):
        wire.connect(f"unix:{tmp_path / 'nobody'}", b"right", 0.1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as deaf:
        deaf.bind(str(tmp_path / "deaf"))
        deaf.listen()
        with pytest.raises(wire.WireTimeout, match=r"proved nothing within 0\.1 s"):
            wire.connect(f"unix:{tmp_path / 'deaf'}", b"right", 0.1)


def test_who_waits_at_a_door_is_told_when_it_closes(door: Listener) -> None:
    told: list[str] = []

    def wait() -> None:
        try:
            door.accept()
        except wire.WireClosed as error:
            told.append(error.message)

    waiting = [threading.Thread(target=wait) for _ in range(2)]
    for thread in waiting:
        thread.start()
    door.close()
    door.close()
    for thread in waiting:
        thread.join(PATIENCE_S)
    assert told == [f"no longer listening at {door.address}"] * 2
    assert not os.path.exists(door.address.removeprefix("unix:"))


def test_who_came_and_was_not_let_in_is_sent_away_when_the_door_closes(door: Listener) -> None:
    caller = wire.connect(door.address, b"right", PATIENCE_S)
    door.close()
    with contextlib.closing(caller), pytest.raises(wire.WireClosed):
        caller.receive(PATIENCE_S)


def test_a_connection_that_is_forgotten_closes_its_descriptor_once(
    door: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", wrong.append)
    caller, found = both_ends(door)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)  # of a socket that would close what is closed already
        del caller
        gc.collect()
    with contextlib.closing(found), pytest.raises(wire.WireClosed):
        found.receive(PATIENCE_S)
    assert wrong == []
