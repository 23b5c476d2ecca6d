"""Model cards: what the Hub shows of a prompt, with a snippet that uses it, its words, scores and licence."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html import escape
from typing import Any

from softprompt.errors import printable
from softprompt.library.manifest import Manifest
from softprompt.library.record import UNSTATED_LICENCE

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_LICENCE_ID = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_MOST_LABELS = 30
FENCE = "```"


def model_card(manifest: Manifest) -> str:
    """The card of a prompt's folder, Markdown with the metadata block that the Hub reads."""
    lines = [
        f"# Soft prompt {cell(manifest.name)}",
        "",
        f"{manifest.prompt_length} trained vectors that stand before every input of the frozen model "
        f"{cell(manifest.backbone_name)}, tuned on {cell(manifest.task)}. The model itself is unchanged. The prompt works on "
        "this model alone.",
        "",
        *_usage(manifest),
        *wording_lines(manifest),
        *score_lines(manifest),
        *_facts(manifest),
    ]
    return f"---\n{metadata(manifest)}\n---\n\n" + "\n".join(lines) + "\n"


def metadata(manifest: Manifest) -> str:
    """The card's metadata as YAML, made by huggingface_hub's own class."""
    from huggingface_hub import EvalResult, ModelCardData

    scores = {name: value for name, value in manifest.scores.items() if value is not None}
    classes = (manifest.wording or {}).get("labels") is not None
    kind = "text-classification" if classes else "text-generation"
    source = manifest.data_source.get("repo")
    results = [
        EvalResult(task_type=kind, dataset_name=manifest.task, dataset_type=source if isinstance(source, str) else manifest.task,
                   dataset_split="validation", metric_type=name, metric_name=name, metric_value=round(value, 4))
        for name, value in scores.items()
    ]  # fmt: skip
    data = ModelCardData(
        library_name="peft",
        base_model=manifest.backbone_name if _HUB_ID.fullmatch(manifest.backbone_name) else None,
        datasets=[source] if isinstance(source, str) else None,
        pipeline_tag=kind,
        tags=list(dict.fromkeys(["soft-prompt", "prompt-tuning", *manifest.tags])),
        eval_results=results or None,
        model_name=manifest.name,
        **_licence(manifest.licence),
    )
    return str(data.to_yaml()).strip()


def _licence(licence: str) -> dict[str, Any]:
    """The Hub's fields: one of its lower-case identifiers, or ``other`` with the name as it was given."""
    if licence == UNSTATED_LICENCE:
        return {"license": "other", "license_name": UNSTATED_LICENCE}
    if _LICENCE_ID.fullmatch(licence.lower()):
        return {"license": licence.lower()}
    return {
        "license": "other",
        "license_name": re.sub(r"[^a-z0-9.+]+", "-", licence.lower()).strip("-")[:90] or "other",
    }


def _usage(manifest: Manifest) -> list[str]:
    name, backbone = manifest.name, manifest.backbone_name
    model = "AutoModelForCausalLM" if manifest.backbone_kind == "causal" else "AutoModelForSeq2SeqLM"
    return [
        "## Use it",
        "",
        "With softprompt, where `prompts` is the folder that holds this prompt's folder (`softprompt library pull prompts "
        "OWNER/NAME` fetches it from the Hub). Texts go in as people write them:",
        "",
        f"{FENCE}bash",
        f"softprompt predict prompts/{name} {_given(manifest)}",
        FENCE,
        "",
        "The same in Python:",
        "",
        f"{FENCE}python",
        "import softprompt as sp",
        "",
        f"backbone = sp.load_backbone({json.dumps(backbone)})",
        f"sp.predict(backbone, {json.dumps('prompts/' + name)}, [{_row(manifest)}])",
        FENCE,
        "",
        "With PEFT:",
        "",
        f"{FENCE}python",
        "from peft import PeftModel",
        f"from transformers import {model}",
        "",
        f"model = {model}.from_pretrained({json.dumps(backbone)})",
        f"model = PeftModel.from_pretrained(model, {json.dumps('prompts/' + name)})",
        FENCE,
        "",
    ]


def _columns(manifest: Manifest) -> list[str]:
    """The columns that the task reads; empty where they are not known."""
    columns = (manifest.wording or {}).get("columns")
    return [str(column) for column in columns] if isinstance(columns, list | tuple) else []


def _given(manifest: Manifest) -> str:
    """What stands for the input on a command line: a text, or a file where the task reads several columns."""
    return "'your text'" if len(_columns(manifest)) < 2 else "--file rows.csv"


def _row(manifest: Manifest) -> str:
    """The same in Python: a text, or a dict of the columns."""
    columns = _columns(manifest)
    return json.dumps({name: f"your {name}" for name in columns}) if len(columns) > 1 else '"your text"'


def wording_lines(manifest: Manifest) -> list[str]:
    """How inputs are worded, and which answers there are."""
    wording: Mapping[str, Any] = manifest.wording or {}
    facts: dict[str, object] = {"inputs": chat_form(manifest)}
    if wording:
        facts["form"] = wording.get("form")
        facts["columns"] = ", ".join(map(str, wording.get("columns") or ())) or None
        template = wording.get("template")
        facts["template"] = None if template is None else f"`{_quoted(template)}`"
        facts["label column"] = wording.get("label_column")
        facts["metrics"] = ", ".join(map(str, wording.get("metrics") or ())) or None
    facts["answers chosen by"] = {"labels": "the probability of each label", "generate": "greedy generation"}.get(
        manifest.scoring or ""
    )
    lines = ["## What it reads and writes", "", *_table("fact", "value", facts), ""]
    labels, answers = wording.get("labels"), wording.get("answers")
    if labels:
        lines += ["| label | what the model writes |", "|---|---|"]
        pairs = list(zip(labels, answers or labels, strict=False))
        lines += [f"| {cell(label)} | {cell(answer)} |" for label, answer in pairs[:_MOST_LABELS]]
        lines += [f"| and {len(pairs) - _MOST_LABELS} more | |"] if len(pairs) > _MOST_LABELS else []
        lines += [""]
    return lines


def _quoted(value: object) -> str:
    """A JSON text without the sign that ends code in Markdown."""
    return json.dumps(value, ensure_ascii=False).replace("`", "\\u0060")


def score_lines(manifest: Manifest) -> list[str]:
    """The scores as a table; none where there are none."""
    scores = [f"| {cell(name)} | {value:.2f} |" for name, value in manifest.scores.items() if value is not None]
    return ["## Scores", "", "| validation metric | score (percent) |", "|---|---|", *scores, ""] if scores else []


def _facts(manifest: Manifest) -> list[str]:
    identity = manifest.backbone_fingerprint or "unverified: made elsewhere, without a fingerprint of its backbone"
    facts = {
        "task": manifest.task,
        "backbone": manifest.backbone_name,
        "backbone fingerprint": identity,
        "prompt tokens x width": f"{manifest.prompt_length} x {manifest.width} ({manifest.dtype})",
        "seed": manifest.seed,
        "steps (best)": f"{_known(manifest.steps)} ({_known(manifest.best_step)})",
        "task embedding at step": _known(manifest.embedding_step) if manifest.has_task_embedding else "none",
        "data fingerprint": _known(manifest.data_fingerprint),
        "data source": data_source(manifest),
        "licence": manifest.licence,
        "origin": manifest.origin or "trained with softprompt",
        "made with": ", ".join(f"{name} {version}" for name, version in manifest.versions.items()),
    }
    lines = ["## Where it comes from", "", *_table("fact", "value", facts), ""]
    if manifest.command:
        lines += ["Made by:", "", FENCE, manifest.command.replace(FENCE, "'''"), FENCE, ""]
    return lines


def _table(first: str, second: str, facts: Mapping[str, object]) -> list[str]:
    rows = [f"| {key} | {cell(value)} |" for key, value in facts.items() if value is not None]
    return [f"| {first} | {second} |", "|---|---|", *rows]


def data_source(manifest: Manifest) -> str:
    """Where the rows came from on the Hub, in one line."""
    source = manifest.data_source
    if not source:
        return "not from the hub"
    config = f", {source['config']}" if source.get("config") else ""
    return f"hf://datasets/{source.get('repo')}{config} at {source.get('revision')}"


def chat_form(manifest: Manifest) -> str:
    """How inputs are worded for the prompt, in one line."""
    if manifest.chat is None:
        return "as the task words them"
    system = manifest.chat.get("system")
    turns = (
        "a user turn" if system is None else f"a system turn ({json.dumps(system, ensure_ascii=False)}) and a user turn"
    )
    return f"the chat template's {turns}, the prompt before the beginning of text"


def cell(value: object) -> str:
    """A value that stays inside its cell of a Markdown table, markup and control characters spelled out."""
    return escape(printable(str(value)), quote=False).replace("|", "\\|").replace("\n", " ")


def _known(value: object) -> str:
    return "unknown" if value is None else str(value)
