"""Generated inputs: hypothesis on every file format, schemathesis on the server's OpenAPI.

A table that its own format can hold is read as it was written; whatever else is in a file, reading gives something or one
sentence. Whatever the OpenAPI description allows, and what it does not, is answered without a 500, with a status and a body
that the description names.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import warnings
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st
from tests.fault.apart import apart
from tests.fault.campaign import Row, Tally

from softprompt.errors import SoftpromptError
from softprompt.tasks.readers import FORMATS, read_rows
from softprompt.tasks.rows import BadRows

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
NAME = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters="\"',;|\x7f\x85\xa0\xad"),
    min_size=1,
    max_size=8,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=12
)  # fmt: skip
TABLES = st.lists(NAME, min_size=2, max_size=4, unique=True).flatmap(
    lambda names: st.lists(st.fixed_dictionaries(dict.fromkeys(names, TEXT)), min_size=1, max_size=6)
)


def _rows(path: Path) -> list[dict[str, Any]]:
    return [values for _, values in read_rows(path, BadRows(0))]


def _as_written(folder: Path) -> Callable[..., None]:
    @given(rows=TABLES)
    def check(rows: list[dict[str, str]]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "a.json").write_text(json.dumps(rows))
        pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet")
        for kind in (".jsonl", ".json", ".parquet"):
            assert _rows(folder / f"a{kind}") == rows, kind
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, list(rows[0]), quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)
        (folder / "a.csv").write_bytes(out.getvalue().encode())
        try:
            found = _rows(folder / "a.csv")
        except SoftpromptError:
            return
        assert found == rows, "csv"

    return check


def _anything(folder: Path) -> Callable[..., None]:
    @given(data=st.binary(max_size=300) | TEXT.map(str.encode) | JSON.map(lambda v: json.dumps(v).encode()), kind=st.sampled_from(FORMATS[:5]),
           packed=st.sampled_from(("", ".gz", ".zst")))  # fmt: skip
    def check(data: bytes, kind: str, packed: str) -> None:
        path = folder / f"b{kind}{packed if kind != '.parquet' else ''}"
        path.write_bytes(data)
        with_sentence(lambda: _rows(path))

    return check


def with_sentence(work: Callable[[], object]) -> None:
    """Do it, or be told why not."""
    with contextlib.suppress(SoftpromptError):
        work()


def _manifests(folder: Path) -> Callable[..., None]:
    from tests.fault.files import FORMATS as KINDS
    from tests.fault.files import Case

    cases = {
        kind.name: Case(kind, folder / kind.name) for kind in KINDS if kind.name in ("signed prompt", "signed space")
    }

    @given(
        value=st.dictionaries(TEXT, JSON, max_size=3),
        which=st.sampled_from(sorted(cases)),
        draw=st.randoms(use_true_random=False),
    )
    def check(value: dict[str, Any], which: str, draw: Any) -> None:
        case = cases[which]
        name = next(n for n in case.files if n.endswith("manifest.json"))
        told = json.loads(case.files[name])
        for key, item in value.items():
            told[draw.choice(sorted(told))] = item
            told[key] = item
        assert case.kind.sign is not None
        (case.folder / name).write_bytes(case.kind.sign(json.loads(json.dumps(told))))
        with_sentence(lambda: case.kind.read(case.folder))
        (case.folder / name).write_bytes(case.files[name])

    return check


def _settings_files(folder: Path) -> Callable[..., None]:
    from softprompt.study.settings import load_study
    from softprompt.tasks.user import load_user_task

    value = (
        st.booleans()
        | st.integers()
        | TEXT.map(json.dumps)
        | st.lists(TEXT.map(json.dumps)).map(lambda v: f"[{', '.join(v)}]")
    )
    keys = st.sampled_from(
        (
            "name",
            "inputs",
            "targets",
            "labels",
            "metrics",
            "train",
            "kind",
            "text",
            "sources",
            "seeds",
            "group",
            "source.steps",
        )
    )
    (folder / "train.jsonl").write_text('{"text": "a", "label": "yes"}\n' * 4)

    @given(lines=st.dictionaries(keys, value.map(str), max_size=6))
    def check(lines: dict[str, str]) -> None:
        text = "".join(
            f"{key} = {item.lower() if item in ('True', 'False') else item}\n" for key, item in lines.items()
        )
        (folder / "task.toml").write_text(text)
        with_sentence(lambda: load_user_task(folder / "task.toml").split("train"))
        with_sentence(lambda: load_study(folder / "task.toml"))

    return check


def _arrays(folder: Path) -> Callable[..., None]:
    import numpy as np
    from hypothesis.extra import numpy as hn

    from softprompt.library.formats.npy import read_npy

    @given(
        array=hn.arrays(
            hn.scalar_dtypes() | hn.floating_dtypes(), hn.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
        )
    )
    def check(array: Any) -> None:
        np.save(folder / "a.npy", array, allow_pickle=False)

        def read() -> None:
            found = read_npy(folder / "a.npy").numpy()
            wanted = array.astype(array.dtype.newbyteorder("="))
            assert np.array_equal(found, wanted.reshape(found.shape)), "other numbers"

        with_sentence(read)

    return check


PROPERTIES = (_as_written, _anything, _manifests, _settings_files, _arrays)


def _tried(make: Callable[[Path], Callable[..., None]], folder: Path, examples: int, seed: int) -> Any:
    folder.mkdir(parents=True)
    warnings.simplefilter("ignore")
    check = make(folder)
    asked = hypothesis.settings(
        max_examples=examples, deadline=None, database=None, derandomize=False, suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink), print_blob=False,
    )  # fmt: skip
    try:
        hypothesis.seed(seed)(asked(check))()
    except BaseException as error:
        import traceback

        notes = "; ".join(getattr(error, "__notes__", []))
        return f"{type(error).__name__}: {str(error)[:300]} {notes[:700]} {traceback.format_exc()[-300:]}"
    return ""


def _operation(number: int, folder: Path) -> Callable[..., None]:
    """The number-th operation of the OpenAPI description."""
    import schemathesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance
    from tests.fault.server import _app, _library

    app = _app(*_library(folder / "library"))[0]
    app.site.start()
    app.api.router.lifespan_context = _already_started  # each request would start it again
    # The guard is tried by `server`; it would refuse the client's host.
    schema = schemathesis.openapi.from_asgi("/openapi.json", app.api)
    operations = [found.ok() for found in schema.get_all_operations()]
    operation = operations[number % len(operations)]

    @given(case=operation.as_strategy())
    def check(case: Any) -> None:
        response = case.call()
        case.validate_response(
            response, checks=[not_a_server_error, status_code_conformance, response_schema_conformance]
        )

    return check


@contextlib.asynccontextmanager
async def _already_started(_: Any) -> AsyncIterator[None]:
    yield


OPERATIONS = 10


def run(cases: Sequence[int], folder: Path) -> Tally:
    """Half of the examples to five kinds of files, half to the operations of the server; the first case is the seed."""
    tally = Tally()
    share = max(1, len(cases) // (2 * len(PROPERTIES)))
    for make in PROPERTIES:
        ended = apart(_tried, make, folder / make.__name__, share, cases[0], seconds=500)
        told = ended.error or ended.value if not ended.late else "it hung"
        tally.counts["examples of files"] += share
        tally.failures += [f"{make.__name__} from seed {cases[0]}: {told}"] if told else []
    some = range(OPERATIONS) if len(cases) >= 100 else range(cases[0] % OPERATIONS, cases[0] % OPERATIONS + 1)
    share = max(1, len(cases) // (2 * len(some)))
    for number in some:
        place = folder / f"operation-{number}"
        ended = apart(_tried, partial(_operation, number), place, share, cases[0], seconds=500)
        told = ended.error or ended.value if not ended.late else "it hung"
        tally.counts["requests by the API's description"] += share
        tally.failures += [f"operation {number} from seed {cases[0]}: {told}"] if told else []
    return tally


ROW = Row(
    name="api", promise="Whatever is generated is read, answered or refused, without a traceback or a 500",
    tried="hypothesis on tables, manifests, settings and arrays; schemathesis on each operation of the server",
    cases=20_000, short=range(2, 14), piece=2_000, run=run,
)  # fmt: skip
