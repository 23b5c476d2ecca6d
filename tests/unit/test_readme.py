"""The README's Python runs as it stands, and its commands exist."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from softprompt.cli import app


def blocks(repo: Path, language: str) -> list[str]:
    text = (repo / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [block for written, block in found if written == language]


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_python_blocks_run(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As printed, on the embedded backbone; the quick recipe is shortened so that it takes seconds."""
    from softprompt.training import recipes

    short = recipes.quick().having(steps=6, embedding_step=3, eval_every=3, eval_rows=8, batch_size=4)
    monkeypatch.setitem(recipes.RECIPES, "quick", lambda: short)
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(repo, "python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 13
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    out = capsys.readouterr().out
    assert {p.name for p in (tmp_path / "prompts").iterdir() if not p.name.startswith(".")} == {
        "gen_sentiment_film@1", "gen_entailment_scene@1",
    }  # fmt: skip
    assert "gen_sentiment_film@1: " in out
    assert "delivered" in out


def test_one_starts_with_two_commands_that_exist(repo: Path) -> None:
    first = blocks(repo, "")[0]
    commands = [line.split()[0] for line in first.splitlines()]
    assert commands == ["./quickstart", "./check"]
    for name in commands:
        assert (repo / name).stat().st_mode & 0o111


def test_every_command_of_the_table_exists_and_every_command_is_in_it(repo: Path) -> None:
    program = app.parser()
    rows = re.findall(r"^\| (`.*?) \|", (repo / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    named: set[str] = set()
    for row in rows:
        names = re.findall(r"`([^`]+)`", row)
        group = names[0].split()[0] if " " in names[0] else ""
        named |= {name if " " in name or not group else f"{group} {name}" for name in names}
    existing: set[str] = set()
    for name, command in program.commands.items():
        inner = getattr(command, "commands", None)
        existing |= {f"{name} {sub}" for sub in inner} if inner else {name}
    assert named == existing


def commands_in(page: Path) -> Iterator[tuple[str, str]]:
    """The command lines in a page's code blocks, with the program's name left out."""
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"^```\w*\n(.*?)^```$|((?:^    .+\n)+)", text, flags=re.MULTILINE | re.DOTALL):
        for line in re.sub(r"\\\n\s*", " ", "".join(block)).splitlines():
            found = re.match(r"\s*(?:\$ )?(?:softprompt|\./quickstart) (?!.*\|)(.*)", line)
            if found:
                yield ("quickstart " if "./quickstart" in line else "") + found[1], line.strip()


def test_every_command_on_a_page_exists_with_its_flags(repo: Path) -> None:
    program = app.parser()
    wrong, seen = [], 0
    pages = [repo / "README.md", *(page for page in sorted((repo / "docs").glob("*.md")) if page.name != "cli.md")]
    for page in pages:
        for text, line in commands_in(page):
            words = shlex.split(text, comments=True)
            seen += 1
            command: Any = program
            while words and words[0] in getattr(command, "commands", {}):
                command = command.commands[words.pop(0)]
            flags = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
            unknown = [word for word in words if word.startswith("--") and word.split("=")[0] not in {*flags, "--help"}]
            if command is program or hasattr(command, "commands") or unknown:
                wrong.append(f"{page.name}: {line}")
    assert seen > 10
    assert not wrong, "\n".join(wrong)


def test_every_link_to_a_file_leads_somewhere(repo: Path) -> None:
    for page in [repo / "README.md", repo / "CONTRIBUTING.md", *sorted((repo / "docs").glob("*.md"))]:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def twice(text: str) -> list[str]:
    """Headings that stand more than once on a page; lines of code blocks are none."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [heading for heading, n in Counter(re.findall(r"^#+ .*$", prose, flags=re.MULTILINE)).items() if n > 1]


def test_no_section_stands_twice(repo: Path) -> None:
    pages = [repo / "README.md", repo / "CONTRIBUTING.md", *sorted((repo / "docs").glob("*.md"))]
    assert {page.name: again for page in pages if (again := twice(page.read_text(encoding="utf-8")))} == {}


def test_a_section_that_stands_twice_is_seen() -> None:
    assert twice("# A\n\n## B\n\n```\n# a comment\n# a comment\n```\n\n## C\n\n## B\n") == ["## B"]
