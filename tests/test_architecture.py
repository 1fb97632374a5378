"""The house stays a house: floors, contracts, light rooms, small files, no room without tests.

The rooms and the contracts are written here a second time, from the design and not from
pyproject.toml, so that a contract which forgets a new room fails.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tokenize
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "phalanx"

FLOORS = [
    {"foundation"},
    {"job", "events"},
    {"host", "state"},
    {"collectives", "models", "data", "metrics", "telemetry", "isolation", "network"},
    {"parallel", "horovod"},
    {"training"},
    {"planning", "admission", "evaluation", "cluster", "intrusion"},
    {"pages"},
    {"daemons"},
    {"cli"},
]
ALL_ROOMS = set().union(*FLOORS)

WORKERS = {"training", "parallel", "horovod", "collectives", "models", "data"}
STORE_READERS = {"planning", "evaluation", "intrusion", "pages", "daemons", "cli"}
CONTROL_SIDE = {
    "foundation", "job", "events", "host", "state", "data", "metrics",
    "telemetry", "isolation", "network", "admission", "cluster", "daemons",
}  # fmt: skip

FORBIDDEN = {
    "Workers emit; they never query or command": (WORKERS, {"telemetry", "state"}),
    "A split knows no model": ({"parallel"}, {"models", "data"}),
    "Intrusion asks, the cluster acts": ({"intrusion"}, {"isolation", "network"}),
    "The control side loads no torch, even indirectly": (CONTROL_SIDE, {"torch"}),
    "DuckDB and Kafka clients only in telemetry": ({""}, {"duckdb", "kafka", "confluent_kafka", "aiokafka"}),
}

LONGEST_FILE = 500

ROOMS = sorted(path.parent.name for path in SOURCE.glob("*/__init__.py"))
CONTRACTS = {
    contract["name"]: contract
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}


def here(rooms: set[str]) -> set[str]:
    return rooms & set(ROOMS)


def modules(*rooms: str) -> set[str]:
    return {f"phalanx.{room}".rstrip(".") for room in rooms}


def test_every_room_has_its_floor_in_the_design() -> None:
    assert set(ROOMS) <= ALL_ROOMS


def test_the_layers_are_the_floors() -> None:
    layers = CONTRACTS["A room imports lower floors only"]["layers"]
    assert [{name.strip(" ()") for name in layer.split("|")} for layer in reversed(layers)] == FLOORS


def test_only_a_room_that_is_not_there_is_optional() -> None:
    layers = CONTRACTS["A room imports lower floors only"]["layers"]
    optional = {name for layer in layers for name in re.findall(r"\((\w+)\)", layer)}
    assert optional == ALL_ROOMS - set(ROOMS)


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_contract_forbids_what_the_design_forbids_to_every_room_there_is(name: str) -> None:
    sources, forbidden = FORBIDDEN[name]
    sources = here(sources) | (sources & {""})
    targets = here(forbidden) if forbidden <= ALL_ROOMS else forbidden
    if not sources or not targets:
        assert name not in CONTRACTS
        return
    contract = CONTRACTS[name]
    assert set(contract["source_modules"]) == modules(*sources)
    assert set(contract["forbidden_modules"]) == (modules(*targets) if forbidden <= ALL_ROOMS else targets)
    assert not contract.get("allow_indirect_imports", False)


def test_the_store_is_opened_by_its_readers_only() -> None:
    contract = CONTRACTS["Only readers open the store"]
    assert set(contract["protected_modules"]) == {"phalanx.telemetry"}
    assert set(contract["allowed_importers"]) == modules(*here(STORE_READERS))


def test_there_are_no_other_contracts_and_few_exceptions() -> None:
    known = {*FORBIDDEN, "Only readers open the store", "A room imports lower floors only"}
    assert set(CONTRACTS) <= known
    exceptions = [line for contract in CONTRACTS.values() for line in contract.get("ignore_imports", [])]
    assert all(line.startswith("phalanx.telemetry") for line in exceptions)


def test_the_imports_keep_every_contract() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


IMPORT_ALL = """
import importlib, pkgutil, sys
room = importlib.import_module(sys.argv[1])
for found in pkgutil.walk_packages(room.__path__, room.__name__ + "."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def loaded_by_all_of(room: str) -> set[str]:
    """Top-level modules in a fresh interpreter after importing every module of `room`."""
    command = [sys.executable, "-c", IMPORT_ALL, f"phalanx.{room}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("room", sorted(here(CONTROL_SIDE)))
def test_a_light_room_loads_no_torch(room: str) -> None:
    assert "torch" not in loaded_by_all_of(room)


@pytest.mark.parametrize("room", sorted(here(CONTROL_SIDE - STORE_READERS - {"telemetry"})))
def test_a_room_that_does_not_read_the_store_loads_no_duckdb(room: str) -> None:
    assert "duckdb" not in loaded_by_all_of(room)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_can_be_imported_alone(room: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"import phalanx.{room}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_foundation_is_standard_library_only() -> None:
    assert loaded_by_all_of("foundation") <= {"phalanx"} | set(sys.stdlib_module_names) | loaded_by_nothing()


def loaded_by_nothing() -> set[str]:
    """What the interpreter itself brings (editable-install hooks among it)."""
    script = "import sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    return set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_is_short_enough_to_read(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST_FILE


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_has_content_and_tests(room: str) -> None:
    assert [path for path in (SOURCE / room).rglob("*.py") if path.name != "__init__.py"], "an empty room"
    assert list((ROOT / "tests" / room).rglob("test_*.py")), "a room without tests"


def test_every_folder_of_source_is_a_room() -> None:
    folders = {path.name for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(ROOMS)


ONLY_WRITES = "from pickle import dumps"  # for torch's fr_trace, in collectives.flight
# What Horovod's scripts hand to each other is any Python object, between processes of one job that know its key.
WITHIN_A_JOB = {"horovod/runner/calls.py", "horovod/torch/functions.py"}


def test_no_pickle_is_ever_loaded_but_between_processes_of_a_horovod_job() -> None:
    unsafe = re.compile(r"\b(torch\.load|(cloud)?pickle|dill|joblib|shelve|marshal)\b|\ballow_pickle = True")
    found = {path for path in SOURCE.rglob("*.py") if unsafe.search(code_of(path).replace(ONLY_WRITES, ""))}
    assert {str(path.relative_to(SOURCE)) for path in found} == WITHIN_A_JOB


def code_of(path: Path) -> str:
    """The tokens of a file without its comments and strings."""
    with path.open("rb") as file:
        return " ".join(
            token.string for token in tokenize.tokenize(file.readline) if token.type in (tokenize.NAME, tokenize.OP)
        ).replace(" . ", ".")
