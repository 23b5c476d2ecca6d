"""The natural-language wording of every task of the catalogue: a template, the answers, and the task in one sentence.

For decoder-only backbones, which were trained on text as people write it. The papers' form stands beside it and stays the
default for T5. A template names the row's columns, and these that are made of them: ``choices`` (the options under A, B,
C, ...), ``text`` (the source of a generation task, structures as one line), ``marked`` (WSC's text with the pronoun
marked), ``beginning`` (the first part of a text that is to be continued).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from softprompt.tasks import preprocessors
from softprompt.tasks.rows import UNKNOWN_TARGET, Form, Formed, Row
from softprompt.tasks.template import escaped, worded

LETTERS = ("A", "B", "C", "D", "E", "F", "G", "H")


@dataclass(frozen=True, kw_only=True)
class Natural:
    """A natural-language wording.

    Attributes:
        template: of the inputs; it ends where the answer begins.
        instruction: the task in one sentence.
        answers: what the backbone writes for each label, in the labels' order; the labels themselves where None.
        settings: of the task's form, where they differ from those of the papers' wording.
        by_label: the answer is the row's label, though the papers' form asks for a text (WSC).
        labels: of the task, where ``by_label``.
        metrics: those of the task where empty.
    """

    template: str
    instruction: str
    answers: tuple[str, ...] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    by_label: bool = False
    labels: tuple[str, ...] | None = None
    metrics: tuple[str, ...] = ()


NO_YES = ("no", "yes")
TRUE_NEITHER_FALSE = ("True", "Neither", "False")


def _review(column: str) -> Natural:
    return Natural(
        template=f"Review: {{{column}}}\nSentiment:",
        instruction="Say whether the sentiment of the review is positive or negative.",
    )


def _nli3(answers: tuple[str, ...] = TRUE_NEITHER_FALSE) -> Natural:
    return Natural(
        template="{premise}\nQuestion: {hypothesis} True, False or Neither?\nAnswer:",
        instruction="Say whether the statement is true, false or neither, given the text before it.",
        answers=answers,
    )


def _nli2(premise: str, hypothesis: str, answers: tuple[str, ...] = ("True", "False")) -> Natural:
    return Natural(
        template=f"{{{premise}}}\nQuestion: {{{hypothesis}}} True or False?\nAnswer:",
        instruction="Say whether the statement is true or false, given the text before it.",
        answers=answers,
    )


def _similarity(what: str) -> Natural:
    return Natural(
        template="Sentence 1: {sentence1}\nSentence 2: {sentence2}\nSimilarity from 0.0 to 5.0:",
        instruction=f"Say how similar the two {what} are in meaning, from 0.0 (not at all) to 5.0 (the same).",
    )


def _choice(head: str, instruction: str, count: int) -> Natural:
    return Natural(template=f"{head}\n{{choices}}\nAnswer:", instruction=instruction, answers=LETTERS[:count])


def _reading(context: str = "context") -> Natural:
    return Natural(
        template=f"{{{context}}}\nQuestion: {{question}}\nAnswer:",
        instruction="Answer the question with words from the passage.",
        settings={"padded": False},
    )


def _summary(what: str, cue: str = "Summary") -> Natural:
    return Natural(template=f"{what}: {{text}}\n{cue}:", instruction=f"Write the {cue.lower()} of the {what.lower()}.")


def _translation(language: str) -> Natural:
    return Natural(
        template=f"English: {{text}}\n{language}:", instruction=f"Translate the English sentence to {language}."
    )


def _facts(what: str, instruction: str) -> Natural:
    return Natural(template=f"{what}: {{text}}\nSentence:", instruction=instruction)


_MRQA = ("squad", "news_qa", "trivia_qa", "search_qa", "hotpot_qa", "natural_questions")
_RACE = _choice("{article}\nQuestion: {question}", "Choose the right answer to the question about the article.", 4)

NATURAL: Mapping[str, Natural] = {
    # GLUE
    "cola": Natural(
        template="Sentence: {sentence}\nQuestion: Is this sentence grammatically acceptable?\nAnswer:",
        instruction="Say whether the sentence is grammatically acceptable.",
        answers=NO_YES,
    ),
    "sst2": _review("sentence"),
    "mrpc": Natural(
        template="Sentence 1: {sentence1}\nSentence 2: {sentence2}\nQuestion: Do both sentences mean the same?\nAnswer:",
        instruction="Say whether the two sentences mean the same.",
        answers=NO_YES,
    ),
    "qqp": Natural(
        template="Question 1: {question1}\nQuestion 2: {question2}\nQuestion: Do both ask the same?\nAnswer:",
        instruction="Say whether the two questions ask the same.",
        answers=NO_YES,
    ),
    "stsb": _similarity("sentences"),
    "mnli": _nli3(),
    "mnli_mismatched": _nli3(),
    "qnli": Natural(
        template="{sentence}\nQuestion: Does this text answer the question: {question}\nAnswer:",
        instruction="Say whether the text answers the question.",
        answers=("yes", "no"),
    ),
    "glue_rte": _nli2("sentence1", "sentence2"),
    # SuperGLUE
    "boolq": Natural(
        template="{passage}\nQuestion: {question}?\nAnswer:",
        instruction="Answer the question about the passage with yes or no.",
        answers=NO_YES,
    ),
    "cb": _nli3(("True", "False", "Neither")),
    "copa": Natural(
        template="{premise}\nQuestion: What was the {question} of this?\nA: {choice1}\nB: {choice2}\nAnswer:",
        instruction="Choose the more likely cause or effect of what happened.",
        answers=("A", "B"),
    ),
    "multirc": Natural(
        template="{paragraph}\nQuestion: {question}\nProposed answer: {answer}\nIs the proposed answer correct?\nAnswer:",
        instruction="Say whether the proposed answer to the question about the paragraph is correct.",
        answers=NO_YES,
    ),
    "record": Natural(
        template="{passage}\nNames: {entities}\nSentence: {query}\nThe name for @placeholder is",
        instruction="Name the person, place or thing from the passage that fills the placeholder in the sentence.",
    ),
    "rte": _nli2("premise", "hypothesis"),
    "wic": Natural(
        template='Sentence 1: {sentence1}\nSentence 2: {sentence2}\nQuestion: Is the word "{word}" used in the same sense '
        "in both sentences?\nAnswer:",
        instruction="Say whether the word has the same sense in both sentences.",
        answers=NO_YES,
    ),
    "wsc": Natural(
        template='{marked}\nQuestion: Does *{span2_text}* refer to "{span1_text}"?\nAnswer:',
        instruction="Say whether the marked pronoun refers to the named person or thing.",
        answers=NO_YES,
        by_label=True,
        labels=("False", "True"),
        metrics=("accuracy",),
    ),
    "axb": _nli2("premise", "hypothesis"),
    "axg": _nli2("premise", "hypothesis"),
    # Inference
    "anli": _nli3(),
    "doc_nli": _nli2("premise", "hypothesis", ("False", "True")),
    "snli": _nli3(),
    # Similarity and sentiment
    "cxc": _similarity("captions"),
    "cr": _review("text"),
    "go_emotions": Natural(
        template="Comment: {text}\nEmotions:", instruction="Name the emotions that the comment expresses."
    ),
    "sentiment140": Natural(
        template="Tweet: {text}\nSentiment:",
        instruction="Say whether the sentiment of the tweet is positive or negative.",
    ),
    "yelp_polarity": _review("text"),
    # Reading
    **{f"mrqa_{name}": _reading() for name in _MRQA},
    "squad": _reading(),
    "drop": _reading("passage"),
    "race": _RACE,
    "race_middle": _RACE,
    "race_high": _RACE,
    # Rainbow
    "alpha_nli": _choice(
        "First: {observation_1}\nLast: {observation_2}\nQuestion: What happened in between?",
        "Choose what more likely happened between the two events.",
        2,
    ),
    "cosmos_qa": _choice("{context}\nQuestion: {question}", "Choose the right answer to the question.", 4),
    "hellaswag": _choice(
        "{activity_label}: {ctx}\nQuestion: How does it go on?", "Choose how the description most likely goes on.", 4
    ),
    "piqa": _choice("Goal: {goal}", "Choose the better way to reach the goal.", 2),
    "social_i_qa": _choice("{context}\nQuestion: {question}", "Choose the most likely answer to the question.", 3),
    "winogrande": _choice(
        "{sentence}\nQuestion: What does the _ stand for?",
        "Choose the name that belongs in the gap of the sentence.",
        2,
    ),
    # Generation
    "wmt_en_de": _translation("German"),
    "wmt_en_fr": _translation("French"),
    "wmt_en_ro": _translation("Romanian"),
    "aeslc": _summary("Email", "Subject"),
    "billsum": _summary("Bill"),
    "cnn_dailymail": _summary("Article", "Highlights"),
    "wiki_lingua": _summary("Article"),
    "gigaword": _summary("Text", "Headline"),
    "multi_news": _summary("Articles"),
    "newsroom": _summary("Article"),
    "samsum": _summary("Dialogue"),
    "xsum": _summary("Article"),
    "gem_common_gen": _facts("Words", "Write a sentence that uses all the words."),
    "gem_dart": _facts("Facts", "Write a sentence that tells all the facts."),
    "gem_e2e": _facts("Facts", "Write a sentence about the restaurant that tells all the facts."),
    "gem_sgd": _facts("Acts", "Write the assistant's sentence that does all the acts."),
    "gem_web_nlg": _facts("Facts", "Write a sentence that tells all the facts."),
    "gem_wiki_auto": Natural(template="Sentence: {text}\nSimpler:", instruction="Write the sentence in simpler words."),
    "gem_xsum": _summary("Article"),
    "gem_wiki_lingua": _summary("Article"),
    "c4": Natural(template="{beginning}", instruction="Continue the text."),
}


def generic(columns: Sequence[str], label: str) -> str:
    """The natural template of a task known by its columns alone: ``Text: {text}``, a line each, then ``Label:``."""
    lines = [f"{_title(column)}: {{{column}}}" for column in columns]
    return "\n".join([*lines, f"{_title(label)}:"])


def _title(column: str) -> str:
    words = column.replace("_", " ").strip()
    return escaped(words[:1].upper() + words[1:])


def natural_form(
    row: Row, *, natural: Natural, form: Callable[..., Sequence[Formed]] | None, base: Form
) -> list[Formed]:
    """The pairs of a row in natural language.

    Args:
        natural: the wording.
        form: the function of the task's own form, by which columns are made (`with_made_columns`); None for none.
        base: that form with its settings: gives targets and what metrics need.
    """
    inputs = worded(natural.template, with_made_columns(row, form, base))
    if natural.by_label:
        index = row.label(natural.labels or ())
        made = [Formed(inputs, UNKNOWN_TARGET, {"label": index, "idx": row.values.get("idx")})]
    else:
        made = [Formed(inputs, one.targets, one.extra) for one in base(row)]
    if natural.answers is None:
        return made
    return [replace_target(one, natural.answers) for one in made]


def replace_target(one: Formed, answers: Sequence[str]) -> Formed:
    """A pair with the answer of its label as target."""
    index = one.extra.get("label")
    return Formed(one.inputs, UNKNOWN_TARGET if index is None else answers[index], one.extra)


def with_made_columns(row: Row, form: Callable[..., Sequence[Formed]] | None, base: Form) -> Row:
    """A row with the columns that a natural template may name beside the row's own."""
    settings = getattr(base, "keywords", {})
    made: dict[str, Any] = {}
    if form is preprocessors.choices:
        options = preprocessors.listed_options(row, settings["options"])
        made["choices"] = "\n".join(f"{letter}: {text}" for letter, text in zip(LETTERS, options, strict=False))
    elif form is preprocessors.multirc:
        made = {name: preprocessors.without_tags(row.text(name)) for name in ("paragraph", "question", "answer")}
    elif form is preprocessors.wsc:
        made["marked"] = preprocessors.marked_pronoun(row)
    elif form is preprocessors.record:
        made["passage"] = preprocessors.without_highlights(row.text("passage"))
    elif form is preprocessors.generate:
        made["text"] = preprocessors.source_text(row, settings["source"])
    elif form is preprocessors.translate:
        made["text"] = preprocessors.in_language(row, settings["source"][0], "translation")
    elif form is preprocessors.prefix_lm:
        made["beginning"] = "".join(one.inputs for one in base(row)[:1])
    return replace(row, values={**row.values, **made}) if made else row
