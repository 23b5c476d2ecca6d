"""How hard the generated tasks are without a language model: chance, bags of words, and TF-IDF rankings of kin.

    python benchmarks/builtin_tasks.py > builtin_tasks.jsonl

One JSON line a task, then one for the retrieval of kin. Bags of words are logistic regressions (ridge regressions for
graded similarity) over TF-IDF of words and word pairs, trained on the training split, scored on the validation split:
``bag`` over all texts run together, ``bag_by_field`` with every word tagged by the field it stands in, ``bag_seen`` the
same as ``bag_by_field`` on held-out rows of the training grammar (no new words, no new structures).
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from typing import Any

import numpy as np

from softprompt.tasks.generated import DEMO_SOURCES, DEMO_TARGETS, GENERATED, RECIPES_BY_NAME
from softprompt.tasks.generated.draw import GeneratedRow
from softprompt.tasks.generated.family import Recipe
from softprompt.tasks.generated.ranking import kin_found, tfidf_ranking


def _texts(rows: list[GeneratedRow], by_field: bool) -> list[str]:
    out = []
    for row in rows:
        words = [
            f"{field}{word}" if by_field else word
            for field in sorted(row.fields)
            for word in row.fields[field].lower().replace(".", " ").replace(",", " ").split()
        ]
        out.append(" ".join(words))
    return out


def _bag_score(recipe: Recipe, train: list[GeneratedRow], test: list[GeneratedRow], by_field: bool) -> float:
    from scipy.stats import pearsonr, spearmanr
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline

    features = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+", sublinear_tf=True)
    inputs, answers = _texts(train, by_field), [row.target for row in train]
    if recipe.kind == "similarity":
        model = make_pipeline(features, Ridge()).fit(inputs, [float(a) for a in answers])
        gold, given = [float(row.target) for row in test], model.predict(_texts(test, by_field))
        return 50.0 * float(pearsonr(gold, given)[0] + spearmanr(gold, given)[0])
    model = make_pipeline(features, LogisticRegression(max_iter=1000, C=10.0)).fit(inputs, answers)
    given = model.predict(_texts(test, by_field))
    return 100.0 * float(np.mean([g == row.target for g, row in zip(given, test, strict=True)]))


def measure(name: str) -> dict[str, Any]:
    """The numbers of one task."""
    recipe, started = RECIPES_BY_NAME[name], time.perf_counter()
    task = GENERATED[name]()
    splits = {split: task.split(split) for split in ("train", "validation")}
    seconds = time.perf_counter() - started
    train, test = list(recipe.rows("train")), list(recipe.rows("validation"))
    line: dict[str, Any] = {
        "task": name,
        "train_rows": len(train),
        "validation_rows": len(test),
        "seconds_to_make": round(seconds, 2),
        "data_fingerprint": {split: made.fingerprint for split, made in splits.items()},
        "metrics": list(task.metrics),
    }
    if recipe.kind == "answer":
        words = [len(" ".join(row.fields.values()).split()) for row in test]
        line["mean_words"] = round(float(np.mean(words)), 1)
        common = Counter(row.target for row in train).most_common(1)[0][0]
        line["majority"] = round(task.score([common] * len(test), splits["validation"].examples)["score"], 1)
        return line
    if recipe.kind == "labels":
        line["chance"] = round(100.0 / len(recipe.labels or ()), 1)
        common = Counter(row.target for row in train).most_common(1)[0][0]
        line["majority"] = round(100.0 * float(np.mean([row.target == common for row in test])), 1)
    else:
        line["chance"] = 0.0
    line["bag"] = round(_bag_score(recipe, train, test, by_field=False), 1)
    line["bag_by_field"] = round(_bag_score(recipe, train, test, by_field=True), 1)
    fifth = len(train) // 5
    line["bag_seen"] = round(_bag_score(recipe, train[fifth:], train[:fifth], by_field=True), 1)
    return line


def main() -> None:
    """Print one line a task and one for retrieval."""
    command = " ".join(["python", *sys.argv])
    for name in GENERATED:
        print(json.dumps({**measure(name), "command": command}), flush=True)
    rankings = {target: [name for name, _ in tfidf_ranking(target, DEMO_SOURCES)] for target in DEMO_TARGETS}
    everyone = {
        name: [other for other, _ in tfidf_ranking(name, [n for n in GENERATED if n != name])] for name in GENERATED
    }
    for what, ranked in (("demo targets among demo sources", rankings), ("every task among all others", everyone)):
        scores = {k: round(v, 1) for k, v in kin_found(ranked).items()}
        best = {target: order[0] for target, order in ranked.items()}
        print(json.dumps({"retrieval": "tfidf", "of": what, **scores, "first": best, "command": command}), flush=True)


if __name__ == "__main__":
    main()
