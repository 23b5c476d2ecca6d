"""How hard the generated tasks are without a language model: chance, bags of words, and TF-IDF rankings of kin.

    python benchmarks/builtin_tasks.py > builtin_tasks.jsonl
    python benchmarks/builtin_tasks.py --probe builtin   # besides, a linear probe on a frozen backbone (minutes)

One JSON line a task, then one for the retrieval of kin. Bags of words are logistic regressions (ridge regressions for
graded similarity) over TF-IDF of words and word pairs, trained on the training split, scored on the validation split:
``bag`` over all texts run together, ``bag_by_field`` with every word tagged by the field it stands in, ``bag_seen`` the
same as ``bag_by_field`` on held-out rows of the training grammar (no new words, no new structures). The probe is a
logistic regression over the backbone's mean-pooled encodings of the fields, their products and absolute differences.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from kin import kin_found, tfidf_ranking

from softprompt.tasks.generated import DEMO_SOURCES, DEMO_TARGETS, TASKS, rows_of
from softprompt.tasks.generated.tasks import GENERATED

GeneratedRow = Mapping[str, str]


def _fields(row: GeneratedRow) -> list[str]:
    return sorted(set(row) - {"label"})


def _texts(rows: Sequence[GeneratedRow], by_field: bool) -> list[str]:
    out = []
    for row in rows:
        words = [
            f"{field}{word}" if by_field else word
            for field in _fields(row)
            for word in row[field].lower().replace(".", " ").replace(",", " ").split()
        ]
        out.append(" ".join(words))
    return out


def _bag_score(kind: str, train: Sequence[GeneratedRow], test: Sequence[GeneratedRow], by_field: bool) -> float:
    from scipy.stats import pearsonr, spearmanr
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline

    features = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+", sublinear_tf=True)
    inputs, answers = _texts(train, by_field), [row["label"] for row in train]
    if kind == "similarity":
        model = make_pipeline(features, Ridge()).fit(inputs, [float(a) for a in answers])
        gold, given = [float(row["label"]) for row in test], model.predict(_texts(test, by_field))
        return 50.0 * float(pearsonr(gold, given)[0] + spearmanr(gold, given)[0])
    model = make_pipeline(features, LogisticRegression(max_iter=1000, C=10.0)).fit(inputs, answers)
    given = model.predict(_texts(test, by_field))
    return 100.0 * float(np.mean([g == row["label"] for g, row in zip(given, test, strict=True)]))


def _encoded(backbone: Any, texts: list[str]) -> np.ndarray:
    """float32 [rows, H], the mean-pooled encodings of texts."""
    from softprompt.batch import TokenBatch

    ids, out = backbone.tokenize_inputs(texts, None), []
    for start in range(0, len(ids), 64):
        out.append(backbone.encode_mean(TokenBatch.of(ids[start : start + 64], device=backbone.device)).float().cpu())
    return np.concatenate([part.numpy() for part in out])


def _probe_features(backbone: Any, rows: Sequence[GeneratedRow]) -> np.ndarray:
    """Encodings of the fields side by side; with products and absolute differences of every two of them."""
    fields = _fields(rows[0])
    encoded = [_encoded(backbone, [row[field] for row in rows]) for field in fields]
    both = [(a, b) for i, a in enumerate(encoded) for b in encoded[i + 1 :]]
    return np.concatenate([*encoded, *(a * b for a, b in both), *(abs(a - b) for a, b in both)], axis=1)


def probe_score(backbone: Any, name: str, train_rows: int = 1000, test_rows: int = 500) -> float:
    """Accuracy (mean of the correlations for graded similarity) of a linear probe, percent."""
    from scipy.stats import pearsonr, spearmanr
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    kind, rows = TASKS[name]["kind"], rows_of(name)
    train, test = rows["train"][:train_rows], rows["validation"][:test_rows]
    seen, new = _probe_features(backbone, train), _probe_features(backbone, test)
    if kind == "similarity":
        model = make_pipeline(StandardScaler(), Ridge(alpha=1000.0)).fit(seen, [float(row["label"]) for row in train])
        gold, given = [float(row["label"]) for row in test], model.predict(new)
        return 50.0 * float(pearsonr(gold, given)[0] + spearmanr(gold, given)[0])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.003, max_iter=500)).fit(
        seen, [r["label"] for r in train]
    )
    return 100.0 * float(np.mean(model.predict(new) == np.array([row["label"] for row in test])))


def measure(name: str) -> dict[str, Any]:
    """The numbers of one task."""
    kind, started = TASKS[name]["kind"], time.perf_counter()
    task = GENERATED[name]()
    splits = {split: task.split(split) for split in ("train", "validation")}
    seconds = time.perf_counter() - started
    train, test = rows_of(name)["train"], rows_of(name)["validation"]
    line: dict[str, Any] = {
        "task": name,
        "train_rows": len(train),
        "validation_rows": len(test),
        "seconds_to_read": round(seconds, 2),
        "data_fingerprint": {split: made.fingerprint for split, made in splits.items()},
        "metrics": list(task.metrics),
    }
    if kind == "answer":
        words = [len(" ".join(row[field] for field in _fields(row)).split()) for row in test]
        line["mean_words"] = round(float(np.mean(words)), 1)
        common = Counter(row["label"] for row in train).most_common(1)[0][0]
        line["majority"] = round(task.score([common] * len(test), splits["validation"].examples)["score"], 1)
        return line
    if kind == "labels":
        line["chance"] = round(100.0 / len(TASKS[name]["labels"]), 1)
        common = Counter(row["label"] for row in train).most_common(1)[0][0]
        line["majority"] = round(100.0 * float(np.mean([row["label"] == common for row in test])), 1)
    else:
        line["chance"] = 0.0
    line["bag"] = round(_bag_score(kind, train, test, by_field=False), 1)
    line["bag_by_field"] = round(_bag_score(kind, train, test, by_field=True), 1)
    fifth = len(train) // 5
    line["bag_seen"] = round(_bag_score(kind, train[fifth:], train[:fifth], by_field=True), 1)
    return line


def main() -> None:
    """Print one line a task and one for retrieval."""
    command = " ".join(["python", *sys.argv])
    backbone = None
    if "--probe" in sys.argv:
        from softprompt.backbones.load import load_backbone

        backbone = load_backbone(sys.argv[sys.argv.index("--probe") + 1])
    for name in GENERATED:
        line = measure(name)
        if backbone is not None and TASKS[name]["kind"] != "answer":
            line["probe"] = round(probe_score(backbone, name), 1)
            line["probe_backbone"] = backbone.fingerprint
        print(json.dumps({**line, "command": command}), flush=True)
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
