"""From rows to text: the forms of the T5 and prompt-tuning code, one function per form rather than per data set.

Each takes a row and keyword settings and gives the pairs the row makes. ``prefix`` is the task's name in front of the
inputs (SPoT's data keeps it, prompt tuning's "taskless" variants drop it); None leaves it out. Texts are kept as they
are, down to double blanks, unless a form says otherwise.
"""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from softprompt.tasks.rows import UNKNOWN_TARGET, Formed, Row

# RE2's \s knows ASCII blanks only, and [[:punct:]] ASCII punctuation only; Python's classes are wider.
_BLANKS = re.compile(r"[\t\n\f\r ]+")
_PUNCTUATION = re.compile("([" + re.escape(string.punctuation) + "])")


def pad_punctuation(text: str) -> str:
    """Blanks around ASCII punctuation, runs of blanks made one (SQuAD and MRQA)."""
    return _BLANKS.sub(" ", _PUNCTUATION.sub(r" \1 ", text))


def _joined(parts: Sequence[str | None], *, collapse: bool = False) -> str:
    text = " ".join(part for part in parts if part is not None)
    return _BLANKS.sub(" ", text) if collapse else text


def _target(label: int | None, labels: Sequence[str]) -> str:
    return UNKNOWN_TARGET if label is None else labels[label]


def fields(
    row: Row,
    *,
    prefix: str | None,
    columns: Sequence[str],
    labels: Sequence[str],
    names: Sequence[str] | None = None,
    label: str = "label",
    collapse: bool = False,
    idx: str = "idx",
    words: Mapping[str, str] | None = None,
    round_column: str | None = None,
) -> list[Formed]:
    """``{prefix} name: text name: text`` with a label word as target: the generic GLUE and SuperGLUE form.

    Args:
        columns: in the order of the text (alphabetical where the official form gives none).
        labels: label words by index.
        names: what stands before each text; the columns' names where not given.
        label: column of the label.
        collapse: make runs of blanks one, as SPoT's own classification form does.
        idx: column carried along for submissions, where there is one.
        words: raw label, written as text -> label word, for data sets that count otherwise.
        round_column: a column whose last part joins the prefix (ANLI's rounds: ``anli_r1``).
    """
    if prefix and round_column and row.values.get(round_column):
        prefix = f"{prefix}_{str(row.values[round_column]).rpartition('_')[2]}"
    parts: list[str | None] = [prefix]
    for name, column in zip(names or columns, columns, strict=True):
        parts += [f"{name}:", row.text(column)]
    if words is not None and label in row.values:
        value = row.values[label]
        row = replace(row, values={**row.values, label: words.get(str(value), value)})
    index = row.label(labels, label)
    extra: dict[str, Any] = {"label": index}
    if idx in row.values:
        extra["idx"] = row.values[idx]
    return [Formed(_joined(parts, collapse=collapse), _target(index, labels), extra)]


def multirc(row: Row, *, prefix: str | None, labels: Sequence[str]) -> list[Formed]:
    """MultiRC: question, answer, paragraph; br tags become blanks, b tags go; answers are grouped by question."""
    [formed] = fields(row, prefix=prefix, columns=("question", "answer", "paragraph"), labels=labels)
    text = without_tags(formed.inputs)
    idx = row.get("idx") if row.labelled else row.values.get("idx")
    if idx is None and not row.labelled:
        return [Formed(text, formed.targets, formed.extra)]
    if not isinstance(idx, dict) or "question" not in idx:
        raise row.error("column 'idx' of MultiRC should hold {paragraph, question, answer}; questions group answers.")
    group = [idx.get("paragraph"), idx["question"]]
    return [Formed(text, formed.targets, {**formed.extra, "group": group})]


def without_tags(text: str) -> str:
    """MultiRC's texts without their HTML: br tags become blanks, b tags go."""
    return re.sub(r"</?b>", "", text.replace("<br>", " "))


def similarity(row: Row, *, prefix: str | None, columns: Sequence[str], label: str = "label") -> list[Formed]:
    """STS-B: the target is the score in steps of 0.2 with one decimal, halves rounded to even; gold is rounded too."""
    value = row.values.get(label) if not row.labelled else row.get(label)
    target = UNKNOWN_TARGET
    gold: float | None = None
    if value is not None and value != "":
        try:
            score = np.float32(value)
        except (TypeError, ValueError):
            raise row.error(f"column {label!r} should hold a number from 0 to 5, found {value!r}.") from None
        if score >= 0:
            # In float32, as TensorFlow computes it.
            target = f"{np.rint(score * np.float32(5)) / np.float32(5):.1f}"
            gold = float(target)
            if not gold <= 5:
                raise row.error(f"column {label!r} should hold a number from 0 to 5, found {value!r}.")
        elif score != -1:
            raise row.error(f"column {label!r} should hold a number from 0 to 5, found {value!r}.")
    parts: list[str | None] = [prefix]
    for i, column in enumerate(columns):
        parts += [f"sentence{i + 1}:", row.text(column)]
    extra: dict[str, Any] = {"value": gold}
    if "idx" in row.values:
        extra["idx"] = row.values["idx"]
    return [Formed(_joined(parts), target, extra)]


_WSC_REPAIRS = {
    # The pronoun's index is wrong, or punctuation stands at the wrong place: as T5 repairs them.
    'The boy continued to whip the pony , and eventually the pony threw him over. John laughed out quite loud. "Good for '
    'him," he said.': ('"Good for him," he said.', '"Good for X ," he said.'),
    "When they had eventually calmed down a bit , and had gotten home, Mr. Farley put the magic pebble in an iron safe . "
    "Some day they might want to use it , but really for now, what more could they wish for?": (
        "to use it , but",
        "to use X , but",
    ),
}


def wsc(row: Row, *, prefix: str | None) -> list[Formed]:
    """WSC: the pronoun marked ``*it*``, the target the referent; in training only rows whose referent is right."""
    label = row.label(("False", "True"))
    if row.train and not label:
        return []
    marked, referent = marked_pronoun(row), row.text("span1_text")
    extra: dict[str, Any] = {"label": label, "idx": row.values.get("idx")}
    return [Formed(_joined([f"{prefix}:" if prefix else None, marked]), referent, extra)]


def marked_pronoun(row: Row) -> str:
    """WSC's text with the pronoun in asterisks."""
    text, pronoun = row.text("text"), row.text("span2_text")
    repair = _WSC_REPAIRS.get(text.strip())
    if repair is not None:
        return text.strip().replace(*repair).replace(" X ", f" *{pronoun}* ")
    index = row.get("span2_index")
    words = text.split(" ")
    try:
        place = int(index)
    except (TypeError, ValueError):
        raise row.error(f"column 'span2_index' should hold a word's place, found {index!r}.") from None
    if not 0 <= place < len(words):
        raise row.error(f"span2_index is {place}, but the text has {len(words)} words.")
    # Some copies count words another way where blanks double: the nearest standing of the pronoun is meant.
    span = pronoun.split(" ")
    standings = [i for i in range(len(words) - len(span) + 1) if _same_words(words[i : i + len(span)], span)]
    if not standings:
        raise row.error(f"the pronoun {pronoun!r} of column 'span2_text' does not stand in the text.")
    at = min(standings, key=lambda i: abs(i - place))
    last = words[at + len(span) - 1]
    tail = last[len(span[-1]) :] if last.lower().startswith(span[-1].lower()) else ""
    marked = [f"*{pronoun}*"] + ([tail] if tail else [])
    return " ".join([*words[:at], *marked, *words[at + len(span) :]])


def _same_words(words: Sequence[str], span: Sequence[str]) -> bool:
    """Whether a span stands here, punctuation behind its last word left aside."""
    *head, last = words
    *span_head, span_last = span
    tail = last[len(span_last) :] if last.lower().startswith(span_last.lower()) else None
    heads = [w.lower() for w in head] == [w.lower() for w in span_head]
    return heads and tail is not None and (not tail or not tail[0].isalnum())


_HIGHLIGHT_AFTER_STOP = re.compile(r"([.?!\"'])\n@highlight\n")


def record(row: Row, *, prefix: str | None) -> list[Formed]:
    """ReCoRD: query, entities, passage; @highlight marks become sentence ends; one training pair per answer."""
    passage = without_highlights(row.text("passage"))
    entities = ", ".join(row.texts("entities"))
    inputs = _joined([prefix, "query:", row.text("query"), "entities:", entities, "passage:", passage])
    answers = row.texts("answers") if row.labelled or row.values.get("answers") else []
    idx = row.values.get("idx")
    group = [idx.get("passage"), idx.get("query")] if isinstance(idx, dict) else row.line
    extra = {"answers": answers, "group": group, "idx": idx}
    if not answers:
        return [Formed(inputs, UNKNOWN_TARGET, extra)]
    return [Formed(inputs, answer, extra) for answer in (answers if row.train else answers[:1])]


def without_highlights(passage: str) -> str:
    """ReCoRD's passage with its @highlight marks as sentence ends."""
    return _HIGHLIGHT_AFTER_STOP.sub(r"\1 ", passage).replace("\n@highlight\n", ". ")


def prefix_lm(row: Row, *, prefix: str | None, column: str = "text") -> list[Formed]:
    """C4's prefix-LM objective: a text cut at a uniformly drawn point, the first part inputs, the second targets.

    T5 cuts between tokens and anew each time, and so does training here (`softprompt.tasks.encoded.PrefixSplit`, which
    takes the two parts as the one text that they are). The cut of the example falls between words, at a point drawn by the
    text itself: it shows what the task is.
    """
    words = row.text(column).split()
    if len(words) < 2:
        return []
    digest = hashlib.sha256(" ".join(words).encode("utf-8", "surrogatepass")).digest()
    cut = 1 + _below(digest[8:16], len(words) - 1)
    return [Formed(" ".join(words[:cut]), " ".join(words[cut:]), {})]


def _below(draw: bytes, count: int) -> int:
    """A number in 0..count-1 from 8 random bytes."""
    return int.from_bytes(draw, "little") * count >> 64


def question_answer(
    row: Row,
    *,
    prefix: str | None,
    answers: str = "answers",
    context: str = "context",
    question: str = "question",
    id_column: str = "id",
    padded: bool = True,
) -> list[Formed]:
    """SQuAD and MRQA: ``question: ... context: ...``, punctuation spaced; the target is the first answer.

    Args:
        answers: a column with a list of texts, or a mapping with such a list under ``text`` (SQuAD), ``spans`` (DROP).
        padded: space the punctuation of answers; a natural wording does not.
    """
    golds = [pad_punctuation(answer).strip() if padded else answer.strip() for answer in _answers(row, answers)]
    inputs = _joined(
        [
            prefix,
            "question:",
            pad_punctuation(row.text(question)),
            "context:",
            pad_punctuation(row.text(context)),
        ],
        collapse=True,
    )
    extra = {"answers": golds, "idx": row.values.get(id_column)}
    return [Formed(inputs, golds[0] if golds else UNKNOWN_TARGET, extra)]


def _answers(row: Row, column: str) -> list[str]:
    if column not in row.values and not row.labelled:
        return []
    value = row.get(column)
    if isinstance(value, dict):
        value = value.get("text", value.get("spans"))
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
        raise row.error(f"column {column!r} should hold a list of answers.")
    if not value and row.labelled:
        raise row.error(f"column {column!r} holds no answer; give at least one.")
    return list(value)


def choices(
    row: Row,
    *,
    prefix: str | None,
    texts: Sequence[str],
    options: Sequence[str] | str,
    labels: Sequence[str],
    answer: str = "label",
    first: str | None = None,
    idx: str = "idx",
) -> list[Formed]:
    """Multiple choice in the form of COPA: every option under its label word, then the other texts; the word is the target.

    The papers do not publish these forms; this one follows COPA's.

    Args:
        texts: the other text columns, in order.
        options: columns of the options, or one column with a list of them.
        labels: label words, which also stand before the options.
        answer: column of the answer: an index, or a digit or letter counted from ``first``.
        first: the answer that means index 0 where answers are not indices, e.g. "1" or "A".
    """
    listed = listed_options(row, options)
    if len(listed) > len(labels):
        raise row.error(f"has {len(listed)} options; the task knows {len(labels)}.")
    parts: list[str | None] = [prefix]
    for word, text in zip(labels, listed, strict=False):
        parts += [f"{word}:", text]
    for column in texts:
        parts += [f"{column}:", row.text(column)]
    index = _answer_index(row, answer, first, labels[: len(listed)])
    return [Formed(_joined(parts), _target(index, labels), {"label": index, "idx": row.values.get(idx)})]


def listed_options(row: Row, options: Sequence[str] | str) -> list[str]:
    """The options of a row: of one column with a list, or of a column each."""
    return row.texts(options) if isinstance(options, str) else [row.text(column) for column in options]


def _answer_index(row: Row, column: str, first: str | None, labels: Sequence[str]) -> int | None:
    if first is None:
        return row.label(labels, column)
    value = row.values.get(column) if not row.labelled else row.get(column)
    if value is None or value == "":
        return None
    text = str(value).strip()
    index = ord(text) - ord(first) if len(text) == 1 else -1
    if not 0 <= index < len(labels):
        last = chr(ord(first) + len(labels) - 1)
        raise row.error(f"answer {text!r} in column {column!r} is not one of {first}..{last}.")
    return index


def translate(
    row: Row, *, prefix: str | None, source: tuple[str, str], target: tuple[str, str], column: str = "translation"
) -> list[Formed]:
    """``translate English to German: ...``; languages are (code, name). The command is the task: no other prefix."""
    text = in_language(row, source[0], column)
    command = f"translate {source[1]} to {target[1]}:"
    pair = row.values.get(column, row.values)
    unknown = not row.labelled and (not isinstance(pair, dict) or pair.get(target[0]) is None)
    gold = UNKNOWN_TARGET if unknown else in_language(row, target[0], column)
    return [Formed(_joined([command, text]), gold, {"references": [gold]})]


def in_language(row: Row, code: str, column: str) -> str:
    """The text of one language of a pair, from the column of pairs or from a column of its own."""
    pair = row.values.get(column, row.values)
    if not isinstance(pair, Mapping) or not isinstance(pair.get(code), str):
        raise row.error(f"column {column!r} should hold a text under {code!r}.")
    return str(pair[code])


def generate(
    row: Row,
    *,
    prefix: str | None,
    source: str,
    target: str,
    command: str | None = None,
    references: str | None = None,
) -> list[Formed]:
    """``{prefix} summarize: text`` and other generation with one source and one target column.

    Args:
        command: what stands between prefix and text.
        references: a column with all references; the target alone where None or empty.
    """
    text = source_text(row, source)
    gold = UNKNOWN_TARGET if not row.labelled and row.values.get(target) is None else row.text(target)
    golds = row.texts(references) if references is not None and row.values.get(references) else [gold]
    return [Formed(_joined([prefix, command, text]), gold, {"references": golds})]


def source_text(row: Row, column: str) -> str:
    """The source of a generation task, structures as one line."""
    return row.text(column) if not isinstance(row.get(column), list | tuple) else linearised(row, column)


def linearised(row: Row, column: str) -> str:
    """Structured inputs as one line: concepts ``a, b``; triples ``s : r : o | ...``; dialogue acts ``act(slot=a, b)``.

    The papers do not publish these forms.
    """
    value = row.get(column)
    if all(isinstance(v, str) for v in value):
        return ", ".join(value)
    if all(isinstance(v, list | tuple) for v in value):
        return " | ".join(" : ".join(map(str, v)) for v in value)
    if all(isinstance(v, dict) and "act" in v for v in value):
        return " | ".join(
            f"{v['act']}({v.get('slot', '')}={', '.join(map(str, v.get('values') or []))})" for v in value
        )
    raise row.error(
        f"column {column!r} should hold texts, lists of texts or dialogue acts, found {type(value[0]).__name__}."
    )


def tag_words(
    row: Row, *, prefix: str | None, column: str, labels: Sequence[str], label: str = "labels"
) -> list[Formed]:
    """Several labels a row (GoEmotions): the target joins the label words with ", " in index order."""
    value = row.get(label) if row.labelled else row.values.get(label)
    if isinstance(value, str):
        value = [part for part in re.split(r"[,\s]+", value) if part]
    if not isinstance(value, list | tuple):
        value = [value]
    one = [Row(values={label: v}, line=row.line, where=row.where).label(labels, label) for v in value]
    known = sorted({i for i in one if i is not None})
    target = ", ".join(labels[i] for i in known) if known else UNKNOWN_TARGET
    extra = {"label": known[0] if len(known) == 1 else None, "labels": known}
    return [Formed(_joined([prefix, f"{column}:", row.text(column)]), target, extra)]
