"""`python -m benchmarks horovod-upstream --checkout PATH`: Horovod's own tests and examples, unmodified, against ours.

PATH is a checkout of horovod/horovod, tag v0.28.1. Its files are run as they are by `phalanx horovodrun`; the tables of
docs/horovod-tests.md come from here. Knows which files and with which arguments, never which test does what.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.harness import machine
from benchmarks.upstream_runs import FileRun, How, ScriptRun, run_file, run_script
from benchmarks.upstream_table import Left, Report, between_marks, markdown

VERSION = "0.28.1"
HERE = Path(__file__).parent

# Each with the ranks that upstream's own runs use, beside those that are asked for.
TESTS = {
    "test/parallel/test_torch.py": (),
    "test/parallel/test_adasum_pytorch.py": (),
    "test/parallel/test_common.py": (),
    "test/parallel/test_timeline.py": (),
    "test/single/test_torch_elastic.py": (1,),
}


# What fails by upstream's own doing where upstream does not run it, and why.
KNOWN = {
    "test_elastic_sampler": "is for one process: upstream's own `record_batch` multiplies by the number of ranks "
    "(`horovod/torch/elastic/sampler.py:80`), and the test's count does not",
}


@dataclass(frozen=True)
class Example:
    """`{ranks}` in `arguments` and `options`, which are the launcher's, is how many there are.

    `alone`: started on one rank, and starts its ranks itself.
    """

    path: str
    arguments: str
    options: str = ""
    alone: bool = False


_MNIST = "--epochs 3 --lr 0.02 --batch-size 32 --no-cuda"
_SYNTHETIC = "--batch-size 2 --num-warmup-batches 1 --num-batches-per-iter 1 --num-iters 2 --no-cuda"
_IMAGENET = "--batch-size 2 --val-batch-size 2 --base-lr 0.0005 --no-cuda"
_ELASTIC = "--min-np {ranks} --max-np {ranks} -H localhost:{ranks}"
EXAMPLES = (
    Example("examples/pytorch/pytorch_mnist.py", _MNIST),
    Example("examples/pytorch/pytorch_mnist.py", f"{_MNIST} --fp16-allreduce"),
    Example("examples/pytorch/pytorch_mnist.py", f"{_MNIST} --use-adasum"),
    Example("examples/pytorch/pytorch_mnist.py", f"{_MNIST} --gradient-predivide-factor 2"),
    # Calls horovod.run:
    Example(
        "examples/pytorch/pytorch_mnist.py",
        f"{_MNIST} --num-proc {{ranks}} --hosts localhost:{{ranks}} --communication gloo",
        alone=True,
    ),
    Example("examples/pytorch/pytorch_synthetic_benchmark.py", _SYNTHETIC),
    Example("examples/pytorch/pytorch_synthetic_benchmark.py", f"{_SYNTHETIC} --fp16-allreduce"),
    Example("examples/pytorch/pytorch_imagenet_resnet50.py", f"--epochs 1 {_IMAGENET}"),
    # From the checkpoint that the one before has left:
    Example("examples/pytorch/pytorch_imagenet_resnet50.py", f"--epochs 2 {_IMAGENET} --batches-per-allreduce 2"),
    Example("examples/pytorch/pytorch_lightning_mnist.py", "--epochs 1 --no-cuda"),
    Example("examples/elastic/pytorch/pytorch_mnist_elastic.py", _MNIST, _ELASTIC),
    Example("examples/elastic/pytorch/pytorch_synthetic_benchmark_elastic.py", _SYNTHETIC, _ELASTIC),
    Example("examples/elastic/pytorch/pytorch_imagenet_resnet50_elastic.py", f"--epochs 3 {_IMAGENET}", _ELASTIC),
)

# The first that a test file imports or names says why it is not run.
_LEFT_OUT = (
    (r"test/integration/", "replaces parts inside Horovod's launcher while it runs"),
    (r"^\s*(?:import|from) (?:tensorflow|keras)|horovod\.(?:tensorflow|keras)", "TensorFlow, Keras: not provided"),
    (r"^\s*(?:import|from) mxnet|horovod\.mxnet|base_test_mxnet", "MXNet: not provided"),
    (r"horovod\.spark|pyspark", "Spark: not provided"),
    (r"^\s*(?:import|from) ray|horovod\.ray", "Ray: not provided"),
    (r"buildkite", "tests the pipeline of Horovod's own continuous integration"),
    (r"horovod\.runner", "tests modules inside Horovod's launcher, which is another one here"),
)


def arguments(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks horovod-upstream", description=__doc__)
    parser.add_argument("--checkout", type=Path, required=True, help=f"horovod/horovod, tag v{VERSION}")
    parser.add_argument("--ranks", type=_numbers, default="2,4", help="on how many, each in turn [default: 2,4]")
    parser.add_argument("--only", default="", help="of the files, those whose path has this in it")
    parser.add_argument("--aside", default="", help="run what failed again without these classes: torch.optim.Muon")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for a test or a script [default: 120]")
    parser.add_argument("--launcher", default="", help="instead of `phalanx horovodrun`, to compare with another one")
    parser.add_argument("--python", default=sys.executable, help="the Python of the ranks [default: this]")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="where the JSON goes")
    parser.add_argument("--write", type=Path, help="a page whose tables, between marks, are replaced by these")
    parsed = parser.parse_args(given)
    version = parsed.checkout / "horovod" / "__init__.py"
    if not version.exists() or f"'{VERSION}'" not in version.read_text():
        parser.error(f"{parsed.checkout} is no checkout of Horovod {VERSION}")
    if parsed.write:
        try:
            between_marks(parsed.write.read_text(), "")
        except (OSError, ValueError) as error:
            parser.error(f"--write {parsed.write}: {error}")
    parsed.checkout = parsed.checkout.resolve()
    parsed.launcher = parsed.launcher.split() or [str(Path(sys.executable).with_name("phalanx")), "horovodrun"]
    return parsed


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def judge(parsed: argparse.Namespace, scratch: Path) -> Report:
    how = How(parsed.launcher, parsed.python, scratch, parsed.limit)
    files, again = _tests(how, parsed)
    scripts: list[ScriptRun] = []
    for example in EXAMPLES:
        if parsed.only in example.path:
            scripts += [_example(how, parsed.checkout, example, ranks) for ranks in parsed.ranks]
    return Report(files, again, scripts, left_out(parsed.checkout), parsed.aside, KNOWN)


def _tests(how: How, parsed: argparse.Namespace) -> tuple[list[FileRun], list[FileRun]]:
    """All of them, and once more, with the classes set aside, those that failed."""
    aside = replace(how, aside=parsed.aside)
    files: list[FileRun] = []
    again: list[FileRun] = []
    for path, others in TESTS.items():
        if parsed.only not in path:
            continue
        for ranks in sorted({*others, *parsed.ranks}):
            run = run_file(how, parsed.checkout, path, ranks)
            files.append(run)
            _say(run)
            failed = [each.test for each in run.of("failed") if each.by_a_library]
            if parsed.aside and failed:
                again.append(run_file(aside, parsed.checkout, path, ranks, failed))
    return files, again


def _say(run: FileRun) -> None:
    counts = ", ".join(f"{len(run.of(outcome))} {outcome}" for outcome in ("passed", "failed", "skipped"))
    progress(f"{run.path} on {run.ranks}: {counts} in {run.seconds:.0f} s")
    for each in run.of("failed"):
        progress(f"  {each.test}, line {each.line}: {each.reason} ({each.cause})")
    for trouble in run.trouble:
        progress(f"  {trouble}")


def _example(how: How, checkout: Path, example: Example, ranks: int) -> ScriptRun:
    words, options = (text.replace("{ranks}", str(ranks)).split() for text in (example.arguments, example.options))
    kept: list[str] = []
    if "imagenet" in example.path:
        place = f"{how.scratch}/{Path(example.path).stem}-{ranks}"
        kept = [f"--log-dir={place}", f"--checkpoint-format={place}-{{epoch}}.tar"]
    run = run_script(how, checkout, example.path, 1 if example.alone else ranks, words, options, kept)
    progress(f"{example.path} on {ranks}, {' '.join(words)}: {'ran' if run.passed else 'FAILED'}: {run.said}")
    return replace(run, ranks=ranks)


def left_out(checkout: Path) -> list[Left]:
    """Upstream's other test files, by what they are of."""
    found: dict[str, list[str]] = {}
    for file in sorted(checkout.glob("test/*/test_*.py")):
        path = str(file.relative_to(checkout))
        if path not in TESTS:
            text = f"{path}\n{file.read_text()}"
            why = next((why for pattern, why in _LEFT_OUT if re.search(pattern, text, re.MULTILINE)), "not asked for")
            found.setdefault(why, []).append(path)
    return [Left(why, paths) for why, paths in found.items()]


def save(report: Report, parsed: argparse.Namespace, given: Sequence[str]) -> Path:
    """All outcomes, with the digests of the files that were run, as JSON."""
    now = datetime.now(UTC)
    paths = sorted({*(run.path for run in report.files), *(run.path for run in report.scripts)})
    record = {
        "time": now.isoformat(timespec="seconds"),
        "command": " ".join(["python -m benchmarks horovod-upstream", *given]),
        "machine": machine(),
        "sha256": {path: hashlib.sha256((parsed.checkout / path).read_bytes()).hexdigest() for path in paths},
        **asdict(report),
    }
    parsed.out.mkdir(parents=True, exist_ok=True)
    path: Path = parsed.out / f"horovod-upstream-{now:%Y%m%dT%H%M%S}.json"
    path.write_text(json.dumps(record, indent=2) + "\n")
    return path


def main(given: Sequence[str]) -> int:
    """Exit code: 0 when nothing failed but what a library, or upstream itself, is known to break, else 1."""
    parsed = arguments(given)
    with tempfile.TemporaryDirectory(prefix="horovod-upstream-") as scratch:
        report = judge(parsed, Path(scratch))
    tables = markdown(report)
    print(tables)
    print(save(report, parsed, given))
    if parsed.write:
        parsed.write.write_text(between_marks(parsed.write.read_text(), tables))
    return report.failed_by_us
