"""What is declared of a task, and what the declarations share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from softprompt.tasks.rows import Formed

CONVERTED = "refs/convert/parquet"

PINS: Mapping[str, str] = {
    "nyu-mll/glue": "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c",
    "aps/super_glue": "3de24cf8022e94f4ee4b9d55a6f539891524d646",
    "rajpurkar/squad": "7b6d24c440a36b6815f21b70d25016731768db1f",
    "mrqa-workshop/mrqa": "f3178d9888471dfb2b67c93de14f0ddf499a8d9f",
    "stanfordnlp/snli": "cdb5c3d5eed6ead6e5a341c8e56e669bb666725b",
    "facebook/anli": "8e4813d81f46d313dac7892e1c28076917cfcdf9",
    "google-research-datasets/go_emotions": "add492243ff905527e67aeb8b80c082af02207c3",
    "fancyzhx/yelp_polarity": "bbf1c97a1f0cf005e5aded43839fd814654a1557",
    "ucinlp/drop": "95cda593fae71b60b5b19f82de3fcf3298c1239c",
    "ehovy/race": "2fec9fd81f1dc971569a9b729c43f2f0e6436637",
    "Rowan/hellaswag": "218ec52e09a7e7462a5400043bb9a69a41d06b76",
    "allenai/winogrande": "01e74176c63542e6b0bcb004dcdea22d94fb67b5",
    "lighteval/piqa": "41782e6bf0ef7de82a2ca8a9feb1dca042837fae",
    "wmt/wmt14": "b199e406369ec1b7634206d3ded5ba45de2fe696",
    "FiscalNote/billsum": "3d8510441c06a3d9dfb32eb0d7f80151730bcc4f",
    "abisee/cnn_dailymail": "96df5e686bee6baa90b8bee7c28b81fa3fa6223d",
    "EdinburghNLP/xsum": "7d4d486c2f8ef850b1a11aead99b894ff3dd7da9",
    "allenai/c4": "1588ec454efa1a09f29cd18ddd04fe05fc8653a2",
}
"""Commits of ``main`` at which these data sets are parquet (C4: gzipped JSON lines)."""

NLI3 = ("entailment", "neutral", "contradiction")
NLI2 = ("entailment", "not_entailment")
FALSE_TRUE = ("False", "True")
SENTIMENT = ("negative", "positive")
ROUGE = ("rouge1", "rouge2", "rougeLsum")
QA = ("exact_match", "answer_f1")
GO_EMOTIONS = (
    "admiration",
    "amusement",
    "anger",
    "annoyance",
    "approval",
    "caring",
    "confusion",
    "curiosity",
    "desire",
    "disappointment",
    "disapproval",
    "disgust",
    "embarrassment",
    "excitement",
    "fear",
    "gratitude",
    "grief",
    "joy",
    "love",
    "nervousness",
    "optimism",
    "pride",
    "realization",
    "relief",
    "remorse",
    "sadness",
    "surprise",
    "neutral",
)
OWN_FORM = "The papers do not publish this task's text form; ours follows the nearest published one."
RESEARCH = "research use, see the data set"


@dataclass(frozen=True, kw_only=True)
class Declared:
    """A task as declared.

    Attributes:
        name: of the task, and of its folder where ``folder`` is not given.
        category: family of tasks.
        form: a function of `softprompt.tasks.preprocessors`.
        settings: its keyword settings, without ``prefix`` and ``labels``.
        labels: label words by index; given to the form where ``takes_labels``.
        metrics: names whose mean is the score.
        hub: repository, configuration and branch; None where the data is not on the hub as parquet.
        splits: hub splits that stand for ours, where names differ or a split is missing.
        rename: hub or file column -> column of the form.
        keep: which rows of the source belong to the task.
        folder: of local files.
        prefix: what the prefix switch puts in front; the task's name where None, nothing where empty.
        tag: column naming the hub split a row came from.
        id_column: column whose values must be unique.
        size: (train, validation) rows as published, None where not stated.
        streamed: too large to read whole.
        takes_labels: whether the form wants ``labels``.
        remedy: how to get data that is not on the hub.
    """

    name: str
    category: str
    form: Callable[..., Sequence[Formed]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None
    metrics: tuple[str, ...] = ("accuracy",)
    hub: tuple[str, str | None, str] | None = None
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rename: Mapping[str, str] = field(default_factory=dict)
    keep: Callable[[Mapping[str, Any]], bool] | None = None
    folder: str | None = None
    prefix: str | None = None
    tag: str = ""
    id_column: str | None = None
    size: tuple[int | None, int | None] = (None, None)
    streamed: bool = False
    takes_labels: bool = True
    licence: str = RESEARCH
    note: str = ""
    remedy: str = ""

    @property
    def input_columns(self) -> tuple[str, ...]:
        """The columns its inputs are made of, in order."""
        given, name = self.settings, self.form.__name__
        if name == "choices":
            options = given["options"]
            return (*given["texts"], *((options,) if isinstance(options, str) else options))
        if name == "question_answer":
            return (given.get("question", "question"), given.get("context", "context"))
        if name in ("fields", "similarity"):
            return tuple(given["columns"])
        return _COLUMNS.get(name) or (str(given.get("source" if name == "generate" else "column", "text")),)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The label words where an answer is one of them; None where it joins several (GoEmotions) or is free text."""
        return None if self.form.__name__ == "tag_words" else self.labels

    @property
    def label_column(self) -> str | None:
        """The column of the answer; None where the inputs hold it."""
        given, name = self.settings, self.form.__name__
        key, usual = _ANSWERS[name]
        column: str | None = given.get(key, usual)
        return column


_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "multirc": ("question", "answer", "paragraph"),
    "wsc": ("text", "span2_text", "span2_index", "span1_text"),
    "record": ("query", "entities", "passage"),
    "translate": ("translation",),
}
"""Form -> its input columns, where its settings do not name them."""

_ANSWERS: Mapping[str, tuple[str, str | None]] = {
    "fields": ("label", "label"),
    "multirc": ("label", "label"),
    "similarity": ("label", "label"),
    "wsc": ("label", "label"),
    "record": ("label", "answers"),
    "prefix_lm": ("label", None),
    "question_answer": ("answers", "answers"),
    "choices": ("answer", "label"),
    "translate": ("label", None),
    "generate": ("target", None),
    "tag_words": ("label", "labels"),
}
"""Form -> the setting that names the answer's column, and the column where it is not set."""
