"""Exit codes and sentences: what a user sees when something is wrong."""

from __future__ import annotations

import errno
import inspect
import os
from pathlib import Path

import pytest

from softprompt import errors
from softprompt.cli import app
from softprompt.errors import SoftpromptError, UnknownNameError

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, SoftpromptError)]


@pytest.mark.parametrize("error", CLASSES, ids=lambda c: c.__name__)
def test_each_class_and_its_code_are_documented(error: type[SoftpromptError], repo: Path) -> None:
    rows = [row for row in (repo / "docs" / "errors.md").read_text().splitlines() if f"`{error.__name__}`" in row]
    assert rows, f"docs/errors.md does not name {error.__name__}"
    assert rows[0].split("|")[1].strip() == str(error.exit_code)


def test_codes_are_those_of_the_contract() -> None:
    codes = {c.__name__: c.exit_code for c in CLASSES}
    assert codes["UsageError"] == codes["DataError"] == codes["UnknownNameError"] == 2
    assert (codes["CorruptArtifactError"], codes["IncompatibleBackboneError"], codes["NonFiniteError"]) == (3, 4, 5)
    assert codes["Interrupted"] == 75


def test_unknown_names_offer_the_nearest() -> None:
    message = str(UnknownNameError("task", "sts2", ["sst2", "mnli", "qqp"]))
    assert "'sts2'" in message
    assert "did you mean sst2" in message
    assert "mnli, qqp, sst2" in str(UnknownNameError("task", "zzzzzz", ["sst2", "mnli", "qqp"]))
    assert "none are known" in str(UnknownNameError("task", "a", []))


@pytest.mark.parametrize(
    ("error", "words", "code"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/some/file"), ["disk is full", "/some/file"], 1),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), ["disk is full"], 1),
        (FileNotFoundError(errno.ENOENT, "No such file", "/not/there"), ["/not/there", "check the path"], 1),
        (PermissionError(errno.EACCES, "Permission denied", "/root/x"), ["no permission", "/root/x"], 1),
        (MemoryError(), ["out of memory", "--batch-size"], 1),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), ["out of memory"], 1),
        (KeyboardInterrupt(), ["stopped"], 130),
        (ZeroDivisionError("division by zero"), ["ZeroDivisionError", "--debug"], 1),
        (errors.Interrupted("stopped at step 5; repeat with --resume."), ["--resume"], 75),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_every_failure_is_one_sentence_with_a_code(error: BaseException, words: list[str], code: int) -> None:
    sentence, given = app.explain(error)
    assert given == code
    assert "\n" not in sentence
    assert all(word in sentence for word in words)


def test_torch_out_of_memory_says_what_to_lower() -> None:
    torch = pytest.importorskip("torch")
    sentence, code = app.explain(torch.OutOfMemoryError("CUDA out of memory"))
    assert code == 1
    assert "--batch-size" in sentence
