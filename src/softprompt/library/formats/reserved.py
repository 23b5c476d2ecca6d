"""A tokenizer that puts a soft prompt's place in front of every text: P reserved ids, which no text can hold.

An engine that knows nothing of soft prompts reads P ids whose embeddings an adapter replaces (`softprompt.library.formats.lora`).
Which ids are reserved, in this order:

1. rows of the embedding table that the tokenizer has no token for;
2. special tokens that nothing uses: ``<|reserved_special_token_7|>``, then those such as ``<file_sep>``;
3. the tokens that byte-pair encoding learned last, which are its rarest. Without its merge such a token cannot come out of
   a text: the text is read in two smaller pieces instead, as a vocabulary without that token would.

A token of the chat template, of the prompts' own words, or with a part in any other token is never taken. A reserved id has
a mark instead of its old text. A chat message that spells a mark is refused by the chat template.

Letters: P prompt tokens, V rows of the embedding table.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from softprompt.errors import UsageError

_SPARE = re.compile(r"reserved|unused|extra[_-]?id|placeholder|dummy", re.IGNORECASE)
_PLACE = "soft prompt"  # its name in the post-processor


@dataclass(frozen=True, kw_only=True)
class Reserved:
    """The ids that stand for a prompt.

    Attributes:
        ids: P token ids, in the prompt's order.
        marks: what stands for each in a text; special tokens that only the chat template writes.
        rare: the ordinary tokens among them, as the tokenizer spells them: texts with these are read in smaller pieces.
    """

    ids: tuple[int, ...]
    marks: tuple[str, ...]
    rare: tuple[str, ...]

    @property
    def stem(self) -> str:
        """The beginning that all marks have in common, and no text by accident."""
        return self.marks[0].rpartition(":")[0]


def reserve(tokenizer: Any, rows: int, count: int, *, key: str, protected: Iterable[str]) -> Reserved:
    """Ids for a prompt.

    Args:
        tokenizer: the backbone's; a "fast" one.
        rows: V.
        count: P.
        key: makes the marks one's own: the backbone's fingerprint.
        protected: texts whose tokens are not taken: labels, templates, the chat template.

    Raises:
        UsageError: not a fast tokenizer, or too few ids can be spared.
    """
    spec = _spec(tokenizer)
    kept = _kept(tokenizer, spec, protected)
    beyond = list(range(max(tokenizer.get_vocab().values()) + 1, rows))
    specials = sorted(
        (token for token in spec["added_tokens"] if token["special"] and token["id"] not in kept),
        key=lambda token: (not _SPARE.search(token["content"]), token["id"]),
    )
    spare = [*beyond, *(int(token["id"]) for token in specials)][:count]
    rare = _last_learned(spec["model"], kept, count - len(spare))
    ids = [*spare, *rare.values()]
    if len(ids) < count:
        raise UsageError(
            f"a prompt of {count} tokens needs {count} ids that no text holds, and this tokenizer has {len(ids)} to spare: "
            "tune a shorter prompt, or serve it through prompt_embeds (--format vllm)."
        )
    stem = f"<|soft-prompt-{hashlib.sha256(f'{key} {ids}'.encode()).hexdigest()[:12]}"
    marks = tuple(f"{stem}:{number}|>" for number in range(count))
    return Reserved(ids=tuple(ids), marks=marks, rare=tuple(rare))


def with_prompt(tokenizer: Any, reserved: Reserved) -> Any:
    """The tokenizer with the reserved ids in front of every text, and of every conversation where it has a chat template.

    Raises:
        UsageError: its way of putting special tokens around a text is not known here.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    spec = _spec(tokenizer)
    _rename(spec, reserved)
    spec["post_processor"] = _in_front(spec.get("post_processor"), reserved)
    spec["truncation"] = spec["padding"] = None
    roles = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(spec)),
        **{name: token for name, token in roles.items() if name != "additional_special_tokens"},
        clean_up_tokenization_spaces=False,
        model_max_length=tokenizer.model_max_length,
        padding_side="left",
    )
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, str):
        made.chat_template = chat_template(template, reserved)
    return made


def chat_template(template: str, reserved: Reserved) -> str:
    """A chat template whose conversations begin with the marks, and which refuses messages that spell one."""
    return (
        "{%- for message in messages %}{%- if message['content'] is string and '" + reserved.stem + "' in "
        "message['content'] %}{{- raise_exception('A message holds a token that is reserved for soft prompts.') }}"
        "{%- endif %}{%- endfor %}{{- '" + "".join(reserved.marks) + "' }}" + template
    )


def same_ids(made: Any, reserved: Reserved, texts: Sequence[str], expected: Sequence[Sequence[int]]) -> str | None:
    """The first text that the made tokenizer reads otherwise than the reserved ids and what was expected; None for none."""
    for text, ids in zip(texts, expected, strict=True):
        if list(made(text)["input_ids"]) != [*reserved.ids, *ids]:
            return text
    return None


def _spec(tokenizer: Any) -> dict[str, Any]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UsageError(
            f"{type(tokenizer).__name__} is not a fast tokenizer, which the export changes: load the backbone with its "
            "tokenizer.json, or serve prompts through prompt_embeds (--format vllm)."
        )
    spec: dict[str, Any] = json.loads(backend.to_str())
    return spec


def _kept(tokenizer: Any, spec: dict[str, Any], protected: Iterable[str]) -> set[int]:
    """Ids that are in use: special tokens with a role, those around texts, those of the protected texts."""
    texts = [*protected, str(getattr(tokenizer, "chat_template", None) or "")]
    kept = {int(i) for text in texts for i in tokenizer(text, add_special_tokens=False)["input_ids"]}
    kept |= {int(i) for text in ("x", "") for i in tokenizer(text)["input_ids"]}
    roles = [token for token in tokenizer.special_tokens_map.values() if isinstance(token, str)]
    return kept | {int(i) for i in tokenizer.convert_tokens_to_ids(roles) if i is not None}


def _pair(merge: Any) -> tuple[str, str]:
    """A merge as two tokens; older files hold them as one text with a space."""
    first, second = merge.split(" ", 1) if isinstance(merge, str) else merge
    return first, second


def _last_learned(model: dict[str, Any], kept: Collection[int], count: int) -> dict[str, int]:
    """The tokens of the last merges that no other token is built from, newest first, at most ``count``."""
    if count <= 0 or model.get("type") != "BPE":
        return {}
    merges = [_pair(merge) for merge in model["merges"]]
    parts = {part for pair in merges for part in pair}
    found: dict[str, int] = {}
    for first, second in reversed(merges):
        token = first + second
        if len(found) == count:
            break
        if token not in parts and model["vocab"][token] not in kept:
            found[token] = model["vocab"][token]
    return found


def _rename(spec: dict[str, Any], reserved: Reserved) -> None:
    """Marks in place of the reserved ids' old texts, in the vocabulary, among the added tokens, and no merge left to them."""
    marks = dict(zip(reserved.ids, reserved.marks, strict=True))
    model = spec["model"]
    if isinstance(model.get("vocab"), dict):
        model["vocab"] = {marks.get(i, token): i for token, i in model["vocab"].items()}
    if model.get("merges"):
        rare = set(reserved.rare)
        model["merges"] = [merge for merge in model["merges"] if "".join(_pair(merge)) not in rare]
    added = [token for token in spec["added_tokens"] if token["id"] not in marks]
    mark = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added += [{"id": i, "content": content, **mark} for i, content in marks.items()]
    spec["added_tokens"] = sorted(added, key=lambda token: token["id"])


def _in_front(processor: dict[str, Any] | None, reserved: Reserved) -> dict[str, Any]:
    place = {"SpecialToken": {"id": _PLACE, "type_id": 0}}
    token = {"id": _PLACE, "ids": list(reserved.ids), "tokens": list(reserved.marks)}
    kind = None if processor is None else processor["type"]
    if processor is None or kind == "ByteLevel":
        sequences = [{"Sequence": {"id": name, "type_id": number}} for number, name in enumerate("AB")]
        made = {
            "type": "TemplateProcessing",
            "single": [place, sequences[0]],
            "pair": [place, *sequences],
            "special_tokens": {_PLACE: token},
        }
        return made if processor is None else {"type": "Sequence", "processors": [processor, made]}
    if kind == "TemplateProcessing":
        return {
            **processor,
            "single": [place, *processor["single"]],
            "pair": [place, *processor["pair"]],
            "special_tokens": {**processor["special_tokens"], _PLACE: token},
        }
    if kind == "Sequence":
        inner = processor["processors"]
        last = max((n for n, one in enumerate(inner) if one["type"] == "TemplateProcessing"), default=None)
        if last is not None:
            changed = [*inner[:last], _in_front(inner[last], reserved), *inner[last + 1 :]]
            return {**processor, "processors": changed}
        if all(one["type"] == "ByteLevel" for one in inner):
            return {**processor, "processors": [*inner, _in_front(None, reserved)]}
    raise UsageError(
        f"this tokenizer puts special tokens around texts by {kind}, which the export does not change: serve prompts through "
        "prompt_embeds (--format vllm)."
    )
