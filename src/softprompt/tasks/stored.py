"""Large splits: their examples lie in a memory-mapped Arrow file and are read a row at a time.

A split of few rows stays in memory. Of a larger one the rows go from the source through the text form into a file named
by its content, in the user's cache: nothing holds all of them, and every process that reads the split maps the same file.
Where the source can say what it holds (`RowSource.state`), the next reading finds the file without reading the rows.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from softprompt.errors import DataError, SoftpromptError
from softprompt.tasks.example import Digest, Example, Split

if TYPE_CHECKING:
    from softprompt.tasks.rows import Row

IN_MEMORY = 20_000
"""Rows of a split that are kept as Python objects; a split of more lies on the disk."""
CHUNK = 4096
"""Examples in a record batch of the file."""
_FORMAT = "softprompt-examples-1"


class StoredExamples(Sequence[Example]):
    """Examples in an Arrow file, decoded when they are asked for.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        self.path = path
        self._table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        self._starts: NDArray[np.int64] = np.cumsum([0, *(len(c) for c in self._table.column("key").chunks)])

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @overload
    def __getitem__(self, i: int) -> Example: ...
    @overload
    def __getitem__(self, i: slice) -> list[Example]: ...
    def __getitem__(self, i: int | slice) -> Example | list[Example]:
        if isinstance(i, slice):
            start, stop, step = i.indices(len(self))
            return list(self._decoded(start, stop)) if step == 1 else [self[j] for j in range(start, stop, step)]
        row = int(i) + (len(self) if i < 0 else 0)
        if not 0 <= row < len(self):
            raise IndexError(f"row {i} of {len(self)} examples")
        return next(self._decoded(row, row + 1))

    def __iter__(self) -> Iterator[Example]:
        return self._decoded(0, len(self))

    def _decoded(self, start: int, stop: int) -> Iterator[Example]:
        chunk = int(np.searchsorted(self._starts, start, side="right")) - 1
        columns = [self._table.column(name).chunks for name in ("key", "inputs", "targets", "extra")]
        while start < stop:
            first = int(self._starts[chunk])
            last = min(stop, int(self._starts[chunk + 1]))
            parts = [column[chunk][start - first : last - first].to_pylist() for column in columns]
            for row in zip(*parts, strict=True):
                key, inputs, targets, extra = (value.decode("utf-8", "surrogatepass") for value in row)
                yield Example(key=key, inputs=inputs, targets=targets, extra=json.loads(extra))
            start, chunk = last, chunk + 1

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredExamples, (self.path,)


def folder() -> Path:
    """Where the files lie."""
    from softprompt.artifacts import cache_folder

    return cache_folder("examples")


def store(examples: Iterable[Example]) -> tuple[StoredExamples, str]:
    """Write examples as they come; gives them mapped, and the fingerprint of their content.

    Raises:
        DataError: pyarrow is not installed.
        StorageError: the disk is full.
    """
    from softprompt.artifacts import new_file

    try:
        import pyarrow as pa
    except ImportError:
        raise DataError(
            f"a split of more than {IN_MEMORY:,} rows lies in an Arrow file, which needs pyarrow; install softprompt[data]."
        ) from None
    schema = pa.schema([(name, pa.binary()) for name in ("key", "inputs", "targets", "extra")])
    digest = Digest()
    waiting = iter(examples)
    with new_file(folder()) as file:
        with pa.ipc.new_file(str(file.path), schema) as writer:
            while some := list(islice(waiting, CHUNK)):
                for example in some:
                    digest.add(example)
                columns = [
                    [e.key for e in some], [e.inputs for e in some], [e.targets for e in some],
                    [json.dumps(dict(e.extra), ensure_ascii=False, default=_plain) for e in some],
                ]  # fmt: skip
                arrays = [pa.array([t.encode("utf-8", "surrogatepass") for t in c], pa.binary()) for c in columns]
                writer.write_batch(pa.record_batch(arrays, schema=schema))
        file.name = f"{digest.file_name()}.arrow"
    return StoredExamples(folder() / file.name), digest.fingerprint()


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays, and other mappings, as JSON has them."""
    if isinstance(value, Mapping):
        return dict(value)
    return value.tolist() if hasattr(value, "tolist") else str(value)


# -- reading a large split ---------------------------------------------------------------------------------------------

Made = Callable[["Row"], "Sequence[Example]"]
"""Forms a row; a row that cannot be used raises `DataError`."""
Order = Callable[["Row"], bytes]
"""The place of a row in the seeded draw."""


def draw(rows: Iterable[Row], form: Made, order: Order, most: int, bad: Callable[[DataError], None]) -> list[Example]:
    """At most ``most`` examples of the rows that come first in the draw, in the rows' order; one pass, few in memory.

    As if all rows had been sorted by ``order`` and formed until there were enough.
    """
    heap: list[tuple[int, int, Sequence[Example], DataError | None]] = []
    total = 0
    for row in rows:
        place = -int.from_bytes(order(row), "big")  # heapq keeps the smallest first; we drop the largest place
        if total >= most and heap and place < heap[0][0]:
            continue
        try:
            made, error = form(row), None
        except DataError as problem:
            made, error = (), problem
        heapq.heappush(heap, (place, -row.line, made, error))
        total += len(made)
        while heap and total - len(heap[0][2]) >= most:
            total -= len(heapq.heappop(heap)[2])
    heap.sort(key=lambda item: (-item[0], -item[1]))
    chosen: list[tuple[int, int, Example]] = []
    for _, line, made, error in heap:
        if error is not None:
            bad(error)
        chosen += [(-line, k, example) for k, example in enumerate(made)]
    return [example for _, _, example in sorted(chosen[:most], key=lambda item: item[:2])]


def drawn_lines(rows: Iterable[Row], order: Order, most: int) -> set[int]:
    """The lines of the ``most`` rows that come first in the draw."""
    places, lines = [], []
    for row in rows:
        places.append(int.from_bytes(order(row)[:8], "big"))
        lines.append(row.line)
    chosen = np.argsort(np.asarray(places, dtype=np.uint64), kind="stable")[:most]
    return {int(n) for n in np.asarray(lines, dtype=np.int64)[chosen]}


# -- what is known without reading -------------------------------------------------------------------------------------


def known(state: str) -> dict[str, Any] | None:
    """What was remembered under a state; None where nothing was, or what it names is gone."""
    from softprompt.artifacts import read_json

    path = folder() / "known" / f"{state}.json"
    try:
        found = read_json(path)
    except (SoftpromptError, OSError):
        return None
    return found if isinstance(found, dict) else None


def remember(state: str, facts: Mapping[str, Any]) -> None:
    """Keep plain facts under a state."""
    from softprompt.artifacts import write_json

    write_json(folder() / "known" / f"{state}.json", dict(facts), durable=False)


def remembered_split(state: str, name: str) -> Split | None:
    """A large split that was stored under a state; None where its file is gone or is not one."""
    facts = known(state)
    if facts is None or "file" not in facts:
        return None
    try:
        examples = StoredExamples(folder() / str(facts["file"]))
        if len(examples) != facts["rows"]:
            return None
        return Split(
            name=name, examples=examples, fingerprint=str(facts["fingerprint"]), skipped=int(facts["skipped"]),
            unlabelled=int(facts["unlabelled"]),
        )  # fmt: skip
    except (OSError, KeyError, ValueError):  # pyarrow's errors are ValueErrors
        return None


def remember_split(state: str, split: Split) -> None:
    """Keep where a large split lies; one in memory is read again."""
    if isinstance(split.examples, StoredExamples):
        remember(
            state,
            {"file": split.examples.path.name, "rows": len(split), "fingerprint": split.fingerprint,
             "skipped": split.skipped, "unlabelled": split.unlabelled},
        )  # fmt: skip


@cache
def code_state() -> str:
    """sha256 over the modules that make examples of rows: another version of the code makes its own files."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def state_key(*parts: Any) -> str:
    """A file name of everything that something remembered depends on."""
    return hashlib.sha256(json.dumps([_FORMAT, code_state(), *parts], sort_keys=True, default=str).encode()).hexdigest()
