"""Metrics against libraries and independent computations on random cases, and their edges by hand."""

from __future__ import annotations

import random
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from softprompt.errors import UnknownNameError, UsageError
from softprompt.tasks.example import Example
from softprompt.tasks.metrics import INVALID, LOSS_METRIC, loss_answer, normalize_answer, says_referent, score, word_f1

CASES = range(20)


def examples(targets: Sequence[str], **extras: Sequence[Any]) -> list[Example]:
    return [
        Example(key=f"t/validation/{i}", inputs="", targets=target, extra={k: v[i] for k, v in extras.items()})
        for i, target in enumerate(targets)
    ]


def classes(words: Sequence[str], gold: Sequence[int]) -> list[Example]:
    return examples([words[g] for g in gold], label=list(gold))


def random_classes(seed: int, count: int, invalid: float = 0.1) -> tuple[list[int], list[int]]:
    rng = random.Random(seed)
    size = rng.randint(5, 60)
    gold = [rng.randrange(count) for _ in range(size)]
    predicted = [INVALID if rng.random() < invalid else rng.choice([g, rng.randrange(count)]) for g in gold]
    return gold, predicted


def texts(words: Sequence[str], predicted: Sequence[int]) -> list[str]:
    return [words[p] if p >= 0 else "gibberish" for p in predicted]


@pytest.mark.parametrize("seed", CASES)
def test_accuracy_and_matthews_equal_sklearn(seed: int) -> None:
    import sklearn.metrics as sk

    words = ("unacceptable", "acceptable")
    gold, predicted = random_classes(seed, 2)
    found = score(("accuracy", "matthews"), words, texts(words, predicted), classes(words, gold))
    assert found["accuracy"] == pytest.approx(100 * sk.accuracy_score(gold, predicted))
    assert found["matthews"] == pytest.approx(100 * sk.matthews_corrcoef(gold, predicted))
    assert found["score"] == pytest.approx((found["accuracy"] + found["matthews"]) / 2)


@pytest.mark.parametrize("seed", CASES)
def test_f1_equals_sklearn_with_invalid_answers_turned_wrong(seed: int) -> None:
    import sklearn.metrics as sk

    words = ("not_duplicate", "duplicate")
    gold, predicted = random_classes(seed, 2, invalid=0.3)
    turned = [p if p >= 0 else 1 - g for g, p in zip(gold, predicted, strict=True)]
    found = score(("f1",), words, texts(words, predicted), classes(words, gold))
    assert found["f1"] == pytest.approx(100 * sk.f1_score(gold, turned, zero_division=0))


@pytest.mark.parametrize("seed", CASES)
def test_macro_f1_equals_sklearn(seed: int) -> None:
    import sklearn.metrics as sk

    words = ("entailment", "contradiction", "neutral")
    gold, predicted = random_classes(seed, 3)
    found = score(("macro_f1",), words, texts(words, predicted), classes(words, gold))
    expected = sk.fbeta_score(gold, predicted, beta=1, labels=range(3), average="macro", zero_division=0)
    assert found["macro_f1"] == pytest.approx(100 * expected)


@pytest.mark.parametrize("seed", CASES)
def test_correlations_equal_scipy(seed: int) -> None:
    import scipy.stats

    rng = random.Random(seed)
    gold = [rng.randrange(26) / 5 for _ in range(rng.randint(5, 60))]
    predicted = [min(5.0, max(0.0, g + rng.choice([-1, 0, 0, 0.4, 2]))) for g in gold]
    written = [f"{p:.1f}" for p in predicted]
    written[0], predicted[0] = "no idea", -1.0
    numbers = [float(w) if w != "no idea" else -1.0 for w in written]
    found = score(("pearson", "spearman"), None, written, examples([f"{g:.1f}" for g in gold]))
    assert found["pearson"] == pytest.approx(100 * scipy.stats.pearsonr(gold, numbers)[0])
    assert found["spearman"] == pytest.approx(100 * scipy.stats.spearmanr(gold, numbers)[0])


@pytest.mark.parametrize("odd", ["nan", "inf", "", "3,4", "five"])
def test_an_answer_that_is_no_number_is_minus_one(odd: str) -> None:
    gold = examples(["1.0", "2.0", "4.0"])
    assert score(("pearson",), None, [odd, "2.0", "4.0"], gold) == score(("pearson",), None, ["-1", "2.0", "4.0"], gold)


def test_constant_answers_score_zero_and_not_nan() -> None:
    assert score(("pearson", "spearman"), None, ["3.0"] * 3, examples(["1.0", "2.0", "4.0"]))["score"] == 0.0
    assert score(("matthews",), ("a", "b"), ["a"] * 3, classes(("a", "b"), [0, 1, 0]))["score"] == 0.0


def reference_squad(prediction: str, golds: Sequence[str]) -> tuple[float, float]:
    """SQuAD's evaluation, written anew: exact match and F1 as precision and recall."""

    def clean(text: str) -> list[str]:
        kept = "".join(ch for ch in text.lower() if ch not in string.punctuation)
        return [w for w in kept.split() if w not in {"a", "an", "the"}]

    def one(gold: str) -> float:
        a, b = clean(gold), clean(prediction)
        same = sum((Counter(a) & Counter(b)).values())
        if not same:
            return 0.0
        precision, recall = same / len(b), same / len(a)
        return 2 * precision * recall / (precision + recall)

    return max(float(clean(g) == clean(prediction)) for g in golds), max(one(g) for g in golds)


@pytest.mark.parametrize("seed", CASES)
def test_question_answering_equals_an_independent_computation(seed: int) -> None:
    rng = random.Random(seed)
    vocabulary = ["The", "a", "cat's", "dog", "dog.", "Élan", "42", "an", "blue-green", "ran"]

    def text() -> str:
        return " ".join(rng.choice(vocabulary) for _ in range(rng.randint(0, 5)))

    golds = [[text() for _ in range(rng.randint(1, 3))] for _ in range(30)]
    predictions = [rng.choice([*golds[i], text()]) for i in range(30)]
    found = score(("exact_match", "answer_f1"), None, predictions, examples([g[0] for g in golds], answers=golds))
    expected = np.array([reference_squad(p, g) for p, g in zip(predictions, golds, strict=True)])
    assert found["exact_match"] == pytest.approx(100 * expected[:, 0].mean())
    assert found["answer_f1"] == pytest.approx(100 * expected[:, 1].mean())


def test_squad_normalisation_by_hand() -> None:
    assert normalize_answer("  The  U.S.A., an (old) country!") == "usa old country"
    assert normalize_answer("Théâtre — 日本") == "théâtre — 日本"
    assert word_f1("old country", "country") == pytest.approx(2 / 3)
    assert word_f1("", "x") == 0.0
    found = score(("exact_match", "answer_f1"), None, [""], examples(["the"], answers=[["the"]]))
    assert found["exact_match"] == 100.0  # both normalise to nothing
    assert found["answer_f1"] == 0.0


def test_record_counts_a_query_once() -> None:
    gold = examples(["a", "a", "b"], answers=[["a", "x"], ["a", "x"], ["b"]], group=[[1, 2], [1, 2], [1, 3]])
    found = score(("exact_match",), None, ["X", "wrong", "wrong"], gold)
    assert found["exact_match"] == 50.0


def test_multirc_groups_by_question() -> None:
    import sklearn.metrics as sk

    words = ("False", "True")
    gold = [1, 0, 1, 0, 0]
    given = ["True", "False", "True", "True", "who knows"]
    rows = examples([words[g] for g in gold], label=gold, group=[[0, 1], [0, 1], [0, 2], [0, 2], [1, 1]])
    found = score(("f1a", "group_em"), words, given, rows)
    assert found["f1a"] == pytest.approx(100 * sk.f1_score(gold, [1, 0, 1, 1, 1]))
    assert found["group_em"] == pytest.approx(100 / 3)


@pytest.mark.parametrize(
    ("prediction", "referent", "said"),
    [
        ("Tom", "Tom", 1),
        ("the fuzzy bunny", "Bunny", 1),
        ("bunny", "the fuzzy bunny", 1),
        ("Bob", "Bob's hat", 0),
        ("Bob's", "Bob's hat", 1),
        ("Ann", "Tom", 0),
        ("", "Tom", INVALID),
        ("the", "Tom", INVALID),
        ("  THEIR  tom ", "tom", 1),
    ],
)
def test_wsc_answers(prediction: str, referent: str, said: int) -> None:
    assert says_referent(prediction, referent) == said


def test_wsc_score_asks_for_another_word_where_the_referent_is_wrong() -> None:
    gold = examples(["Tom", "Tom", "Tom", "Tom"], label=[1, 1, 0, 0])
    assert score(("referent_accuracy",), None, ["Tom", "Ann", "Ann", ""], gold)["score"] == 50.0


def test_rouge_equals_the_library_over_references() -> None:
    from rouge_score import rouge_scorer

    rng = random.Random(3)
    words = ["the", "cat", "sat", "on", "a", "mat", ".", "it", "was", "red"]

    def text() -> str:
        return " ".join(rng.choice(words) for _ in range(12))

    golds, given = [text() for _ in range(10)], [text() for _ in range(10)]
    found = score(("rouge1", "rouge2", "rougeLsum"), None, given, examples(golds))
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeLsum"])
    for kind in ("rouge1", "rouge2", "rougeLsum"):
        each = [
            scorer.score(g.replace(" . ", " .\n"), p.replace(" . ", " .\n"))[kind].fmeasure
            for g, p in zip(golds, given, strict=True)
        ]
        assert found[kind] == pytest.approx(100 * np.mean(each))
    best = score(
        ("rouge1",), None, given, examples(golds, references=[[g, p] for g, p in zip(golds, given, strict=True)])
    )
    assert best["rouge1"] == pytest.approx(100)


def test_bleu_equals_the_library_and_takes_several_references() -> None:
    import sacrebleu

    golds = ["Das ist ein kleiner Test .", "Noch ein Satz mit mehr Wörtern ."]
    given = ["Das ist ein Test .", "Noch ein Satz mit vielen Wörtern ."]
    found = score(("bleu",), None, given, examples(golds, references=[[g] for g in golds]))
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu(given, [golds], tokenize="intl").score)
    several = score(("bleu",), None, given, examples(golds, references=[[golds[0], given[0]], [golds[1]]]))
    assert found["bleu"] < several["bleu"] < 100


def test_answers_are_right_by_exact_word_only() -> None:
    words = ("entailment", "not_entailment")
    gold = classes(words, [0, 0, 0, 0, 1])
    given = ["entailment", " entailment ", "Entailment", "entailment.", "not_entailment"]
    assert score(("accuracy",), words, given, gold)["accuracy"] == pytest.approx(60)


def test_a_tokenizer_that_spaces_label_words_is_met_half_way() -> None:
    words = ("entailment", "not_entailment")
    gold = classes(words, [0, 1])

    def spaced(text: str) -> str:
        return text.lower().replace("_", " _ ")

    assert score(("accuracy",), words, ["entailment", "not _ entailment"], gold)["accuracy"] == 50.0
    assert score(("accuracy",), words, ["entailment", "not _ entailment"], gold, spaced)["accuracy"] == 100.0
    assert score(("accuracy",), None, ["not _ entailment"], examples(["not_entailment"]), spaced)["accuracy"] == 100.0


def test_canonical_reaches_every_metric_that_compares_texts() -> None:
    def split_all(text: str) -> str:
        return " ".join(text.lower().replace(".", " . ").split())

    assert score(("pearson",), None, ["1 . 0", "2 . 4"], examples(["1.0", "2.4"]), split_all)["score"] == pytest.approx(
        100
    )
    assert (
        score(
            ("exact_match",), None, ["don ' t"], examples(["x"], answers=[["don't"]]), lambda t: t.replace("'", " ' ")
        )["score"]
        == 100
    )
    assert (
        score(
            ("referent_accuracy",),
            None,
            ["bob ' s hat"],
            examples(["Bob's hat"], label=[1]),
            lambda t: t.lower().replace("'", " ' "),
        )["score"]
        == 100
    )
    assert score(("exact_text",), None, ["a . b"], examples(["A.b"]), split_all)["score"] == 100
    assert score(("rouge1",), None, ["xx yy"], examples(["Q"]), lambda t: "xx yy")["score"] == 100
    assert score(("bleu",), None, ["a b c d e"], examples(["Q"]), lambda t: "a b c d e")["score"] == pytest.approx(100)


def test_labels_that_a_tokenizer_cannot_tell_apart_are_refused() -> None:
    with pytest.raises(UsageError, match="labels 'ja' and 'nein' are both '<unk>'"):
        score(("accuracy",), ("ja", "nein"), ["x"], classes(("ja", "nein"), [0]), lambda t: "<unk>")


def test_rows_without_gold_are_left_out() -> None:
    rows = [
        *classes(("a", "b"), [0, 1]),
        Example(key="t/validation/9", inputs="", targets="<unk>", extra={"label": None}),
    ]
    assert score(("accuracy",), ("a", "b"), ["a", "b", "a"], rows)["accuracy"] == 100.0
    with pytest.raises(UsageError, match="none of the 1 examples has a gold label"):
        score(("accuracy",), ("a", "b"), ["a"], rows[2:])


def test_wrong_calls() -> None:
    with pytest.raises(UsageError, match="1 predictions for 2 examples"):
        score(("accuracy",), ("a", "b"), ["a"], classes(("a", "b"), [0, 1]))
    with pytest.raises(UnknownNameError, match="did you mean accuracy"):
        score(("acuracy",), ("a", "b"), ["a"], classes(("a", "b"), [0]))
    with pytest.raises(UsageError, match="none of the labels"):
        score(("accuracy",), ("a", "b"), ["a"], examples(["c"]))


def test_two_invalid_answers_are_not_equal() -> None:
    """An answer that is no label must not match a gold target that is none either."""
    with pytest.raises(UsageError):
        score(("accuracy",), ("a", "b"), ["zzz"], examples(["yyy"]))


def test_token_probability_is_the_geometric_mean_over_all_tokens() -> None:
    rows = examples(["x", "y"])
    answers = [loss_answer(2.0 * np.log(2.0), 2), loss_answer(4.0 * np.log(4.0), 4)]
    found = score((LOSS_METRIC,), None, answers, rows)[LOSS_METRIC]
    assert found == pytest.approx(100.0 * 2.0 ** (-10 / 6), rel=1e-6)  # 10 bits over 6 tokens
    assert score((LOSS_METRIC,), None, [loss_answer(float("inf"), 1)] * 2, rows)[LOSS_METRIC] == 0.0
    assert score((LOSS_METRIC,), None, [loss_answer(0.0, 0)] * 2, rows)[LOSS_METRIC] == 0.0
    with pytest.raises(UsageError, match="judged by the loss"):
        score((LOSS_METRIC,), None, [answers[0], "yes"], rows)
