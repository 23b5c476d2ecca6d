"""The scripts and notebooks of examples/ run as they are, on a short training; as printed they take minutes."""

from __future__ import annotations

import ast
import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest

SHORT = {"steps": 4, "eval_every": 2, "batch_size": 4, "prompt_length": 4, "embedding_step": 2}


@pytest.mark.slow
def test_own_data_goes_from_a_frame_to_answers(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    example = runpy.run_path(str(repo / "examples" / "own_data.py"))
    example["main"](**SHORT)
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "<Task reviews: 2 labels, accuracy>"
    assert "validation rows of reviews, most frequent label" in out[1]
    assert [set(eval(line[line.index("{") :])) for line in out[2:4]] == [{"negative", "positive"}] * 2
    assert out[4] == "<StoredPrompt reviews@1 in runs/own_data/library> serves with: softprompt serve runs/own_data"
    assert (tmp_path / "runs/own_data/peft/adapter_model.safetensors").is_file()


def cells(notebook: Path) -> list[str]:
    """The code of a notebook, with the form that Jupyter asks for checked."""
    read = json.loads(notebook.read_text(encoding="utf-8"))
    assert (read["nbformat"], read["metadata"]["kernelspec"]["name"]) == (4, "python3")
    assert len({cell["id"] for cell in read["cells"]}) == len(read["cells"])
    for cell in read["cells"]:
        kept = {"cell_type", "id", "metadata", "source"}
        assert set(cell) == (kept | {"execution_count", "outputs"} if cell["cell_type"] == "code" else kept)
    assert not any(cell.get("outputs") for cell in read["cells"]), "outputs are not committed"
    return ["".join(cell["source"]) for cell in read["cells"] if cell["cell_type"] == "code"]


def run_cells(code: list[str], names: dict[str, Any]) -> list[Any]:
    """Execute cells in order in one namespace, as a kernel does; gives what the last line of each shows."""
    shown = []
    for number, source in enumerate(code):
        parsed = ast.parse(source, f"cell {number}")
        last = parsed.body.pop() if isinstance(parsed.body[-1], ast.Expr) else None
        exec(compile(parsed, f"cell {number}", "exec"), names)
        shown.append(eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names) if last else None)
    return shown


@pytest.mark.parametrize("settings", [SHORT, pytest.param(None, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_the_notebook_runs_from_its_first_cell_to_its_last(
    settings: dict[str, int] | None, repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On short settings and a tiny backbone; as printed where it is slow."""
    pytest.importorskip("pandas")
    shutil.copy(repo / "examples" / "reviews.csv", tmp_path)
    monkeypatch.chdir(tmp_path)
    code = cells(repo / "examples" / "own_data.ipynb")
    if settings is not None:
        from tests.support.models import tiny_backbone

        import softprompt as sp

        assert sum('SETTINGS = {"steps": 100}' in cell for cell in code) == 1
        code = [cell.replace('{"steps": 100}', repr(settings)) for cell in code]
        monkeypatch.setattr(sp, "load_backbone", lambda: tiny_backbone("llama"))
    shown = run_cells(code, {"__name__": "__main__"})
    assert list(shown[0].columns) == ["review", "label"]
    assert repr(shown[2]).startswith("<TunedPrompt reviews@1: ")
    assert shown[3].rows == len(shown[3].predictions) > 50
    assert list(shown[4].columns) == ["label", "negative", "positive"]
    assert list(shown[5]["prompt"]) == ["known@1"]
    assert (tmp_path / "reviews-peft" / "adapter_model.safetensors").is_file()
    if settings is None:
        assert shown[3].score > shown[3].majority
