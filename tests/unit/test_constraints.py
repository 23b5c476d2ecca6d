"""constraints.txt: every package that an extra needs, at one version, with the hashes of its files."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tests.support.scripts import loaded


@pytest.fixture(scope="module")
def lock(repo: Path) -> ModuleType:
    return loaded(repo / "scripts" / "lock.py")


@pytest.fixture(scope="module")
def parts(lock: ModuleType) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = lock.parts_of(lock.LOCK.read_text())
    return found


def needed(name: str, extras: frozenset[str], seen: set[tuple[str, frozenset[str]]]) -> Iterator[str]:
    """Canonical names of what an installed package asks for, with what those ask for."""
    if (name, extras) in seen:
        return
    seen.add((name, extras))
    for line in importlib.metadata.requires(name) or ():
        requirement = Requirement(line)
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in extras or {""}):
            asked = canonicalize_name(requirement.name)
            if asked != "softprompt":
                yield asked
            yield from needed(requirement.name, frozenset(requirement.extras), seen)


@pytest.mark.parametrize(("extra", "within"), [("quickstart", ["quickstart"]), ("dev", ["quickstart", "dev"])])
def test_a_part_holds_all_that_its_extra_asks_for(
    parts: dict[str, dict[str, str]], extra: str, within: list[str]
) -> None:
    held = {name for part in [*within, "cuda"] for name in parts[part]}
    missing = set(needed("softprompt", frozenset({extra}), set())) - held
    assert not missing, f"python scripts/lock.py writes what constraints.txt lacks: {sorted(missing)}"


def test_every_entry_has_one_version_and_hashes(parts: dict[str, dict[str, str]], lock: ModuleType) -> None:
    text = lock.LOCK.read_text()
    entries = [entry for of in parts.values() for entry in of.values()]
    assert len(entries) == len(re.findall(r"^[A-Za-z0-9]", text, re.M)), "a line is no entry with hashes"
    for entry in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}(\s|$)", entry), entry.split()[0]
    versions: dict[str, set[str]] = {}
    for of in parts.values():
        for name, entry in of.items():
            versions.setdefault(name, set()).add(lock.ENTRY.match(entry)[2])
    assert not {name: found for name, found in versions.items() if len(found) > 1}
    assert "://" not in text, "an address does not belong there"


def test_what_is_installed_is_what_is_pinned(parts: dict[str, dict[str, str]], lock: ModuleType) -> None:
    pinned = {name: lock.ENTRY.match(e)[2] for part in ("quickstart", "dev") for name, e in parts[part].items()}
    other = {}
    for name, version in pinned.items():
        try:
            found = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            continue  # for another system, or an extra that was left out
        if found != version:
            other[name] = f"{found}, pinned {version}"
    assert not other


@pytest.mark.slow
def test_the_bill_of_materials_names_what_is_installed(repo: Path, parts: dict[str, dict[str, str]]) -> None:
    module = loaded(repo / "scripts" / "bom.py")
    bill = module.bill("dev")
    names = {component["name"] for component in bill["components"]}
    assert names <= {name for part in ("quickstart", "dev", "cuda") for name in parts[part]}
    assert {"torch", "transformers", "safetensors", "pytest"} <= names
    refs = {c["bom-ref"] for c in bill["components"]} | {bill["metadata"]["component"]["bom-ref"]}
    assert {ref for told in bill["dependencies"] for ref in (told["ref"], *told["dependsOn"])} <= refs
    assert all(component.get("licenses") and component.get("hashes") for component in bill["components"])
