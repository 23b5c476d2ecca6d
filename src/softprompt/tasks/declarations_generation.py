"""The tasks whose targets are written freely: translation, summarisation, GEM, C4. See `softprompt.tasks.declarations`."""

from __future__ import annotations

from typing import Any

from softprompt.tasks import preprocessors as form
from softprompt.tasks.declaration import CONVERTED, OWN_FORM, ROUGE, Declared


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
        hub=(f"wmt/wmt{year}", config, "main"),
        prefix="",
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
