"""One row per task: where its data lies on the hub, its text form, labels, metrics and licence.

Data sets that the hub holds as loading scripts are read from its own parquet conversion (``CONVERTED``); no script is
run. ``PINS`` holds the commits that are known; elsewhere the commit is looked up at the first read and recorded with
the data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from softprompt.tasks import preprocessors as form
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


def _text(name: str, category: str, columns: str, labels: tuple[str, ...], **more: Any) -> Declared:
    """A classification task in the generic form; ``columns`` in order, blank-separated."""
    settings: dict[str, Any] = {"columns": tuple(columns.split()), **more.pop("settings", {})}
    return Declared(name=name, category=category, form=form.fields, settings=settings, labels=labels, **more)


def _glue(name: str, category: str, columns: str, labels: tuple[str, ...], **more: Any) -> Declared:
    more = {"hub": ("nyu-mll/glue", name, "main"), "id_column": "idx", **more}
    return _text(name, category, columns, labels, **more)


def _super(name: str, category: str, columns: str, labels: tuple[str, ...], **more: Any) -> Declared:
    more = {"hub": ("aps/super_glue", name, "main"), "id_column": "idx", **more}
    return _text(name, category, columns, labels, **more)


def _choices(name: str, texts: str, options: str | tuple[str, ...], labels: str, **more: Any) -> Declared:
    answer: dict[str, Any] = {k: more.pop(k) for k in ("answer", "first") if k in more}
    settings: dict[str, Any] = {"texts": tuple(texts.split()), "options": options, **answer}
    more = {"category": "commonsense", "note": OWN_FORM, **more}
    return Declared(name=name, form=form.choices, settings=settings, labels=tuple(labels.split()), **more)


def _qa(name: str, prefix: str | None = None, **more: Any) -> Declared:
    more = {"category": "question_answering", **more}
    return Declared(name=name, form=form.question_answer, prefix=prefix, metrics=QA, **more)


def _mrqa(name: str, subset: str) -> Declared:
    return _qa(
        f"mrqa_{name}",
        prefix=name,
        settings={"id_column": "qid"},
        hub=("mrqa-workshop/mrqa", None, "main"),
        keep=lambda row: row.get("subset") in (None, subset),
        id_column="qid",
    )


def _summary(name: str, source: str, target: str, **more: Any) -> Declared:
    settings = {"source": source, "target": target, "command": "summarize:", **more.pop("settings", {})}
    return Declared(name=name, category="summarization", form=form.generate, settings=settings, metrics=ROUGE, **more)


def _gem(name: str, repo: str, source: str, *, config: str | None = None, **more: Any) -> Declared:
    settings = {"source": source, "target": "target", "references": "references", **more.pop("settings", {})}
    more = {"metrics": ("bleu",), "note": OWN_FORM + " BLEU is ours too.", **more}
    hub = (f"GEM/{repo}", config or repo, CONVERTED)
    return Declared(name=f"gem_{name}", category="generation", form=form.generate, settings=settings, hub=hub, **more)


def _wmt(name: str, year: str, config: str, code: str, language: str) -> Declared:
    return Declared(
        name=name,
        category="translation",
        form=form.translate,
        settings={"source": ("en", "English"), "target": (code, language)},
        metrics=("bleu",),
        hub=(f"wmt/wmt{year}", config, "main" if year != "15" else CONVERTED),
        prefix="",
    )


GLUE = (
    _glue(
        "cola", "acceptability", "sentence", ("unacceptable", "acceptable"), metrics=("matthews",), size=(8551, 1043)
    ),
    _glue("sst2", "sentiment", "sentence", SENTIMENT, size=(67349, 872)),
    _glue(
        "mrpc",
        "paraphrase_similarity",
        "sentence1 sentence2",
        ("not_equivalent", "equivalent"),
        metrics=("f1", "accuracy"),
        size=(3668, 408),
    ),
    _glue(
        "qqp",
        "paraphrase_similarity",
        "question1 question2",
        ("not_duplicate", "duplicate"),
        metrics=("f1", "accuracy"),
        size=(363846, 40430),
        licence="non-commercial (Quora)",
    ),
    Declared(
        name="stsb",
        category="paraphrase_similarity",
        form=form.similarity,
        settings={"columns": ("sentence1", "sentence2")},
        metrics=("pearson", "spearman"),
        hub=("nyu-mll/glue", "stsb", "main"),
        id_column="idx",
        size=(5749, 1500),
        licence="CC BY-SA 4.0 and others",
    ),
    _glue(
        "mnli",
        "nli",
        "hypothesis premise",
        NLI3,
        splits={"validation": ("validation_matched",), "test": ("test_matched",)},
        size=(392702, 9815),
        licence="OANC, CC BY 3.0, CC BY-SA 3.0",
        note="Validation is the matched set; mnli_mismatched holds the other.",
    ),
    _glue(
        "mnli_mismatched",
        "nli",
        "hypothesis premise",
        NLI3,
        hub=("nyu-mll/glue", "mnli", "main"),
        splits={"validation": ("validation_mismatched",), "test": ("test_mismatched",)},
        prefix="mnli",
        size=(392702, 9832),
    ),
    _glue("qnli", "nli", "question sentence", NLI2, size=(104743, 5463), licence="CC BY-SA 4.0"),
)

SUPERGLUE = (
    _super("boolq", "question_answering", "passage question", FALSE_TRUE, size=(9427, 3270), licence="CC BY-SA 3.0"),
    _super(
        "cb",
        "nli",
        "hypothesis premise",
        ("entailment", "contradiction", "neutral"),
        metrics=("macro_f1", "accuracy"),
        size=(250, 56),
    ),
    _super(
        "copa",
        "sentence_completion",
        "choice1 choice2 premise question",
        ("choice1", "choice2"),
        size=(400, 100),
    ),
    Declared(
        name="multirc",
        category="question_answering",
        form=form.multirc,
        labels=FALSE_TRUE,
        metrics=("f1a", "group_em"),
        hub=("aps/super_glue", "multirc", "main"),
        id_column="idx",
        size=(27243, 4848),
    ),
    Declared(
        name="record",
        category="question_answering",
        form=form.record,
        metrics=QA,
        hub=("aps/super_glue", "record", "main"),
        id_column="idx",
        size=(100730, 10000),
        note="Training makes one pair per answer (138,854 of 100,730 rows).",
    ),
    _super("rte", "nli", "hypothesis premise", NLI2, size=(2490, 277)),
    _super(
        "wic",
        "word_sense",
        "sentence1 sentence2 word",
        FALSE_TRUE,
        size=(5428, 638),
        licence="CC BY-NC 4.0",
    ),
    Declared(
        name="wsc",
        category="coreference",
        form=form.wsc,
        takes_labels=False,
        metrics=("referent_accuracy",),
        hub=("aps/super_glue", "wsc.fixed", "main"),
        id_column="idx",
        size=(554, 104),
        note="Trained on the rows whose referent is right (259 of 554); the answer is the referent, not a label word.",
    ),
    _super(
        "axb",
        "nli",
        "hypothesis premise",
        NLI2,
        rename={"sentence1": "premise", "sentence2": "hypothesis"},
        prefix="rte",
        metrics=("matthews",),
        note="Diagnostic: a test split only, labels kept by the benchmark.",
    ),
    _super(
        "axg",
        "nli",
        "hypothesis premise",
        NLI2,
        prefix="rte",
        note="Diagnostic: a test split only, labels kept by the benchmark.",
    ),
)

NLI = (
    _text(
        "anli",
        "nli",
        "hypothesis premise",
        NLI3,
        settings={"names": ("hypothesis", "context"), "collapse": True, "idx": "uid", "round_column": "round"},
        hub=("facebook/anli", None, "main"),
        splits={
            s: tuple(f"{h}_r{i}" for i in (1, 2, 3))
            for s, h in (("train", "train"), ("validation", "dev"), ("test", "test"))
        },
        tag="round",
        licence="CC BY-NC 4.0",
        size=(162865, 3200),
        note="The three rounds together; a row's prefix names its round, as in the SPoT data.",
    ),
    _text(
        "doc_nli",
        "nli",
        "hypothesis premise",
        ("not_entailment", "entailment"),
        settings={"collapse": True},
        hub=("saattrupdan/doc-nli", None, "main"),
        splits={"validation": ("val",)},
        size=(942314, 234258),
    ),
    _text(
        "snli",
        "nli",
        "hypothesis premise",
        NLI3,
        settings={"collapse": True},
        hub=("stanfordnlp/snli", None, "main"),
        size=(549367, 9842),
        licence="CC BY-SA 4.0",
    ),
)

SIMILARITY = (
    Declared(
        name="cxc",
        category="paraphrase_similarity",
        form=form.similarity,
        settings={"columns": ("sentence1", "sentence2")},
        metrics=("pearson", "spearman"),
        rename={"caption1": "sentence1", "caption2": "sentence2", "agg_score": "label"},
        size=(88000, None),
        note="Form of STS-B; the paper states 88K training rows and no split.",
        remedy="task 'cxc' is not on the hub: join Crisscrossed Captions' sts files with MS-COCO's captions into "
        "cxc/train.jsonl and cxc/validation.jsonl (sentence1, sentence2, label) and give the folder with --data.",
    ),
)

SENTIMENT_TASKS = (
    _text(
        "cr",
        "sentiment",
        "text",
        SENTIMENT,
        hub=("SetFit/CR", None, "main"),
        splits={"validation": ("test",)},
        size=(3775, None),
        note="There is no public validation split; the copy's own test split stands in. " + OWN_FORM,
    ),
    Declared(
        name="go_emotions",
        category="sentiment",
        form=form.tag_words,
        settings={"column": "text"},
        labels=GO_EMOTIONS,
        metrics=("exact_text",),
        hub=("google-research-datasets/go_emotions", "simplified", "main"),
        id_column="id",
        size=(43410, 5426),
        licence="Apache-2.0",
        note="A row may have several labels: its target joins them, and only all of them are right. " + OWN_FORM,
    ),
    _text(
        "sentiment140",
        "sentiment",
        "text",
        SENTIMENT,
        settings={"label": "sentiment", "words": {"0": "negative", "4": "positive"}},
        keep=lambda row: str(row.get("sentiment")) != "2",
        hub=("stanfordnlp/sentiment140", "sentiment140", CONVERTED),
        splits={"validation": ("test",)},
        size=(1600000, None),
        note="There is no validation split; the test split without its neutral rows stands in. " + OWN_FORM,
    ),
    _text(
        "yelp_polarity",
        "sentiment",
        "text",
        SENTIMENT,
        hub=("fancyzhx/yelp_polarity", None, "main"),
        splits={"validation": ("test",)},
        size=(560000, 38000),
        licence="academic use (Yelp)",
        note="There is no validation split; the test split stands in. " + OWN_FORM,
    ),
)

MRQA = tuple(
    _mrqa(name, subset)
    for name, subset in (
        ("squad", "SQuAD"),
        ("news_qa", "NewsQA"),
        ("trivia_qa", "TriviaQA-web"),
        ("search_qa", "SearchQA"),
        ("hotpot_qa", "HotpotQA"),
        ("natural_questions", "NaturalQuestionsShort"),
    )
)

READING = (
    _qa(
        "squad",
        prefix="",
        hub=("rajpurkar/squad", None, "main"),
        id_column="id",
        size=(87599, 10570),
        licence="CC BY-SA 4.0",
        note="SQuAD 1.1 without a prefix, as T5 has it; mrqa_squad is MRQA's copy.",
    ),
    _qa(
        "drop",
        settings={"answers": "answers_spans", "context": "passage", "id_column": "query_id"},
        hub=("ucinlp/drop", None, "main"),
        id_column="query_id",
        size=(77409, 9536),
        licence="CC BY-SA 4.0",
        note=OWN_FORM + " Scored as SQuAD, numbers and dates as words.",
    ),
    *(
        _choices(
            name,
            "article question",
            "options",
            "choice1 choice2 choice3 choice4",
            answer="answer",
            first="A",
            category="question_answering",
            folder="race",
            prefix="race",
            hub=("ehovy/race", config, "main"),
            keep=keep,
            licence="non-commercial",
            size=size,
        )
        for name, config, keep, size in (
            ("race", "all", None, (87866, 4887)),
            (
                "race_middle",
                "middle",
                lambda row: str(row.get("example_id", "middle")).startswith("middle"),
                (25421, 1436),
            ),
            ("race_high", "high", lambda row: str(row.get("example_id", "high")).startswith("high"), (62445, 3451)),
        )
    ),
)

RAINBOW = (
    _choices(
        "alpha_nli",
        "observation_1 observation_2",
        ("hypothesis_1", "hypothesis_2"),
        "choice1 choice2",
        first="1",
        hub=("allenai/art", "anli", CONVERTED),
        size=(169654, 1532),
    ),
    _choices(
        "cosmos_qa",
        "context question",
        ("answer0", "answer1", "answer2", "answer3"),
        "choice1 choice2 choice3 choice4",
        hub=("allenai/cosmos_qa", "default", CONVERTED),
        id_column="id",
        size=(25262, 2985),
        licence="CC BY 4.0",
    ),
    _choices(
        "hellaswag",
        "activity_label ctx",
        "endings",
        "choice1 choice2 choice3 choice4",
        hub=("Rowan/hellaswag", None, "main"),
        size=(39905, 10042),
        licence="MIT",
    ),
    _choices(
        "piqa",
        "goal",
        ("sol1", "sol2"),
        "choice1 choice2",
        hub=("lighteval/piqa", "plain_text", "main"),
        size=(16113, 1838),
    ),
    _choices(
        "social_i_qa",
        "context question",
        ("answerA", "answerB", "answerC"),
        "choice1 choice2 choice3",
        first="1",
        hub=("allenai/social_i_qa", "default", CONVERTED),
        size=(33410, 1954),
    ),
    _choices(
        "winogrande",
        "sentence",
        ("option1", "option2"),
        "choice1 choice2",
        answer="answer",
        first="1",
        hub=("allenai/winogrande", "winogrande_xl", "main"),
        size=(40398, 1267),
        licence="CC BY",
    ),
)

TRANSLATION = (
    _wmt("wmt_en_de", "14", "de-en", "de", "German"),
    _wmt("wmt_en_fr", "15", "fr-en", "fr", "French"),
    _wmt("wmt_en_ro", "16", "ro-en", "ro", "Romanian"),
)

SUMMARIZATION = (
    _summary("aeslc", "email_body", "subject_line", hub=("Yale-LILY/aeslc", "default", CONVERTED)),
    _summary(
        "billsum",
        "text",
        "summary",
        hub=("FiscalNote/billsum", None, "main"),
        splits={"validation": ("test",)},
        note="There is no validation split; the test split stands in.",
    ),
    _summary("cnn_dailymail", "article", "highlights", hub=("abisee/cnn_dailymail", "3.0.0", "main"), id_column="id"),
    _summary(
        "wiki_lingua",
        "source",
        "target",
        hub=("GEM/wiki_lingua", "en", CONVERTED),
        note="English; read from GEM's copy, which has one row per article.",
    ),
    _summary("gigaword", "document", "summary", hub=("Harvard/gigaword", "default", CONVERTED)),
    _summary("multi_news", "document", "summary", hub=("alexfabbri/multi_news", "default", CONVERTED)),
    _summary(
        "newsroom",
        "text",
        "summary",
        remedy="task 'newsroom' may not be redistributed: ask for it at lil.nlp.cornell.edu/newsroom, name its files "
        "newsroom/train.jsonl.gz and newsroom/validation.jsonl.gz, and give the folder with --data.",
    ),
    _summary(
        "samsum",
        "dialogue",
        "summary",
        hub=("knkarthick/samsum", "default", CONVERTED),
        licence="CC BY-NC-ND 4.0",
        note="A maintained copy; the original repository was closed.",
    ),
    _summary("xsum", "document", "summary", hub=("EdinburghNLP/xsum", None, "main"), id_column="id"),
)

GEM = (
    _gem("common_gen", "common_gen", "concepts", licence="MIT"),
    _gem("dart", "dart", "tripleset", licence="MIT"),
    _gem("e2e", "e2e_nlg", "meaning_representation", licence="CC BY-SA 4.0"),
    _gem("sgd", "schema_guided_dialog", "dialog_acts", licence="CC BY-SA 4.0"),
    _gem("web_nlg", "web_nlg", "input", config="en", licence="CC BY-NC-SA 4.0"),
    _gem("wiki_auto", "wiki_auto_asset_turk", "source", config="train"),
    _gem("xsum", "xsum", "document", metrics=ROUGE, settings={"command": "summarize:"}, prefix="gem_xsum"),
    _gem("wiki_lingua", "wiki_lingua", "source", config="en", metrics=ROUGE, settings={"command": "summarize:"}),
)

UNSUPERVISED = (
    Declared(
        name="c4",
        category="language_modeling",
        form=form.prefix_lm,
        metrics=ROUGE,
        hub=("allenai/c4", "en", "main"),
        prefix="",
        streamed=True,
        size=(364868892, 364608),
        licence="ODC-BY",
        note="Prefix language modelling, streamed; ask for a number of rows.",
    ),
)

DECLARED: tuple[Declared, ...] = (
    *GLUE,
    *SUPERGLUE,
    *NLI,
    *SIMILARITY,
    *SENTIMENT_TASKS,
    *MRQA,
    *READING,
    *RAINBOW,
    *TRANSLATION,
    *SUMMARIZATION,
    *GEM,
    *UNSUPERVISED,
)
