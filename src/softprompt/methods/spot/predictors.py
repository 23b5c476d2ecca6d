"""Which source prompts will help a target, guessed before the money is spent; higher is better, within a target only.

| name                 | predicts by                                                                        | cost a source prompt       |
|----------------------|------------------------------------------------------------------------------------|----------------------------|
| `label-loss`         | loss of the untuned prompt on training rows, over the labels alone and less the prompt's own label prior | a forward pass of 64 rows |
| `loss-decrease-1`    | how much one step of tuning lowers the loss, on rows not tuned on                  | two forward passes, a step |
| `loss-decrease-5`    | the same after five steps                                                          | two forward passes, 5 steps |
| `logme`              | LogME of the state that the answer is predicted from (You et al. 2021)             | a forward pass of 64 rows  |
| `zero-shot-loss`     | loss of the untuned prompt on training rows, over the whole vocabulary             | a forward pass of 64 rows  |
| `text-similarity`    | cosine of TF-IDF vectors of the two tasks' inputs: the baseline to beat             | none                       |
| `data-size`          | log of the source's training rows (SPoT section 3.1)                               | none                       |

The similarities of task embeddings (SPoT section 3.2) are in `softprompt.library.similarity`; what passes through a backbone is in
`softprompt.methods.spot.measured`, and the names are in `softprompt.methods.spot.predictor_names`. Here is arithmetic alone.

Letters: S source prompts, R rows, C labels, D width of a state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softprompt.errors import UsageError

Floats = NDArray[np.float64]
_FLAT = 1e-9


def check_distinct(name: str, values: Sequence[float]) -> None:
    """Refuse a predictor that says the same of every source prompt: listing order would rank.

    Raises:
        UsageError: all values are alike, and there is more than one.
    """
    known = np.asarray([value for value in values if not np.isnan(value)], dtype=np.float64)
    if len(known) > 1 and float(np.ptp(known)) <= _FLAT * max(1.0, float(np.abs(known).max())):
        raise UsageError(
            f"predictor '{name}' gives all {len(known)} source prompts one value ({known[0]:g}): it ranks nothing; use another."
        )


def order_of(values: Sequence[float] | Floats) -> list[int]:
    """Places from the highest predicted value down; ties by their order, NaN left out; empty where all are alike."""
    array = np.asarray(values, dtype=np.float64)
    known = array[~np.isnan(array)]
    if len(known) > 1 and np.ptp(known) == 0:
        return []
    return [int(i) for i in np.argsort(-array, kind="stable") if not np.isnan(array[i])]


def calibrated_losses(logs_SRC: Floats, gold_R: Sequence[int]) -> Floats:
    """Float [S], mean loss of the gold labels after each prompt's own label prior is taken out, nats.

    A prompt that favours one label whatever the text is not thereby far from the target: one step mends that. The prior is
    the prompt's mean label distribution over the rows; it is divided out and the rows are normalised again.

    Args:
        logs_SRC: scores of the labels (log-probabilities up to a constant a row).
        gold_R: index of each row's label.
    """
    logs = _normalised(logs_SRC)
    prior_SC = np.exp(logs).mean(axis=1)
    freed = _normalised(logs - np.log(np.maximum(prior_SC, 1e-30))[:, None, :])
    return np.asarray(-freed[:, np.arange(len(gold_R)), list(gold_R)].mean(axis=1))


def label_losses(logs_SRC: Floats, gold_R: Sequence[int]) -> Floats:
    """Float [S], mean loss of the gold labels over the labels alone, nats."""
    return np.asarray(-_normalised(logs_SRC)[:, np.arange(len(gold_R)), list(gold_R)].mean(axis=1))


def _normalised(logs: Floats) -> Floats:
    from scipy.special import log_softmax

    return np.asarray(log_softmax(logs, axis=-1))


def logme(states_RD: Floats, gold_R: Sequence[int], rounds: int = 100) -> float:
    """Log of the maximised evidence of labels given states, a row, mean over the labels (You et al. 2021, algorithm 1).

    A Bayesian linear model from states to each label against the rest; its two precisions are set by fixed-point steps.

    Args:
        states_RD: states.
        gold_R: index of each row's label.
        rounds: most fixed-point steps.

    Raises:
        UsageError: fewer than two labels among the rows.
    """
    gold = np.asarray(gold_R)
    labels = np.unique(gold)
    if len(labels) < 2:
        raise UsageError("logme needs rows of at least two labels; give more rows.")
    states = np.asarray(states_RD, dtype=np.float64)
    u, s, _ = np.linalg.svd(states, full_matrices=False)
    square = s**2
    found = [_evidence(u.T, square, (gold == label).astype(np.float64), states.shape, rounds) for label in labels]
    return float(np.mean(found))


def _evidence(u_KR: Floats, square_K: Floats, y_R: Floats, shape: tuple[int, int], rounds: int) -> float:
    rows, width = shape
    x_K = (u_KR @ y_R) ** 2
    beyond = float(y_R @ y_R - x_K.sum())  # what no state can explain
    alpha = beta = 1.0
    for _ in range(rounds):
        ratio = alpha / beta
        gamma = float((square_K / (square_K + ratio)).sum())
        m2 = float((square_K * x_K / (square_K + ratio) ** 2).sum())
        res2 = float((x_K / (1 + square_K / ratio) ** 2).sum()) + max(beyond, 0.0)
        alpha, beta = gamma / (m2 + 1e-9), (rows - gamma) / (res2 + 1e-9)
        if abs(alpha / beta - ratio) <= 1e-5 * ratio:
            break
    ratio = alpha / beta
    m2 = float((square_K * x_K / (square_K + ratio) ** 2).sum())
    res2 = float((x_K / (1 + square_K / ratio) ** 2).sum()) + max(beyond, 0.0)
    log_det = float(np.log(alpha + beta * square_K).sum()) + (width - len(square_K)) * np.log(alpha)
    whole = width * np.log(alpha) + rows * np.log(beta) - log_det - beta * res2 - alpha * m2
    return float(0.5 * (whole - rows * np.log(2 * np.pi)) / rows)


def text_similarities(target: Sequence[str], sources: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Cosine of the mean TF-IDF vectors of a target's inputs and of each source task's; the vocabulary is all of theirs."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    groups = [target, *sources.values()]
    vectors = TfidfVectorizer(sublinear_tf=True).fit_transform([text for group in groups for text in group])
    ends = np.cumsum([len(group) for group in groups])
    means = [np.asarray(vectors[end - len(g) : end].mean(axis=0)).ravel() for end, g in zip(ends, groups, strict=True)]
    return {name: _cosine(means[0], mean) for name, mean in zip(sources, means[1:], strict=True)}


def _cosine(one: NDArray[Any], other: NDArray[Any]) -> float:
    scale = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / scale if scale else 0.0
