"""Rows that a program holds: a DataFrame, a datasets.Dataset, a list of dicts, or a mapping of splits to one of these."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from softprompt.errors import UsageError
from softprompt.tasks.rows import is_missing

SPLITS = {"train": "train", "validation": "validation", "valid": "validation", "dev": "validation", "test": "test"}


def rows_by_split(data: Any, validation: Any = None) -> dict[str, list[dict[str, Any]]]:
    """Split -> rows as plain dicts; missing values (NaN, NA, NaT) become None.

    Args:
        data: rows of training, or a mapping (a DatasetDict) of splits to rows.
        validation: rows of validation.

    Raises:
        UsageError: it is neither, a split is unknown, or there are no rows.
    """
    if isinstance(data, Mapping):
        unknown = [name for name in data if name not in SPLITS]
        if unknown or "train" not in data:
            raise UsageError(
                f"rows were given by split with the splits {', '.join(map(str, data)) or 'none'}: name them train, "
                "validation and test."
            )
        splits = {SPLITS[name]: rows_of(rows) for name, rows in data.items()}
    else:
        splits = {"train": rows_of(data)}
    if validation is not None:
        splits["validation"] = rows_of(validation)
    for name, rows in splits.items():
        if not rows:
            raise UsageError(f"there are no {name} rows: give at least one.")
    return splits


def rows_of(data: Any) -> list[dict[str, Any]]:
    """Rows of a DataFrame, a datasets.Dataset or an iterable of dicts as plain dicts.

    Raises:
        UsageError: it is none of these; says what it is.
    """
    if hasattr(data, "to_dict") and hasattr(data, "columns"):  # pandas; polars has to_dicts
        held: Iterable[Any] = data.to_dict("records")
    elif hasattr(data, "to_dicts"):
        held = data.to_dicts()
    elif isinstance(data, Iterable) and not isinstance(data, str | bytes | Mapping):
        held = data
    else:
        raise UsageError(f"rows are a DataFrame, a datasets.Dataset or a list of dicts; got a {type(data).__name__}.")
    rows = []
    for i, row in enumerate(held):
        if not isinstance(row, Mapping):
            raise UsageError(f"row {i + 1} is a {type(row).__name__}; each row should be a dict of columns.")
        rows.append({str(name): _plain(value) for name, value in row.items()})
    return rows


def _plain(value: Any) -> Any:
    """Values of numpy and pandas as Python's own."""
    if value is None or isinstance(value, str | bool | int | float | list | tuple | dict):
        return None if not isinstance(value, str) and is_missing(value) else value
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    return value.tolist() if hasattr(value, "tolist") else str(value)


def class_names(data: Any, label: str | None) -> tuple[str, ...] | None:
    """The names that a datasets.Dataset keeps for the numbers of its label column; None where it keeps none."""
    held = data.get("train") if isinstance(data, Mapping) else data
    features = getattr(held, "features", None)
    if not isinstance(features, Mapping):
        return None
    feature = features.get(label) if label is not None else features.get("label")
    names = getattr(feature, "names", None)
    return tuple(names) if names else None
