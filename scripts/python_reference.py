"""Writes docs/python.md, the reference of the Python API, from the docstrings.

python scripts/python_reference.py
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

OUT = ROOT / "docs" / "python.md"
SECTIONS = ("Args", "Attributes", "Returns", "Raises", "Example")
HEAD = """# Python API

`import softprompt as sp` gives the names below and little else. They are imported when they are first used. The examples run as tests, in
this order, on a small model. Signatures are frozen by a test: they change with a new version only.

<!-- written by scripts/python_reference.py from the docstrings -->
"""


def objects() -> list[tuple[str, list[tuple[str, Any]]]]:
    """(heading, (name, object) in it) in the order a user meets them."""
    import softprompt as sp
    from softprompt.inference.predict import Prediction
    from softprompt.library.search import Match
    from softprompt.methods.spot.outcomes import TargetReport
    from softprompt.tuned import Score, TunedPrompt

    library = ("add", "get", "names", "list", "load", "remove", "verify")
    return [
        ("Load", [("sp.load_backbone", sp.load_backbone), ("sp.Task.from_rows", sp.Task.from_rows), ("sp.load_task", sp.load_task)]),
        ("Tune and use", [("sp.tune", sp.tune), ("sp.predict", sp.predict), ("sp.evaluate", sp.evaluate)]),
        ("A tuned prompt", [(f"prompt.{n}", getattr(TunedPrompt, n)) for n in ("predict", "to_peft", "push_to_hub")]),
        ("Keep, find, transfer", [("sp.Library", sp.Library), *((f"library.{n}", getattr(sp.Library, n)) for n in library),
                                  ("sp.search", sp.search), ("sp.transfer", sp.transfer)]),
        ("SharPT", [("sp.adapt", sp.adapt)]),
        ("What comes back", [("Prediction", Prediction), ("Score", Score), ("Match", Match), ("TargetReport", TargetReport)]),
        ("Errors", [("sp.SoftpromptError", sp.SoftpromptError)]),
    ]  # fmt: skip


def signature(name: str, thing: Any) -> str:
    """A signature as Python writes it, one parameter a line where it is long."""
    if inspect.isclass(thing) and "__init__" not in vars(thing):
        return ""
    if inspect.isclass(thing) and hasattr(thing, "__dataclass_fields__"):
        return ""
    found = inspect.signature(thing)
    given = [p for n, p in found.parameters.items() if n not in ("self", "cls")]
    parameters, kinds = [_parameter(p) for p in given], [p.kind for p in given]
    if inspect.Parameter.KEYWORD_ONLY in kinds:
        parameters.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    back = (
        "" if found.return_annotation in (inspect.Signature.empty, "None", None) else f" -> {found.return_annotation}"
    )
    line = f"{name}({', '.join(parameters)}){back}"
    if len(line) > 100:
        line = f"{name}(\n    " + ",\n    ".join(parameters) + f",\n){back}"
    return f"```text\n{line}\n```\n\n"


def _parameter(parameter: inspect.Parameter) -> str:
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    default = "" if parameter.default is inspect.Parameter.empty else f" = {parameter.default!r}"
    return f"{stars}{parameter.name}: {parameter.annotation}{default}"


def written(doc: str) -> str:
    """A docstring in Google's style as Markdown."""
    parts = re.split(rf"^({'|'.join(SECTIONS)}):$", doc, flags=re.M)
    text = _prose(parts[0])
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        body = inspect.cleandoc(body)
        if title == "Example":
            text += f"```text\n{body}\n```\n\n"
        elif title == "Returns":
            text += f"**Returns**: {_prose(body)}"
        else:
            items = re.split(r"^(?=\S)", body, flags=re.M)
            text += f"**{title}**\n\n" + "".join(_item(item) for item in items if item.strip()) + "\n"
    return text


def _item(text: str) -> str:
    name, _, what = " ".join(text.split()).partition(": ")
    return f"- `{name}`: {_prose(what).strip()}\n"


def _prose(text: str) -> str:
    plain = re.sub(r"``(.+?)``", r"`\1`", text.strip(), flags=re.S)
    return plain + "\n\n" if plain else ""


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for heading, things in objects():
        parts.append(f"## {heading}\n\n")
        for name, thing in things:
            parts.append(f"### {name}\n\n{signature(name, thing)}{written(inspect.getdoc(thing) or '')}")
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


if __name__ == "__main__":
    OUT.write_text(page(), encoding="utf-8")
    print(f"{OUT}: written")
