"""One row per task: where its data lies on the hub, its text form, labels, metrics and licence.

Data sets that the hub holds as loading scripts are read from its own parquet conversion (``CONVERTED``); no script is
run. ``PINS`` holds the commits that are known; elsewhere the commit is looked up at the first read and recorded with
the data.
"""

from __future__ import annotations

from typing import Any

from softprompt.tasks import preprocessors as form
from softprompt.tasks.declaration import (
    CONVERTED,
    FALSE_TRUE,
    GO_EMOTIONS,
    NLI2,
    NLI3,
    OWN_FORM,
    PINS,
    QA,
    SENTIMENT,
    Declared,
)
from softprompt.tasks.declarations_generation import GEM, SUMMARIZATION, TRANSLATION, UNSUPERVISED

__all__ = ["DECLARED", "PINS", "Declared"]


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
    _glue(
        "glue_rte",
        "nli",
        "sentence1 sentence2",
        NLI2,
        hub=("nyu-mll/glue", "rte", "main"),
        rename={"premise": "sentence1", "hypothesis": "sentence2"},
        folder="rte",
        prefix="rte",
        size=(2490, 277),
        note="The rows of SuperGLUE's rte in GLUE's text form.",
    ),
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
