"""Token ids for benchmarks: real RTE and BoolQ rows with the real T5 vocabulary where they are present."""

from __future__ import annotations

import gzip
import json
import os
import random
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LABELS = {"rte": ("entailment", "not_entailment"), "boolq": ("False", "True"), "sst2": ("negative", "positive")}
# Lengths for machines without the data: those of the real rows, T5 vocabulary, rounded (median, spread of a log-normal).
TYPICAL = {"rte": (66.0, 0.55), "boolq": (150.0, 0.5), "sst2": (14.0, 0.6)}

Row = tuple[list[int], list[int]]


def data_folder() -> Path | None:
    """``$SOFTPROMPT_DATA``, or ``../shared/data`` beside the repository, or None."""
    for folder in (os.environ.get("SOFTPROMPT_DATA"), str(ROOT.parent / "shared" / "data")):
        if folder and (Path(folder) / "tasks").is_dir():
            return Path(folder)
    return None


def texts(task: str, rows: int) -> list[tuple[str, str]] | None:
    """(inputs, target) in the text form of T5, or None without the data."""
    folder = data_folder()
    if folder is None:
        return None
    with gzip.open(folder / "tasks" / task / "train.jsonl.gz", "rt", encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines]
    random.Random(0).shuffle(found)
    if task == "sst2":  # worded for a decoder-only model
        return [
            (f"Review: {row['sentence'].strip()}\nSentiment:", LABELS[task][int(row["label"])]) for row in found[:rows]
        ]
    keys = ("hypothesis", "premise") if task == "rte" else ("passage", "question")
    return [
        (
            " ".join([task, *(f"{key}: {row[key]}" for key in keys)]),
            LABELS[task][int(row.get("label", row.get("answer")))],
        )
        for row in found[:rows]
    ]


def t5_rows(task: str, rows: int, limit: int = 512) -> tuple[list[Row], str]:
    """Rows in T5's vocabulary and a word on where they come from."""
    found = texts(task, rows)
    folder = data_folder()
    if found is not None and folder is not None and (folder / "google" / "t5.spm.model").is_file():
        import sentencepiece

        model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "google" / "t5.spm.model"))
        return [([*model.encode(a)[: limit - 1], 1], [*model.encode(b), 1]) for a, b in found], f"real {task} rows"
    return random_rows(task, rows, 32000), f"random rows of typical {task} lengths"


def tokenized_rows(task: str, rows: int, backbone: Any, limit: int = 256) -> tuple[list[Row], str]:
    """Rows in a backbone's own vocabulary."""
    found = texts(task, rows)
    if found is None:
        return random_rows(task, rows, backbone.vocab_size), f"random rows of typical {task} lengths"
    inputs = backbone.tokenize_inputs([a for a, _ in found], limit)
    return list(zip(inputs, backbone.tokenize_targets([b for _, b in found]), strict=True)), f"real {task} rows"


def random_rows(task: str, rows: int, vocabulary: int) -> list[Row]:
    """Random ids with lengths drawn around the task's own."""
    draw = random.Random(0)
    middle, spread = TYPICAL[task]
    lengths = [min(max(int(middle * 2.718 ** (spread * draw.gauss(0, 1))), 8), 511) for _ in range(rows)]
    return [
        ([draw.randrange(1000, vocabulary) for _ in range(n)], [draw.randrange(1000, vocabulary), 1]) for n in lengths
    ]
