"""The command line as a user meets it: help, flags, JSON, exit codes, how fast it answers."""

from __future__ import annotations

import ast
import contextlib
import json
import math
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from tests.support.cli import call
from tests.support.scripts import loaded

from softprompt.cli import app
from softprompt.cli.output import Answer, plain, put
from softprompt.training.settings import TrainSettings


def commands(program: Any = None, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The path of every command and group, the program itself first."""
    program = program or app.parser()
    found = [path]
    for name, inner in getattr(program, "commands", {}).items():
        found += commands(inner, (*path, name))
    return found


def _command(path: tuple[str, ...]) -> Any:
    """The parser of a command or group."""
    found: Any = app.parser()
    for name in path:
        found = found.commands[name]
    return found


@pytest.mark.parametrize("path", commands(), ids=lambda path: " ".join(path) or "softprompt")
def test_every_help_answers(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, *path, "--help")
    assert code == 0
    assert not err
    assert out.startswith("Usage: softprompt")
    assert " ".join(path) in out


@pytest.mark.parametrize("path", commands()[1:], ids=" ".join)
def test_every_command_takes_json_and_debug(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capsys, *path, "--help")
    if "Commands:" not in out:
        assert "--json" in out
        assert "--debug" in out


def test_every_help_line_fits_the_list(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in a list of commands is cut off with dots."""
    monkeypatch.setenv("COLUMNS", "80")
    for path in commands():
        _, out, _ = call(capsys, *path, "--help")
        _, _, listed = out.partition("Commands:")
        assert "..." not in listed, listed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("doctr",), ["'doctr'", "'doctor'"]),
        (("doctor", "--jsn"), ["--jsn", "--json"]),
        (("doctor", "surplus"), ["surplus", "doctor --help"]),
        (("--nonsense",), ["--nonsense"]),
    ],
)
def test_wrong_requests_offer_what_is_near(
    arguments: tuple[str, ...], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(capsys, *arguments)
    assert code == 2
    assert not out
    assert err.count("\n") == 1
    assert err.startswith("softprompt: ")
    assert all(word in err for word in words)


def test_no_arguments_print_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys)
    assert code == 2
    assert "Commands:" in out
    assert not err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    import softprompt

    assert call(capsys, "--version") == (0, f"{softprompt.__version__}\n", "")


def test_doctor_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "doctor", "--json")
    assert code == 0
    found = json.loads(out)
    assert {"machine", "packages", "extras", "backends", "backbone", "caches"} <= {f["area"] for f in found["findings"]}
    assert all(f["level"] in ("ok", "note", "problem") for f in found["findings"])
    assert all(f["remedy"] for f in found["findings"] if f["level"] == "problem")


def test_doctor_speaks_to_people(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "doctor")
    assert code == 0
    assert "cores" in out
    assert "torch" in out


@dataclass
class Point:
    """A value to be printed."""

    where: Path
    value: float


def test_json_has_plain_values_only(capsys: pytest.CaptureFixture[str]) -> None:
    data = {"point": Point(Path("a/b"), math.nan), "array": np.arange(3), "scalar": np.float32(1.5), "set": (1, "ü")}
    put(Answer(data=data), as_json=True)
    out = capsys.readouterr().out
    assert json.loads(out) == {
        "point": {"where": "a/b", "value": None}, "array": [0, 1, 2], "scalar": 1.5, "set": [1, "ü"],
    }  # fmt: skip
    assert "ü" in out
    assert plain(math.inf) is None


def test_a_defect_is_one_sentence_and_a_traceback_only_on_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> list[Any]:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("softprompt.doctor.examine", broken)
    code, out, err = call(capsys, "doctor", "--json")
    assert (code, out) == (1, "")
    assert "ZeroDivisionError" in err
    assert "Traceback" not in err
    code, _, err = call(capsys, "doctor", "--debug")
    assert code == 1
    assert "Traceback" in err


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error() -> None:
    result = subprocess.run(
        f"{sys.executable} -m softprompt doctor --json | head -1",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "{\n"
    assert not result.stderr


def test_commands_are_listed_in_one_order_whatever_was_imported_first() -> None:
    show = "from softprompt.cli.app import load_commands; print([c.name for c in load_commands().registered_commands])"
    orders = [
        subprocess.run([sys.executable, "-c", first + show], capture_output=True, text=True, check=True).stdout
        for first in ("", "import softprompt.cli.training; ")
    ]
    assert orders[0] == orders[1]
    assert orders[0].startswith("['quickstart', 'train'")


def test_the_reference_page_is_what_the_commands_say(repo: Path) -> None:
    """docs/cli.md is written by scripts/cli_reference.py; run it where this fails."""
    module = loaded(repo / "scripts" / "cli_reference.py")
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "run: python scripts/cli_reference.py"


COMMANDS = [path for path in commands() if not hasattr(_command(path), "commands")]


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_two_examples_that_it_takes(path: tuple[str, ...]) -> None:
    command = _command(path)
    examples = (command.epilog or "").splitlines()
    assert len(examples) == 2
    for example in examples:
        words = shlex.split(example)
        assert tuple(words[1 : 1 + len(path)]) == path
        command.make_context(" ".join(path), words[1 + len(path) :])


def test_help_shows_what_most_need_and_help_all_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    _, short, _ = call(capsys, "train", "--help")
    assert "--steps" in short
    assert "--weight-decay" not in short
    assert "more flags with --help-all: Rows and wording, Backbone, Training settings" in " ".join(short.split())
    assert "Examples:" in short
    code, whole, err = call(capsys, "train", "--help-all")
    assert (code, err) == (0, "")
    assert "Training settings:" in whole
    missing = [name for name in TrainSettings.names() if f"--{name.replace('_', '-')}" not in whole]
    assert not missing


def test_a_flag_says_what_the_field_says(capsys: pytest.CaptureFixture[str]) -> None:
    _, whole, _ = call(capsys, "train", "--help-all")
    told = " ".join(whole.split())
    assert "Steps over which the rate grows linearly from 0; 0 for none." in told
    _, whole, _ = call(capsys, "model-tune", "--help-all")
    assert "--optimizer adafactor|adamw" in whole


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("softprompt tr", "train"),
        ("softprompt train --task gen_senti", "gen_sentiment_hotel"),
        ("softprompt train --backbone smol", "smollm2"),
        ("softprompt train --recipe spot-t", "spot-target"),
        ("softprompt transfer --strategies best_of_top_k,ra", "best_of_top_k,race"),
        ("softprompt study plan de", "demo"),
    ],
)
def test_names_complete(
    words: str, found: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_SOFTPROMPT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    with pytest.raises(SystemExit):
        app.run([])
    assert found in capsys.readouterr().out.split()


def test_tables_fit_the_columns_that_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for columns in (80, 60):
        monkeypatch.setenv("COLUMNS", str(columns))
        _, out, _ = call(capsys, "tasks", "ls")
        assert max(len(line) for line in out.splitlines() if "─" in line) == columns


def written(repo: Path) -> list[str]:
    """The commands in the code blocks of README and docs, without what a shell does with them."""
    found = []
    for page in (repo / "README.md", *sorted((repo / "docs").rglob("*.md"))):
        if page.name == "cli.md":  # made from the commands themselves
            continue
        for block in re.findall(r"```[a-z]*\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            lines = block.replace("\\\n", " ").splitlines()
            found += [
                line.split("softprompt ", 1)[1] for line in lines if line.startswith(("softprompt ", "$ softprompt "))
            ]
    return [re.split(r" [|<>&#;] ?", line)[0] for line in found if "..." not in line]


def test_the_commands_that_the_pages_write_are_taken(repo: Path) -> None:
    program = _command(())
    commands = written(repo)
    assert len(commands) > 50
    for line in commands:
        words, command = shlex.split(line), program
        path: list[str] = []
        while words and words[0] in getattr(command, "commands", {}):
            path.append(words.pop(0))
            command = command.commands[path[-1]]
        if not hasattr(command, "commands"):
            with contextlib.suppress(typer.Exit):  # of --help
                command.make_context(" ".join(path), words)


LAST = {"submission check"}
"""Commands behind which nothing stands that one command does."""


def test_every_command_ends_with_the_next_ones(repo: Path) -> None:
    """In its own code, or in that of a function of its module which it returns the answer of."""
    without = set()
    for file in sorted((repo / "src" / "softprompt" / "cli").glob("*.py")):
        parsed = ast.parse(file.read_text(encoding="utf-8"))
        functions = {node.name: node for node in ast.walk(parsed) if isinstance(node, ast.FunctionDef)}
        for function in functions.values():
            for call_ in (d for d in function.decorator_list if isinstance(d, ast.Call)):
                if getattr(call_.func, "id", "") != "command":
                    continue
                where, name = (ast.unparse(argument).strip("'") for argument in call_.args[:2])
                called = {
                    getattr(node.func, "id", getattr(node.func, "attr", ""))
                    for node in ast.walk(function) if isinstance(node, ast.Call)
                }  # fmt: skip
                code = [function, *(functions[one] for one in called & functions.keys() - {function.name})]
                if not any(
                    keyword.arg == "next"
                    for part in code
                    for keyword in ast.walk(part)
                    if isinstance(keyword, ast.keyword)
                ):
                    without.add(name if where == "app" else f"{where} {name}")
    assert without == LAST
