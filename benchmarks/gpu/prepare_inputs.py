"""The folder of inputs for evidence.py, train_speed.py and serving_speed.py, made where the data and the packages are.

    python benchmarks/gpu/prepare_inputs.py ../shared/data build/gpu/inputs
    python benchmarks/gpu/pieces.py cut build/gpu/inputs build/gpu/send --mib 40

Copies the tasks' files, the public T5 vocabulary, and the package that carries the embedded backbone's encoder (91 MB,
``--no-encoder`` leaves it out). All of it arrives under one folder that the jobs are given.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from job import PACKAGES

TASKS = ("mnli", "qqp", "sst2", "qnli", "yelp_polarity", "squad", "rte", "cb", "mrpc", "cr", "stsb", "boolq", "cola", "copa",
         "wic", "wsc")  # fmt: skip


def prepare(data: Path, out: Path, tasks: Sequence[str], *, encoder: bool = True) -> Path:
    """Copy what the jobs need; files that are there already are left.

    Raises:
        SystemExit: a task or the package is not there.
    """
    for name in tasks:
        if not (data / "tasks" / name).is_dir():
            raise SystemExit(f"prepare_inputs: {data} has no task {name}.")
        shutil.copytree(data / "tasks" / name, out / "tasks" / name, dirs_exist_ok=True)
    vocabulary = data / "google" / "t5.spm.model"
    if vocabulary.is_file():
        (out / "google").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(vocabulary, out / "google" / vocabulary.name)
    if encoder:
        from softprompt.backbones.builtin import PACKAGE, SHA256

        found = importlib.util.find_spec(PACKAGE)
        if found is None or not found.submodule_search_locations:
            raise SystemExit(f"prepare_inputs: {PACKAGE} is not installed; give --no-encoder to go without it.")
        source, target = Path(found.submodule_search_locations[0]), out / PACKAGES / PACKAGE
        (target / "model").mkdir(parents=True, exist_ok=True)
        (target / "__init__.py").touch()
        for name in (*SHA256, "config.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
            shutil.copyfile(source / "model" / name, target / "model" / name)
    for path in out.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--no-encoder", action="store_true")
    args = parser.parse_args()
    out = prepare(args.data, args.out, args.tasks, encoder=not args.no_encoder)
    print(f"{out}: {sum(p.stat().st_size for p in out.rglob('*') if p.is_file()) / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
