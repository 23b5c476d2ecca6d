"""Hostile names and texts: nothing is written outside the library, nothing raw reaches a terminal or a page.

Names: made of traversals, NUL, Unicode that looks like something else, links; given wherever a name becomes a place. Texts:
escapes and scripts in every field of a manifest, in tables and in answers, then shown by the commands and drawn into pages.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.fault.apart import apart
from tests.fault.campaign import Row, Tally
from tests.fault.saves import prompt, record

from softprompt import artifacts
from softprompt.errors import SoftpromptError
from softprompt.library.record import PromptRecord
from softprompt.library.store import Library
from softprompt.study.ledger import Ledger
from softprompt.training.run_dir import RunDir
from softprompt.training.runs import RunResult

PARTS = (
    "..", ".", "", "a", "/", "\\", "\x00", "\n", "\r", " ", "~", "$HOME", "%2e%2e", "..\u2215", "\u2024\u2024", "\uff0e\uff0e", "\u202e",
    "\u0065\u0301", "\u00e9", "\ufb01", "\ud800", "CON", "-rf", "|id", ";id", "`id`", "$(id)", "*", "?", "mnli@0", ".index", ".tmp-1",
    "a" * 300, "link", "outside", ":", "@", "file:", "//", "\x1b[2J", "<b>", "\U0001f600",
)  # fmt: skip
EVIL = (
    "\x1b]0;owned\x07", "\x1b[2J\x1b[1;1H", "\x9b31m", "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "\u202egnp.exe",
    "javascript:alert(1)", "[x](javascript:alert(1))", "[bold]markup[/bold]", "{{ 7 * 7 }}", "\x08\x08\x08", "\u2028", "</title><script>",
    "--><script>", "`$(id)`", "\x7f",
)  # fmt: skip
RAW = ("\x1b", "\x9b", "\x07", "\x08", "\x7f", "\u202e", "\u2028")
MARKUP = ("<script>alert", "<img src=x", "</title><script>")


def _name(draw: random.Random) -> str:
    return "".join(draw.choice(PARTS) + draw.choice(("", "/", "")) for _ in range(draw.randrange(1, 5)))


def _tree(root: Path) -> list[tuple[str, bytes]]:
    found = []
    for path in sorted(root.rglob("*")):
        found.append((str(path), path.read_bytes() if path.is_file() and not path.is_symlink() else b""))
    return found


def _uses(inner: Path, name: str) -> list[Callable[[], object]]:
    """Everything that makes a place of a name."""
    library = Library(inner / "library")

    def imported() -> object:
        from softprompt.library.formats.peft import import_peft, write_peft

        write_peft(inner / "adapter", prompt(1), backbone_name=name, backbone_kind="t5", replace=True)
        return import_peft(library, inner / "adapter", name, replace=True)

    def manifest() -> object:
        """Another's folder, whose manifest says this name."""
        from tests.fault.files import _signed_prompt

        from softprompt.library.formats.peft import import_peft

        other = inner / "other"
        shutil.rmtree(other, ignore_errors=True)
        Library(other).add(record(1))
        place = other / "mnli@0" / "manifest.json"
        place.write_bytes(_signed_prompt({**json.loads(place.read_text()), "name": name}))
        return import_peft(library, other / "mnli@0", replace=True)

    def files() -> object:
        """A manifest that lists a file of this name."""
        from tests.fault.files import _signed_prompt

        place = inner / "library" / "mnli@0" / "manifest.json"
        told, data = json.loads(place.read_text()), place.read_bytes()
        place.write_bytes(_signed_prompt({**told, "files": {**told["files"], name: "0" * 64}}))
        try:
            return library.get("mnli@0").files()
        finally:
            place.write_bytes(data)

    def results() -> object:
        run = RunDir(inner / "run", {"a": 1}, resume=True)
        return run.finish([RunResult(name=name, seed=0, best={"prompt": prompt(1)})])

    def space() -> object:
        from softprompt.methods.sharpt.space import load_space

        return load_space(inner / name)

    return [
        lambda: library.add(PromptRecord(task=name, prompt=prompt(1), backbone_name="t", backbone_fingerprint=None, backbone_kind="t5", versions={})),
        lambda: library.add(PromptRecord(task="x", name=name, prompt=prompt(1), backbone_name="t", backbone_fingerprint=None, backbone_kind="t5", versions={})),
        lambda: library.get(name), lambda: library.remove(name), lambda: name in library, lambda: library.verify([name]),
        lambda: artifacts.write_folder(inner / "folder", {name: b"x"}, replace=True), lambda: artifacts.inside(inner, name),
        lambda: Ledger(inner / "ledger").note(name, "plan", {}), lambda: Ledger(inner / "ledger").has(name, name),
        imported, manifest, files, results, space,
    ]  # fmt: skip


def _names(cases: Sequence[int], folder: Path) -> Any:
    """Cases with names; the world outside ``inner`` must stay as it is."""
    outer = folder / "outer"
    inner = outer / "deep" / "inner"
    inner.mkdir(parents=True)
    (outer / "outside").mkdir()
    (outer / "outside" / "kept").write_text("kept")
    library = Library(inner / "library")
    library.add(record(1))
    (inner / "library" / "link").symlink_to(outer / "outside")
    before = [entry for entry in _tree(outer) if not entry[0].startswith(str(inner))]
    counts: dict[str, int] = {}
    failures = []
    for case in cases:
        draw = random.Random(case)
        name = _name(draw)
        use = draw.choice(_uses(inner, name))
        try:
            use()
            what = "a harmless place"
        except SoftpromptError:
            what = "refused"
        except Exception as error:
            what = "traceback"
            failures.append(f"case {case}: the name {name!r} gave {type(error).__name__}: {error}")
        counts[what] = counts.get(what, 0) + 1
        if not (inner / "library" / "mnli@0").is_dir():
            library.add(record(1))
        after = [entry for entry in _tree(outer) if not entry[0].startswith(str(inner))]
        if after != before:
            failures.append(f"case {case}: the name {name!r} changed something outside")
            before = after
    return [counts, failures]


def _command(*arguments: str) -> str:
    """What a command prints, in both forms."""
    from softprompt.cli import app

    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        app.run(arguments)
    return out.getvalue()


def _texts(cases: Sequence[int], folder: Path) -> Any:
    """Cases with texts."""
    from tests.fault.files import _signed_prompt

    counts: dict[str, int] = {}
    failures = []
    for case in cases:
        draw = random.Random(case)
        evil = draw.choice(EVIL) + draw.choice(("", "x", draw.choice(EVIL)))
        root = folder / str(case)
        root.mkdir()
        shown, page = _SHOWN[case % len(_SHOWN)](root, evil, _signed_prompt)
        raw = [sign for sign in RAW if sign in shown]
        markup = [sign for sign in MARKUP if sign in page]
        if raw or markup:
            failures.append(
                f"case {case}: {evil!r} came through raw as {raw or markup} ({_SHOWN[case % len(_SHOWN)].__name__})"
            )
        what = "shown in plain" if shown else "drawn in plain"
        counts[what] = counts.get(what, 0) + 1
        shutil.rmtree(root)
    return [counts, failures]


def _in_a_manifest(root: Path, evil: str, sign: Any) -> tuple[str, str]:
    """Every text of a manifest, signed anew, as `library` shows and cards draw it."""
    Library(root).add(record(1))
    place = root / "mnli@0" / "manifest.json"
    told = json.loads(place.read_text())
    for key in ("task", "backbone_name", "origin", "licence", "command", "tags", "recipe", "scores", "created"):
        value: Any = {"tags": [evil], "recipe": {evil: evil}, "scores": {evil: 1.0}}.get(key, evil)
        place.write_bytes(sign({**told, key: value}))
        shown = "".join(
            _command("library", *words)
            for words in (("ls", str(root)), ("show", str(root), "mnli@0"), ("verify", str(root)))
        )
        shown += _command("library", "ls", str(root), "--json")
        if any(sign_ in shown for sign_ in RAW):
            return shown, ""
    return shown, ""


def _in_a_record(root: Path, evil: str, sign: Any) -> tuple[str, str]:
    """What a user gives to `Library.add`, as the card draws it."""
    given = {"task": evil, "origin": evil, "licence": evil, "command": evil, "tags": [evil], "backbone_name": evil}
    page = ""
    for key, value in given.items():
        values = {"task": "mnli", "backbone_name": "tiny", key: value}
        with contextlib.suppress(SoftpromptError):
            made = PromptRecord(
                **values, prompt=prompt(1), backbone_fingerprint=None, backbone_kind="t5", versions={}, name="a@0"
            )
            Library(root).add(made, replace=True)
            card = (root / "a@0" / "README.md").read_text()
            page += re.sub(
                r"^---\n.*?^---\n|^```.*?^```", "", card, flags=re.M | re.S
            )  # data and code are not drawn as HTML
    return "", page


def _in_rows(root: Path, evil: str, sign: Any) -> tuple[str, str]:
    """Texts, labels and column names of a table, as `tasks` shows them."""
    rows = [{"text": f"{evil} {i}", "label": (f"yes{evil}", f"no{evil}")[i % 2]} for i in range(12)]
    for split in ("train", "validation"):
        (root / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "odd.jsonl").write_text("".join(json.dumps({evil: "a", "label": str(i % 2)}) + "\n" for i in range(8)))
    shown = "".join(_command("tasks", verb, str(root)) for verb in ("show", "check"))
    return shown + _command("tasks", "show", str(root / "odd.jsonl")) + _command(
        "tasks", "check", str(root / evil.replace("/", ""))
    ), ""


PAGE: dict[str, Any] = {
    "title": "A look", "subtitle": "two", "summary": "One sentence.",
    "table": [{"target": "reviews", "scratch": 70.0, "gain": 35.0}, {"target": "nli", "scratch": [61.0, 1.2], "gain": None}],
    "similarity": {"sources": ["s1", "s2"], "targets": ["reviews"], "average": [[0.5], [-0.25]], "per_token": [[0.1], [0.2]]},
    "curves": {"scratch": [[0, 50.0], [50, 60.0]]}, "settings": {"steps": 300}, "provenance": {"command": "softprompt quickstart"},
    "next": ["softprompt search"], "notes": ["400 rows."],
}  # fmt: skip


def _in_a_page(root: Path, evil: str, sign: Any) -> tuple[str, str]:
    """Every text of a report page."""
    from softprompt.report.quickstart import quickstart_page

    def spoiled(value: Any) -> Any:
        if isinstance(value, str):
            return value + evil
        if isinstance(value, list):
            return [spoiled(item) for item in value]
        return {key: spoiled(item) for key, item in value.items()} if isinstance(value, dict) else value

    told = {key: spoiled(value) for key, value in PAGE.items()}
    told["table"] = [{**row, "target": f"reviews{evil}", f"from {evil}": 1.0} for row in PAGE["table"]]
    if sum(map(ord, evil)) % 20:  # figures take a second to draw
        told = {key: value for key, value in told.items() if key not in ("similarity", "curves")}
    told["settings"] = {evil: evil, "inner": {evil: [evil]}}
    return "", quickstart_page(told)


def _as_an_error(root: Path, evil: str, sign: Any) -> tuple[str, str]:
    """Names and values that a sentence repeats."""
    words = [
        ("library", "show", str(root), evil),
        ("tasks", "show", evil),
        ("eval", evil),
        ("library", evil),
        (evil,),
        ("train", "x", f"--{evil}"),
    ]
    return "".join(_command(*w) for w in words if not any("\x00" in part for part in w)), ""


_SHOWN = (_in_a_manifest, _in_a_record, _in_rows, _in_a_page, _as_an_error)


def run(cases: Sequence[int], folder: Path) -> Tally:
    """Even cases: a name in a place that takes one, drawn from the number; odd ones: a text in one of five roles."""
    tally = Tally()
    for work, some in ((_names, [c for c in cases if c % 2 == 0]), (_texts, [c for c in cases if c % 2])):
        if not some:
            continue
        place = folder / work.__name__
        place.mkdir()
        ended = apart(work, some, place, seconds=580)
        if ended.error or ended.late or ended.signal:
            tally.failures.append(
                f"{work.__name__} {some[0]} to {some[-1]}: {ended.error[-800:] or 'it had to be killed'}"
            )
            continue
        for what, count in ended.value[0].items():
            tally.counts[what] += count
        tally.failures += ended.value[1]
    return tally


ROW = Row(
    name="names", promise="No name leaves its folder, no text steers a terminal or a page",
    tried="traversals, NUL, Unicode and links as names in fifteen places; escapes and scripts in texts that are shown",
    cases=2_000, short=range(10), piece=100, run=run,
)  # fmt: skip
