"""Scores of generated texts against examples, in percent.

Answers are texts: a class is right only by its exact label word, anything else is an invalid answer and wrong. Averaging
and edge cases follow the T5 evaluation code.
"""

from __future__ import annotations

import re
import string
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softprompt.errors import SoftpromptError, UnknownNameError, UsageError
from softprompt.tasks.example import Example
from softprompt.tasks.rows import UNKNOWN_TARGET

Canonical = Callable[[str], str]
Answers = Sequence[tuple[str, Example]]
"""Predictions with their examples; only those with a gold label."""

INVALID = -1
"""The class of an answer that is no label word."""


def score(
    metrics: Sequence[str],
    labels: Sequence[str] | None,
    predictions: Sequence[str],
    examples: Sequence[Example],
    canonical: Canonical | None = None,
) -> dict[str, float]:
    """Metrics by name, in percent, and ``score``, their mean. See `Task.score`."""
    if len(predictions) != len(examples):
        raise UsageError(f"{len(predictions)} predictions for {len(examples)} examples; give one for each.")
    answers = [(p.strip(), e) for p, e in zip(predictions, examples, strict=True) if e.targets != UNKNOWN_TARGET]
    if not answers:
        raise UsageError(f"none of the {len(examples)} examples has a gold label; score a labelled split.")
    same = lru_cache(maxsize=None)(lambda text: (canonical(text) if canonical else text).strip())
    words = canonical_labels(labels, same) if labels else None
    found: dict[str, float] = {}
    for name in metrics:
        if name not in METRICS:
            raise UnknownNameError("metric", name, METRICS)
        if name not in found:
            found.update(METRICS[name](answers, words, same))
    scores = {name: found[name] for name in metrics}
    scores["score"] = float(np.mean(list(scores.values())))
    return scores


def canonical_labels(labels: Sequence[str], same: Canonical) -> tuple[str, ...]:
    """Label words as the tokenizer gives them back; two that become equal cannot be told apart and raise."""
    words = tuple(same(word) for word in labels)
    for i, word in enumerate(words):
        if words.index(word) != i:
            raise UsageError(
                f"labels {labels[words.index(word)]!r} and {labels[i]!r} are both {word!r} to this backbone's "
                "tokenizer; choose label words it can tell apart."
            )
    return words


def class_index(prediction: str, words: Sequence[str]) -> int:
    """The class of an answer by exact label word, or `INVALID`."""
    return words.index(prediction) if prediction in words else INVALID


def _classes(
    answers: Answers, words: Sequence[str] | None, same: Canonical
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(gold, predicted) class indices."""
    if words is None:
        raise UsageError("this metric needs a task with label words.")
    gold = [_gold_class(example, words, same) for _, example in answers]
    return np.array(gold), np.array([class_index(p, words) for p, _ in answers])


def _gold_class(example: Example, words: Sequence[str], same: Canonical) -> int:
    label = example.extra.get("label")
    if isinstance(label, int):
        return label
    index = class_index(same(example.targets), words)
    if index == INVALID:
        raise UsageError(f"{example.key}: target {example.targets!r} is none of the labels {', '.join(words)}.")
    return index


def accuracy(answers: Answers, words: Sequence[str] | None, same: Canonical) -> dict[str, float]:
    """Share of exact answers; by class where the task has labels, by target text where not."""
    if words is None:
        right = [p == same(e.targets) for p, e in answers]
    else:
        gold, predicted = _classes(answers, words, same)
        right = list(gold == predicted)
    return {"accuracy": 100.0 * float(np.mean(right))}


def exact_text(answers: Answers, words: Sequence[str] | None, same: Canonical) -> dict[str, float]:
    """Share of answers that are the target text, letter by letter (several labels in one target: GoEmotions)."""
    return {"exact_text": 100.0 * float(np.mean([p == same(e.targets) for p, e in answers]))}


def f1(answers: Answers, words: Sequence[str] | None, same: Canonical) -> dict[str, float]:
    """F1 of class 1 of two; an invalid answer counts as the wrong one of the two (MRPC, QQP)."""
    return {"f1": _binary_f1(*_classes(answers, words, same))}


def _binary_f1(gold: NDArray[np.int64], predicted: NDArray[np.int64]) -> float:
    from sklearn.metrics import f1_score

    predicted = np.where((predicted == 0) | (predicted == 1), predicted, 1 - gold)
    return 100.0 * float(f1_score(gold, predicted, zero_division=0.0))


def macro_f1(answers: Answers, words: Sequence[str] | None, same: Canonical) -> dict[str, float]:
    """Unweighted mean of the F1 of every class (CB); a class that never occurs counts 0."""
    from sklearn.metrics import f1_score

    classes = range(len(words or ()))
    found = f1_score(*_classes(answers, words, same), labels=[*classes], average="macro", zero_division=0.0)
    return {"macro_f1": 100.0 * float(found)}


def matthews(answers: Answers, words: Sequence[str] | None, same: Canonical) -> dict[str, float]:
    """Matthews correlation (CoLA); invalid answers are a class of their own, 0 where either side is constant."""
    from sklearn.metrics import matthews_corrcoef

    gold, predicted = _classes(answers, words, same)
    constant = len(np.unique(gold)) < 2 or len(np.unique(predicted)) < 2
    return {"matthews": 0.0 if constant else 100.0 * float(matthews_corrcoef(gold, predicted))}


def correlations(answers: Answers, words: Sequence[str] | None, same: Canonical) -> dict[str, float]:
    """Pearson and Spearman of the numbers written (STS-B); an answer that is no number is -1; 0 where constant."""
    from scipy.stats import rankdata

    gold = np.array([_number(e.targets, same) for _, e in answers])
    predicted = np.array([_number(p, same) for p, _ in answers])
    return {
        "pearson": 100.0 * _pearson(gold, predicted),
        "spearman": 100.0 * _pearson(rankdata(gold), rankdata(predicted)),
    }


# Tokenizers give "3.75" back as "3. 75" and "-1" as "- 1".
_WRITTEN_NUMBER = re.compile(r"([-+]?)\s*(\d*)\s*(\.?)\s*(\d*)\s*((?:[eE]\s*[-+]?\s*\d+)?)")


def _number(text: str, same: Canonical) -> float:
    """The number of a text as it is written; -1 where it is none."""
    for form in (text, same(text)):
        match = _WRITTEN_NUMBER.fullmatch(form.strip())
        try:
            value = float("".join("".join(match.groups()).split())) if match else float(form)
        except ValueError:
            continue
        return value if np.isfinite(value) else -1.0
    return -1.0


def _pearson(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) > 0 and np.ptp(b) > 0 else 0.0


_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """SQuAD's normalisation: lower case, no ASCII punctuation, no articles, single blanks."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def word_f1(gold: str, predicted: str) -> float:
    """F1 (0..1) over the words two normalised texts share, 0 where they share none."""
    gold_words, predicted_words = gold.split(), predicted.split()
    common = sum((Counter(gold_words) & Counter(predicted_words)).values())
    return 2.0 * common / (len(gold_words) + len(predicted_words)) if common else 0.0


def question_answering(answers: Answers, words: Sequence[str] | None, same: Canonical) -> dict[str, float]:
    """SQuAD exact match and F1, each the best over the gold answers; one answer a group counts (ReCoRD)."""
    exact: list[float] = []
    overlap: list[float] = []
    seen: set[str] = set()
    for prediction, example in answers:
        group = example.extra.get("group")
        if group is not None:
            if str(group) in seen:
                continue
            seen.add(str(group))
        golds = [normalize_answer(same(gold)) for gold in example.extra.get("answers") or [example.targets]]
        given = normalize_answer(prediction)
        exact.append(max(float(gold == given) for gold in golds))
        overlap.append(max(word_f1(gold, given) for gold in golds))
    return {"exact_match": 100.0 * float(np.mean(exact)), "answer_f1": 100.0 * float(np.mean(overlap))}


def grouped_answers(answers: Answers, words: Sequence[str] | None, same: Canonical) -> dict[str, float]:
    """MultiRC: F1 over all answers (F1a), and the share of questions whose answers are all right (EM)."""
    gold, predicted = _classes(answers, words, same)
    groups: dict[str, list[bool]] = defaultdict(list)
    for (_, example), right in zip(answers, gold == predicted, strict=True):
        groups[str(example.extra.get("group", example.key))].append(bool(right))
    return {"f1a": _binary_f1(gold, predicted), "group_em": 100.0 * float(np.mean([all(g) for g in groups.values()]))}


DETERMINERS = frozenset(
    "a an few her his each every many much my our some that the their these this those which whose your".split()  # noqa: SIM905
)


def referent_accuracy(answers: Answers, words: Sequence[str] | None, same: Canonical) -> dict[str, float]:
    """WSC: an answer whose words are part of the referent's, or contain them, says True; empty is always wrong."""
    right = []
    for prediction, example in answers:
        label = example.extra.get("label")
        if label is not None:
            right.append(says_referent(prediction, same(example.targets)) == label)
    if not right:
        raise UsageError("no WSC example has a gold label; score a labelled split.")
    return {"referent_accuracy": 100.0 * float(np.mean(right))}


def says_referent(prediction: str, referent: str) -> int:
    """1 where an answer names the referent, 0 where it names another, `INVALID` where it is empty."""
    given, wanted = _bare_words(prediction), _bare_words(referent)
    if not given:
        return INVALID
    if any("'" in w for w in given) != any("'" in w for w in wanted):
        return 0  # "Bob" is not "Bob's hat"
    return int(set(given) <= set(wanted) or set(wanted) <= set(given))


def _bare_words(text: str) -> list[str]:
    return [word for word in text.strip().lower().split() if word not in DETERMINERS]


def _references(example: Example, same: Canonical) -> list[str]:
    return [same(text) for text in example.extra.get("references") or [example.targets]]


def rouge(answers: Answers, words: Sequence[str] | None, same: Canonical) -> dict[str, float]:
    """ROUGE-1, -2 and -Lsum F-measures by rouge_score, the best over references; Lsum's sentences end at " . "."""
    try:
        from rouge_score import rouge_scorer
    except ImportError:
        raise SoftpromptError("ROUGE needs the package rouge_score; install softprompt[metrics].") from None
    kinds = ("rouge1", "rouge2", "rougeLsum")
    scorer = rouge_scorer.RougeScorer(rouge_types=list(kinds))
    values: dict[str, list[float]] = {kind: [] for kind in kinds}
    for prediction, example in answers:
        golds = [_one_sentence_a_line(gold) for gold in _references(example, same)]
        result: Any = scorer.score_multi(golds, _one_sentence_a_line(prediction))
        for kind in kinds:
            values[kind].append(float(result[kind].fmeasure))
    return {kind: 100.0 * float(np.mean(values[kind])) for kind in kinds}


def _one_sentence_a_line(text: str) -> str:
    return text.replace(" . ", " .\n")


def bleu(answers: Answers, words: Sequence[str] | None, same: Canonical) -> dict[str, float]:
    """Corpus BLEU by sacrebleu, international tokens, exponential smoothing; all references where there are several."""
    try:
        import sacrebleu
    except ImportError:
        raise SoftpromptError("BLEU needs the package sacrebleu; install softprompt[metrics].") from None
    references = [_references(example, same) for _, example in answers]
    most = max(len(r) for r in references)
    streams = [[r[i] if i < len(r) else None for r in references] for i in range(most)]
    result = sacrebleu.corpus_bleu([p for p, _ in answers], streams, smooth_method="exp", tokenize="intl")
    return {"bleu": float(result.score)}


LOSS_METRIC = "token_probability"
"""What a language modelling task is judged by; its answers are losses (`loss_answer`), not texts."""


def loss_answer(nats: float, tokens: int) -> str:
    """The answer of a row that is judged by loss: the negative log-probability of its targets, and their number."""
    return f"{nats:.6f} nats, {tokens} tokens"


_LOSS_ANSWER = re.compile(r"(\d+\.\d+|inf|nan) nats, (\d+) tokens")


def token_probability(answers: Answers, words: Sequence[str] | None, same: Canonical) -> dict[str, float]:
    """100 e^-loss, the geometric mean of the target tokens' probabilities, which is 100 / perplexity; 0 where not finite."""
    matches = [_LOSS_ANSWER.fullmatch(p) for p, _ in answers]
    if not all(matches):
        raise UsageError("this task is judged by the loss of its targets: evaluate it, texts of answers have no score.")
    nats = sum(float(m.group(1)) for m in matches if m)
    tokens = sum(int(m.group(2)) for m in matches if m)
    loss = nats / tokens if tokens else float("nan")
    return {LOSS_METRIC: 100.0 * float(np.exp(-loss)) if np.isfinite(loss) else 0.0}


def group_of(metrics: Sequence[str], example: Example) -> str:
    """What an example is judged together with; its own key where the metrics judge it alone."""
    group = example.extra.get("group") if GROUPED & set(metrics) else None
    return example.key if group is None else f"group {group}"


Metric = Callable[[Answers, "Sequence[str] | None", Canonical], dict[str, float]]

GROUPED = frozenset({"f1a", "group_em", "exact_match", "answer_f1"})
"""Metrics that judge the examples of a group together: a subset of rows holds whole groups, or their value is another."""

METRICS: Mapping[str, Metric] = {
    "accuracy": accuracy,
    "exact_text": exact_text,
    "referent_accuracy": referent_accuracy,
    "f1": f1,
    "macro_f1": macro_f1,
    "matthews": matthews,
    "pearson": correlations,
    "spearman": correlations,
    "exact_match": question_answering,
    "answer_f1": question_answering,
    "f1a": grouped_answers,
    "group_em": grouped_answers,
    "rouge1": rouge,
    "rouge2": rouge,
    "rougeLsum": rouge,
    "bleu": bleu,
    LOSS_METRIC: token_probability,
}
"""Metric name -> the function that computes it (and maybe its sister)."""
