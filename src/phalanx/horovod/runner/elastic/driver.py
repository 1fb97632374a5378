"""The launcher of an elastic job: observes processes, connections and hosts, and does what `transition` says.

    discovery --hosts--+                        +--> start and stop processes (runner.spawn)
    workers ---ready---+--> queue --> transition +--> places, and news, for workers (service)
    processes --exits--+                        +--> one line for each change

One thread does all but listening.
"""

from __future__ import annotations

import contextlib
import queue
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from phalanx.foundation import UsageError
from phalanx.horovod.runner import spawn
from phalanx.horovod.runner.elastic.discovery import HERE, Discovery, DiscoveryFailed, host_of
from phalanx.horovod.runner.elastic.roster import Host, Roster, Rules
from phalanx.horovod.runner.elastic.service import Service
from phalanx.horovod.runner.elastic.transition import (
    Action,
    CallOff,
    Ended,
    Event,
    Finish,
    Form,
    HostsFound,
    Leave,
    Notify,
    Ready,
    Say,
    Start,
    Stop,
    Synced,
    Tick,
    transition,
)
from phalanx.horovod.runner.elastic.worker import DRIVER, WORKER
from phalanx.horovod.runner.hosts import assign
from phalanx.horovod.runner.launch import (
    GRACE_S,
    WorkerFailed,
    common,
    ended_by_signals,
    how_it_ended,
    new_secret,
    place,
    stop,
)
from phalanx.horovod.runner.launch import Say as SayLine
from phalanx.horovod.runner.output import Lines, Terminal, rank_directory
from phalanx.horovod.runner.settings import Settings
from phalanx.horovod.runner.spawn import Worker
from phalanx.horovod.wire import Plain

_EVERY_S = 0.02

_Item: TypeAlias = "tuple[Host, ...] | DiscoveryFailed | tuple[int, dict[str, Any]]"


def run_elastic(
    settings: Settings, argv: Sequence[str], say: SayLine, env: Mapping[str, str] | None = None, secret: str = ""
) -> None:
    """Run `argv` as the elastic job of `settings`, to its end. `env`, `secret`: for its workers, as in `spawn.start`.

    Raises WorkerFailed when it cannot go on, UsageError for a script that does not work from the beginning and for
    hosts that will never do, Terminated after a SIGTERM; in each case no process is left.
    """
    rules = rules_of(settings)
    with contextlib.ExitStack() as stack:
        stack.enter_context(ended_by_signals())
        scratch = Path(tempfile.mkdtemp(prefix="phalanx-"))
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        driver = _Driver(settings, rules, argv, say, scratch, dict(env or {}), secret or new_secret())
        stack.enter_context(driver.service)
        stack.callback(driver.stop)
        if settings.discovery_script is not None:
            stack.enter_context(
                Discovery(
                    settings.discovery_script, settings.slots, scratch, settings.start_timeout_s, driver.queue.put
                )
            )
        else:
            driver.queue.put(tuple(host_of(host.host, host.slots) for host in settings.hosts))
        driver.run()


def rules_of(settings: Settings) -> Rules:
    """What the options ask for. Raises UsageError where there will never be slots enough."""
    least = settings.min_num_proc or settings.num_proc
    start = max(settings.num_proc, least)
    if settings.discovery_script is None:
        assign(settings.hosts, start)
    return Rules(
        start=start,
        least=least,
        most=settings.max_num_proc,
        timeout_s=settings.elastic_timeout_s,
        reset_limit=settings.reset_limit,
        cooldown=settings.cooldown_range,
        discovers=settings.discovery_script is not None,
    )


class _Driver:
    """The processes and connections of one job."""

    def __init__(
        self,
        settings: Settings,
        rules: Rules,
        argv: Sequence[str],
        say: SayLine,
        scratch: Path,
        env: Mapping[str, str],
        secret: str,
    ) -> None:
        self.queue: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self.service = Service(scratch, secret, lambda number, message: self.queue.put((number, message)))
        self._settings = settings
        self._argv = argv
        self._say = say
        self._scratch = scratch
        self._env = env
        self._secret = secret
        self._roster = Roster(rules)
        self._workers: dict[int, Worker] = {}
        self._begin_by: dict[int, float] = {}  # of those that have not begun
        self._terminal = Terminal(sys.stdout, sys.stderr)
        self._said_at = 0.0
        self._found_hosts = False
        self._over: Finish | None = None

    def run(self) -> None:
        """To the end."""
        while self._over is None:
            for event in self._observe():
                self._roster, actions = transition(self._roster, event)
                for action in actions:
                    self._act(action)
            if self._terminal.lost is not None:
                raise self._terminal.lost
        if self._over.why:
            remedy = self._over.remedy or f"look at what it wrote, above{self._in_output()}"
            raise WorkerFailed(self._over.why, where=self._over.who, remedy=remedy)

    def stop(self) -> None:
        """End every process."""
        stop(list(self._workers.values()))

    # What is seen

    def _observe(self) -> Iterator[Event]:
        with contextlib.suppress(queue.Empty):
            item = self.queue.get(timeout=_EVERY_S)
            while True:
                event = self._understand(item)
                if event is not None:
                    yield event
                item = self.queue.get_nowait()
        for number, worker in list(self._workers.items()):
            code = worker.poll()
            if code is not None:
                del self._workers[number]
                yield Ended(time.monotonic(), number, code, self._why(number, worker), random.random())
        self._look_at_beginners()
        yield Tick(time.monotonic())

    def _understand(self, item: _Item) -> Event | None:
        now = time.monotonic()
        match item:
            case DiscoveryFailed():
                if not self._found_hosts:  # it is wrong, and will be: Horovod gives up as well
                    raise UsageError(item.message, where=str(self._settings.discovery_script), remedy=item.remedy)
                self._say(f"{self._settings.discovery_script} {item.message}; the hosts that it named last still count")
            case (int(number), {"ready": bool(needs_sync)}):
                return Ready(now, number, needs_sync)
            case (int(number), {"synced": _}):
                return Synced(now, number)
            case (Host(), *_) | ():
                self._found_hosts = True
                return HostsFound(now, tuple(host for host in item if isinstance(host, Host)))
        return None

    def _why(self, number: int, worker: Worker) -> str:
        words = worker.last_words() if worker.poll() != 0 else ""
        how = how_it_ended(worker)
        if worker.pid is None and number not in self._begin_by:
            how = f"did not start within {self._settings.start_timeout_s:g} s"
        elif worker.pid is None and worker.remote:
            how = "could not be started"
        return f"{how}{f': {words}' if words else ''}"

    def _look_at_beginners(self) -> None:
        for number, deadline in list(self._begin_by.items()):
            worker = self._workers.get(number)
            if worker is None or worker.pid is not None:
                del self._begin_by[number]
            elif time.monotonic() > deadline:
                del self._begin_by[number]
                worker.ask_to_stop(0)

    # What is done

    def _act(self, action: Action) -> None:
        match action:
            case Start(number, host):
                self._start(number, host)
            case Form():
                self._form(action)
            case CallOff(generation, numbers, why):
                for number in numbers:
                    self.service.send(number, {"over": generation, "why": why})
            case Notify(number, result):
                self.service.send(number, {"updated": self._now(), "result": int(result)})
            case Leave(number, why):
                self.service.send(number, {"leave": why})
            case Stop(number):
                if number in self._workers:
                    self._workers[number].ask_to_stop(GRACE_S)
            case Say(text):
                self._say(text)
            case Finish():
                self._over = action

    def _start(self, number: int, host: str) -> None:
        settings = self._settings
        directory = None
        if settings.output is not None:
            most = settings.max_num_proc or sum(found.slots for found in self._roster.hosts)
            directory = rank_directory(settings.output, number, max(most, number + 1))
        local = any(found.name == host and found.machine == HERE for found in self._roster.hosts)
        told = {DRIVER: self.service.address(local), WORKER: str(number), "HOROVOD_ELASTIC": "1"}
        self._begin_by[number] = time.monotonic() + settings.start_timeout_s
        self._workers[number] = spawn.start(
            host,
            self._argv,
            common(settings) | {"HOROVOD_HOSTNAME": host} | told | dict(self._env),
            name=f"worker {number}",
            output=Lines(number, self._terminal, timestamps=settings.timestamps, directory=directory),
            secret=self._secret,
            ssh=settings.ssh,
            scratch=self._scratch,
        )

    def _form(self, form: Form) -> None:
        meeting = self._meeting(form)
        formed_at = self._now()
        nothing = dict.fromkeys(("PHALANX_HOST", "PHALANX_RENDEZVOUS", "MASTER_ADDR", "MASTER_PORT"), "")
        for chosen in form.places:
            own = {"HOROVOD_HOSTNAME": chosen.host, "PHALANX_GENERATION": str(form.generation)}
            variables: dict[str, Plain] = {**nothing, **place(chosen.slot), **meeting, **own}
            self.service.send(chosen.number, {"place": variables, "formed_at": formed_at, "sync": form.sync})

    def _meeting(self, form: Form) -> dict[str, str]:
        """Where the group meets: a file on this machine, else where rank 0's host can be reached."""
        if all(chosen.slot.host == HERE for chosen in form.places):
            return {"PHALANX_RENDEZVOUS": str(self._scratch / f"group-{form.generation}")}
        peers = [self.service.peers[chosen.number] for chosen in form.places]
        first = peers[0]
        interfaces = [first.interfaces[name] for name in self._settings.interfaces if name in first.interfaces]
        through_ssh = first.there or next((peer.here for peer in peers if peer.here), "127.0.0.1")
        return {"MASTER_ADDR": (interfaces or [through_ssh])[0], "MASTER_PORT": str(first.port)}

    def _now(self) -> float:
        """A time later than any before: workers go by the order."""
        self._said_at = max(time.time(), self._said_at + 1e-3)
        return self._said_at

    def _in_output(self) -> str:
        return f" or in {self._settings.output}" if self._settings.output is not None else ""
