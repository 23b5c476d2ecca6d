"""The bill of materials: what is installed, as CycloneDX 1.6 JSON.

    python scripts/bom.py > bom.json         # what the extra "dev" brings, as it is installed here
    python scripts/bom.py --extra serve      # of another extra; --extra "" for the core alone

Names, versions, licences and what asks for what are from the packages' own metadata; hashes are those that constraints.txt
allows. Nothing is looked up in a network.
"""

from __future__ import annotations

import argparse
import importlib.metadata as metadata
import json
import re
import sys
import uuid
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCK = Path(__file__).resolve().parents[1] / "constraints.txt"


def graph(extra: str) -> dict[str, set[str]]:
    """What each installed package asks for, from softprompt on; what is not installed is left out."""
    found: dict[str, set[str]] = {}
    todo = [("softprompt", frozenset({extra}))]
    done: set[tuple[str, frozenset[str]]] = set()
    while todo:
        name, extras = todo.pop()
        if (name, extras) in done:
            continue
        done.add((name, extras))
        asked = found.setdefault(name, set())
        for line in metadata.requires(name) or ():
            requirement = Requirement(line)
            wanted = requirement.marker is None or any(
                requirement.marker.evaluate({"extra": e}) for e in extras or {""}
            )
            other = canonicalize_name(requirement.name)
            if wanted and _installed(other):
                if other != name:
                    asked.add(other)
                todo.append((other, frozenset(requirement.extras)))
    return found


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def licences(name: str) -> list[dict[str, Any]]:
    """The licence as the package tells it: an SPDX expression, its trove classifiers, or its licence field's first line."""
    told = metadata.metadata(name)
    if told["License-Expression"]:
        return [{"expression": told["License-Expression"]}]
    classes = [c.rpartition(" :: ")[2] for c in told.get_all("Classifier") or () if c.startswith("License ::")]
    first = (told["License"] or "").strip().partition("\n")[0][:100]
    names = classes or ([first] if first else [])
    return [{"license": {"name": one}} for one in names]


def hashes() -> dict[str, list[dict[str, str]]]:
    """The allowed sha256 of each package's files."""
    entries = re.finditer(r"^([\w.-]+)==[^\\\n]*((?:\\\n\s+--hash=\S+ ?)+)", LOCK.read_text(), re.M)
    return {
        canonicalize_name(entry[1]): [
            {"alg": "SHA-256", "content": h} for h in re.findall(r"sha256:(\w{64})", entry[2])
        ]
        for entry in entries
    }


def bill(extra: str) -> dict[str, Any]:
    """The document."""
    found, known = graph(extra), hashes()
    refs = {name: f"pkg:pypi/{name}@{metadata.version(name)}" for name in found}

    def component(name: str) -> dict[str, Any]:
        kind = "application" if name == "softprompt" else "library"
        more = {"licenses": licences(name), "hashes": known.get(name, [])}
        head = {
            "type": kind,
            "bom-ref": refs[name],
            "name": name,
            "version": metadata.version(name),
            "purl": refs[name],
        }
        return head | {key: value for key, value in more.items() if value}

    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(sorted(refs.values())))}",
        "version": 1,
        "metadata": {"component": component("softprompt")},
        "components": [component(name) for name in sorted(found) if name != "softprompt"],
        "dependencies": [{"ref": refs[n], "dependsOn": sorted(refs[o] for o in found[n])} for n in sorted(found)],
    }


def main() -> int:
    """Print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extra", default="dev", help="the extra of softprompt whose packages are listed")
    json.dump(bill(parser.parse_args().extra), sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
