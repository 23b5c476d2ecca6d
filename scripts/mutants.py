"""Mutation testing: small faults put into the code one at a time; a test should fail for each.

    python scripts/mutants.py                       # all of MODULES; the record is benchmarks/results/mutants.jsonl
    python scripts/mutants.py --module metrics --every 4 --minutes 8

A mutant is one changed place of a module's syntax tree: another comparison, another operator, a number beside, a negated
condition, a statement or keyword argument left out. Tests of the module run in a forked process for each, and stop at the first that
fails. What survives is printed: it is code that no test holds, or a change that changes nothing. Docstrings, annotations, messages of errors and
``raise`` are left alone.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src"), str(ROOT / "recipes")]
for _name, _value in (("OMP_NUM_THREADS", "1"), ("HF_HUB_OFFLINE", "1"), ("TOKENIZERS_PARALLELISM", "false")):
    os.environ.setdefault(_name, _value)
RECORD = ROOT / "benchmarks" / "results" / "mutants.jsonl"
MODULES = {
    "similarity": (
        "softprompt.library.similarity",
        ("tests/unit/library/test_similarity.py", "tests/unit/library/test_search.py"),
    ),
    "mixing": ("softprompt.tasks.mixture", ("tests/unit/tasks/test_mixture.py",)),
    "metrics": ("softprompt.tasks.metrics", ("tests/unit/tasks/test_metrics.py",)),
    "optimiser": ("softprompt.training.optim", ("tests/unit/training/test_optim.py",)),
    "store": ("softprompt.library.store", ("tests/unit/library/test_store.py", "tests/unit/library/test_reading.py")),
}
"""By name: the module, and the tests that should hold it."""
SECONDS = 120
_COMPARE = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn,
            ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is}  # fmt: skip
_OPERATE = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div, ast.Mod: ast.Mult,
            ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd}  # fmt: skip

# What is imported already is not imported again for pytest's sake.
_QUICK = ("--assert=plain", "-p", "no:anyio", "-W", "ignore::pytest.PytestAssertRewriteWarning")
Change = Callable[[Any], None]


def changes(node: ast.AST) -> Iterator[tuple[str, Change]]:
    """What may be put wrong at a node: in words, and as a change of the node itself."""
    if isinstance(node, ast.Compare):
        for i, operator in enumerate(node.ops):
            other = _COMPARE[type(operator)]
            yield (
                f"{type(operator).__name__} as {other.__name__}",
                lambda n, i=i, other=other: n.ops.__setitem__(i, other()),
            )
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in _OPERATE:
        swapped = _OPERATE[type(node.op)]
        yield f"{type(node.op).__name__} as {swapped.__name__}", lambda n: setattr(n, "op", swapped())
    elif isinstance(node, ast.BoolOp):
        turned = ast.Or if isinstance(node.op, ast.And) else ast.And
        yield f"{type(node.op).__name__} as {turned.__name__}", lambda n: setattr(n, "op", turned())
    elif isinstance(node, ast.If | ast.While | ast.IfExp):
        yield "the condition negated", lambda n: setattr(n, "test", ast.UnaryOp(ast.Not(), n.test))
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield f"{node.value} as {not node.value}", lambda n: setattr(n, "value", not n.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield f"{node.value} as {node.value + 1}", lambda n: setattr(n, "value", n.value + 1)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "the sign left out", lambda n: setattr(n, "op", ast.UAdd())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "a not left out", lambda n: setattr(n, "operand", ast.UnaryOp(ast.Not(), n.operand))
    elif isinstance(node, ast.Call) and node.keywords:
        for i, keyword in enumerate(node.keywords):
            if keyword.arg:
                yield f"{keyword.arg}= left out", lambda n, i=i: n.keywords.pop(i)
    elif isinstance(node, ast.Return) and node.value is not None:
        yield "None returned", lambda n: setattr(n, "value", ast.Constant(None))
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "a call left out", lambda n: setattr(n, "value", ast.Constant(None))


def places(tree: ast.AST) -> list[int]:
    """The numbers, in the order of ``ast.walk``, of nodes that may be changed."""
    barred: set[int] = set()
    for node in ast.walk(tree):
        parts: list[Any] = []
        if isinstance(node, ast.Raise):
            parts = [node]
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            parts = [node.returns, *node.decorator_list, *(a.annotation for a in node.args.args + node.args.kwonlyargs)]
        elif isinstance(node, ast.ClassDef):
            parts = [*node.decorator_list]
        elif isinstance(node, ast.AnnAssign):
            parts = [node.annotation]
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            parts = [node]
        barred |= {id(inner) for part in parts if part is not None for inner in ast.walk(part)}
    return [i for i, node in enumerate(ast.walk(tree)) if id(node) not in barred]


def mutants(source: str) -> Iterator[tuple[str, ast.Module]]:
    """(line and change in words, the changed tree) of each mutant of a source."""
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    for number in places(tree):
        for which, (told, _) in enumerate(changes(nodes[number])):
            changed = copy.deepcopy(tree)
            node = list(ast.walk(changed))[number]
            list(changes(node))[which][1](node)
            yield f"line {getattr(node, 'lineno', 0)}: {told}", ast.fix_missing_locations(changed)


def killed_by(tests: tuple[str, ...], module: str, tree: ast.Module | None) -> bool:
    """Whether a test fails with the mutant in the place of the module; forked, so that nothing is imported again."""
    pid = os.fork()
    if pid == 0:
        _run_tests(tests, module, tree)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status != 0
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True


def _run_tests(tests: tuple[str, ...], module: str, tree: ast.Module | None) -> None:
    import pytest

    code = 3
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        os.chdir(ROOT)
        if tree is not None:
            held = sys.modules[module]
            exec(compile(tree, str(held.__file__), "exec"), held.__dict__)
            _tell_the_others(held)
        code = int(
            pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-m", "not slow", "--no-header", *_QUICK, *tests])
        )
    except BaseException:
        code = 3
    finally:
        os._exit(code)


def _tell_the_others(module: Any) -> None:
    """Modules that took a name from this one get the new thing of that name."""
    for other in list(sys.modules.values()):
        names = getattr(other, "__dict__", None)
        if other is module or not str(getattr(other, "__name__", "")).startswith("softprompt"):
            continue
        for name, value in list((names or {}).items()):
            if getattr(value, "__module__", None) == module.__name__ and name in module.__dict__:
                with contextlib.suppress(AttributeError, TypeError):
                    setattr(other, name, module.__dict__[name])


def try_module(name: str, every: int, until: float) -> dict[str, Any]:
    """The record of a module."""
    module, tests = MODULES[name]
    held = importlib.import_module(module)
    source = Path(str(held.__file__)).read_text()
    if killed_by(tests, module, None):
        sys.exit(f"mutants.py: the tests of {name} fail without any mutant: mend them first.")
    found = list(mutants(source))
    random.Random(0).shuffle(found)
    begun, survivors, tried = time.monotonic(), [], 0
    for told, tree in found[::every]:
        if time.monotonic() > until:
            break
        tried += 1
        if not killed_by(tests, module, tree):
            survivors.append(told)
    return {
        "module": name, "mutants": len(found), "tried": tried, "killed": tried - len(survivors), "survivors": sorted(survivors),
        "tests": list(tests), "seconds": round(time.monotonic() - begun, 1), "command": f"python scripts/mutants.py --module {name} --every {every}",
    }  # fmt: skip


def main() -> int:
    """Try what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--module", choices=MODULES, action="append", help="only this one (may be repeated)")
    parser.add_argument("--every", type=int, default=1, help="try each n-th mutant of a shuffled list")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no mutant after this time, for each module")
    args = parser.parse_args()
    import tests.support.models
    import transformers

    tests.support.models.tiny_tokenizer("t5")
    assert transformers is not None
    for name in args.module or MODULES:
        record = try_module(name, args.every, time.monotonic() + 60 * args.minutes)
        with RECORD.open("a") as stream:
            stream.write(json.dumps(record) + "\n")
        print(
            f"{name}: {record['killed']} of {record['tried']} killed ({record['mutants']} in all), {record['seconds']} s"
        )
        print(*(f"  survived {line}" for line in record["survivors"]), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
