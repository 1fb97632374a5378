"""`python -m benchmarks [NAME ...]`: run the benchmarks, print their tables, keep every measurement as JSON.

A benchmark is a file `bench_<name>.py` here with `run(options, progress) -> list[Comparison]` and, when the table of
all is none for it, `report(comparisons) -> str`. `python -m benchmarks horovod-upstream`,
`sklearn-upstream` and `parity` measure no speed and have options of their own.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path

from benchmarks.harness import Comparison, MissingData, NotEqual, Options, save, table
from benchmarks.ranks import RankFailed

HERE = Path(__file__).parent
APART = {  # modules with `main(given) -> int`
    "horovod-upstream": "benchmarks.horovod_upstream",
    "parity": "benchmarks.parity",
    "sklearn-upstream": "benchmarks.sklearn_upstream",
}


def names() -> list[str]:
    return sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))


def arguments(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names()) or 'none yet'}; default: all")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count [default: 5]")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works; no number to quote")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="where the JSON goes")
    parser.add_argument("--list", action="store_true", help="say what there is and end")
    parsed = parser.parse_args(given)
    if unknown := set(parsed.names) - set(names()):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are: {', '.join(names())}")
    if parsed.rounds < 1:
        parser.error("--rounds must be at least 1")
    return parsed


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def say_what(name: str, docstring: str | None) -> None:
    print(f"{name:<20} {(docstring or '').strip().splitlines()[0]}")


def main(given: list[str]) -> int:
    """Exit code: 0 when each that ran measured what it should, 1 when a side failed or two did not compute the same."""
    if given and given[0] in APART:
        return int(importlib.import_module(APART[given[0]]).main(given[1:]))
    parsed = arguments(given)
    data = os.environ.get("PHALANX_DATA")
    options = Options(rounds=parsed.rounds, quick=parsed.quick, data=Path(data) if data else None, out=parsed.out)
    found: list[Comparison] = []
    plain: list[Comparison] = []
    code = 0
    for name in parsed.names or names():
        module = importlib.import_module(f"benchmarks.bench_{name}")
        if parsed.list:
            say_what(name, module.__doc__)
            continue
        try:
            result = module.run(options, progress)
            found += result
            if report := getattr(module, "report", None):
                print(report(result))
            else:
                plain += result
        except MissingData as error:
            progress(f"{name}: left out: {error}")
        except (NotEqual, RankFailed) as error:
            progress(f"{name}: FAILED: {error}")
            code = 1
    for name, path in APART.items() if parsed.list and not parsed.names else ():
        say_what(name, importlib.import_module(path).__doc__)
    if plain:
        print(table(plain))
    if found:
        print(save(found, parsed.out, " ".join(["python -m benchmarks", *given])))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
