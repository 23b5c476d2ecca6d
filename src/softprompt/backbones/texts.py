"""What a tokenizer says about texts: what stands in front of them and behind them, what ends an answer, which ids exist."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from softprompt.errors import BackboneError


def tokenize(
    tokenizer: Any,
    texts: Sequence[str],
    max_tokens: int | None,
    prefix: Sequence[int],
    suffix: Sequence[int],
    *,
    keep_end: bool = False,
) -> list[list[int]]:
    """Ids of texts between a prefix and a suffix; the text is cut so that all fits into ``max_tokens``.

    ``keep_end`` cuts at the front: a decoder goes on from the end of a text, where the question and the cue for the answer
    stand ("... Sentiment:").
    """
    if not texts:
        return []
    rows = tokenizer(list(texts), add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    room = None if max_tokens is None else max(max_tokens - len(prefix) - len(suffix), 0)
    if room is not None:
        rows = [row[max(len(row) - room, 0) :] if keep_end else row[:room] for row in rows]
    return [[*prefix, *row, *suffix] for row in rows]


def special_ids(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The ids that the tokenizer puts in front of a text and behind it."""
    found = tokenizer("x", return_special_tokens_mask=True)
    ids, mask = [int(i) for i in found["input_ids"]], [int(m) for m in found["special_tokens_mask"]]
    front = mask.index(0) if 0 in mask else len(mask)
    behind = mask[::-1].index(0) if 0 in mask else 0
    return ids[:front], ids[len(ids) - behind :]


def end_ids(model: Any, tokenizer: Any, suffix: Sequence[int] = ()) -> tuple[int, ...]:
    """All ids that end an answer; the first one is what targets end with.

    Read from the model's ``config`` and ``generation_config``, else from the tokenizer. The first is what the tokenizer
    puts behind a text (``suffix``) or calls its end, where that is one of them.

    Raises:
        BackboneError: none is named, or one by what is no number.
    """
    generation = getattr(model, "generation_config", None)
    named = [getattr(model.config, "eos_token_id", None), getattr(generation, "eos_token_id", None)]
    if all(value is None for value in named):
        named = [tokenizer.eos_token_id]
    flat = [i for value in named for i in (value if isinstance(value, (list, tuple)) else [value]) if i is not None]
    odd = next((i for i in flat if not isinstance(i, int)), None)
    if odd is not None:
        raise BackboneError(
            f"eos_token_id of the model is {odd!r}, not a token's number: mend config.json or generation_config.json."
        )
    found = [int(i) for i in flat]
    if not found:
        raise BackboneError(
            "neither the model's config nor its tokenizer names an end-of-sequence id, which generation needs: set "
            "eos_token_id in config.json."
        )
    liked = [i for i in (*suffix[-1:], tokenizer.eos_token_id) if i in found]
    return tuple(dict.fromkeys([*liked, *found]))


def check_vocabulary(tokenizer: Any, rows: int, name: str) -> None:
    """Refuse a tokenizer that gives ids the model's embedding table does not have.

    Args:
        rows: of the embedding table.
        name: how messages call the model.

    Raises:
        BackboneError: some token's id lies beyond the table.
    """
    token, top = max(tokenizer.get_vocab().items(), key=lambda item: item[1], default=("", -1))
    if top >= rows:
        raise BackboneError(
            f"the tokenizer of {name} gives token {token!r} the id {top}, and the model's embedding table has {rows} rows "
            f"(the tokenizer has {top + 1} ids): resize the table, or load the tokenizer that belongs to the model."
        )


def wants_space(tokenizer: Any) -> bool:
    """Whether a word that follows others is tokenised with its space (byte-level BPE), so that targets need one."""

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    head, both = ids("x"), ids("x yes")
    if both[: len(head)] != head:
        return False
    tail = both[len(head) :]
    return tail == ids(" yes") and tail != ids("yes")
