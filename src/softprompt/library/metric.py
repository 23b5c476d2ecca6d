"""The two similarities of task embeddings by name, and the one that ranks where nothing is said; nothing heavy is imported here."""

from __future__ import annotations

from typing import Literal, get_args

Metric = Literal["per_token", "average"]
METRICS: tuple[Metric, ...] = get_args(Metric)

DEFAULT_METRIC: Metric = "average"
"""Everywhere but in studies, which follow the paper. On the built-in tasks it puts kin first for 62.5 % of the targets, ``per_token``
(the paper's choice for retrieval) for 50.0 % (docs/builtin-tasks.md)."""
