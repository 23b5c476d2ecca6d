"""The house stays one: no circles, one name for one thing, short functions, shapes beside tensors, fixtures in one place."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
LONGEST_FUNCTION = 60
SHORT_FUNCTION = 40
LONG_FUNCTIONS = 20

#: What tells the shape of a tensor: ``[B, H]``, ``[N, ...]``, ``prompts_NPH``, or a word for it.
SHAPE = re.compile(r"\[[A-Za-z.][^\]\n]*\]|_[A-Za-z]*[A-Z]m?\b|\b[Ss]hapes?\b|\bscalar\b")


@cache
def modules() -> Mapping[str, ast.Module]:
    """Dotted name -> syntax tree, of the whole package."""
    found = {}
    for file in sorted((SOURCE / "softprompt").rglob("*.py")):
        name = ".".join(file.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        found[name] = ast.parse(file.read_text())
    return found


@cache
def nodes(tree: ast.AST) -> tuple[ast.AST, ...]:
    """All nodes of a syntax tree."""
    return tuple(ast.walk(tree))


def imported(name: str, tree: ast.Module, known: Mapping[str, ast.Module]) -> set[str]:
    """The modules of the package that a module imports anywhere: at its top, in functions, for types alone."""
    named: set[str] = set()
    for node in nodes(tree):
        if isinstance(node, ast.Import):
            named.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            named |= (inner & set(known)) or {node.module}
    return (named & set(known)) - {name}


def circles(arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """Modules that import each other, around whatever corners."""
    reached: dict[str, set[str]] = {}
    for start in arrows:
        seen, waiting = set(), list(arrows[start])
        while waiting:
            at = waiting.pop()
            if at not in seen:
                seen.add(at)
                waiting.extend(arrows.get(at, ()))
        reached[start] = seen
    around = {frozenset(b for b in reached[a] if a in reached.get(b, ())) for a in arrows if a in reached[a]}
    return sorted(sorted(circle) for circle in around)


def test_no_module_imports_itself_around_a_corner() -> None:
    known = modules()
    assert circles({name: imported(name, tree, known) for name, tree in known.items()}) == []


def test_a_circle_is_seen_in_a_function_too() -> None:
    known = {
        "softprompt.a": ast.parse("def f():\n    from softprompt import b\n"),
        "softprompt.b": ast.parse("from softprompt.c import C"),
        "softprompt.c": ast.parse("if TYPE_CHECKING:\n    import softprompt.a"),
        "softprompt.d": ast.parse("import softprompt.a"),
    }
    arrows = {name: imported(name, tree, known) for name, tree in known.items()}
    assert circles(arrows) == [["softprompt.a", "softprompt.b", "softprompt.c"]]


def test_a_public_class_has_a_name_of_its_own() -> None:
    places = defaultdict(list)
    for module, tree in modules().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(module)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function, methods and inner ones included."""
    yield from (node for node in nodes(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from ``def`` to the end, a docstring left out."""
    said = function.body[0]
    doc = isinstance(said, ast.Expr) and isinstance(said.value, ast.Constant) and isinstance(said.value.value, str)
    text = (said.end_lineno or 0) - said.lineno + 1 if doc else 0
    return (function.end_lineno or 0) - function.lineno + 1 - text


def test_functions_are_short() -> None:
    lengths = {
        f"{module}:{function.name}": lines_of(function)
        for module, tree in modules().items()
        for function in functions(tree)
    }
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_FUNCTION} == {}
    long = sorted(name for name, lines in lengths.items() if lines > SHORT_FUNCTION)
    assert len(long) < LONG_FUNCTIONS, long


def has_tensor(annotation: ast.expr | None) -> bool:
    return annotation is not None and re.search(r"\bTensor\b", ast.unparse(annotation)) is not None


@cache
def told_by_a_class() -> frozenset[str]:
    """Methods whose docstring tells shapes in some class; one that overrides them may stay silent."""
    methods = (
        function
        for tree in modules().values()
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        for function in functions(node)
    )
    return frozenset(method.name for method in methods if SHAPE.search(ast.get_docstring(method) or ""))


def untold(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """The tensors of a signature whose shape neither their name nor the docstring tells."""
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    tensors = [argument.arg for argument in arguments if has_tensor(argument.annotation)]
    if has_tensor(function.returns):
        tensors.append(function.name)
    if SHAPE.search(ast.get_docstring(function) or ""):
        return []
    return [name for name in tensors if not SHAPE.search(name)]


def public(
    body: list[ast.stmt], where: str, inherits: bool = False
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Functions and methods that others may call, with their places."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public(node.body, f"{where}.{node.name}", bool(node.bases))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            if inherits and ast.get_docstring(node) is None and node.name in told_by_a_class():
                continue
            yield f"{where}.{node.name}", node


def test_public_functions_tell_the_shapes_of_their_tensors() -> None:
    silent = {
        place: names
        for module, tree in modules().items()
        for place, function in public(tree.body, module)
        if (names := untold(function))
    }
    assert silent == {}


def test_a_tensor_without_a_shape_is_seen() -> None:
    def of(text: str) -> list[str]:
        return untold(ast.parse(text).body[0])  # type: ignore[arg-type]

    assert of('def f(x: Tensor) -> Tensor:\n    """Something."""') == ["x", "f"]
    assert of('def mean_H(x_BH: "Tensor") -> Tensor: ...') == []
    assert of('def f(x: dict[str, Tensor]):\n    """Prompts [N, P, H] by name."""') == []
    assert of("def f(max_rows: int) -> None: ...") == []


IMPORT = re.compile(r"^[ ]*(?:from (tests[\w.]*) import (\([^)]*\)|[^\n]*)|import (tests[\w.]*))", re.MULTILINE)


def imports_of_tests(text: str) -> list[str]:
    """What a module imports from other modules of tests."""
    named = [" ".join(filter(None, found.groups())) for found in IMPORT.finditer(text)]
    return [line for line in named if any(word.startswith("test_") for word in re.split(r"\W+", line))]


def test_no_test_imports_another_test() -> None:
    read = {str(file.relative_to(ROOT)): file.read_text() for file in sorted((ROOT / "tests").rglob("*.py"))}
    assert {file: found for file, text in read.items() if (found := imports_of_tests(text))} == {}


def test_a_test_that_imports_another_is_seen() -> None:
    assert imports_of_tests("from tests.unit.test_cli import call\n")
    assert imports_of_tests("def f():\n    import tests.unit.test_cli\n")
    assert imports_of_tests("from tests.unit import (\n    other,\n    test_cli,\n)\n")
    assert not imports_of_tests("from tests.support.cli import call\n\n\ndef test_it(): ...\n")
