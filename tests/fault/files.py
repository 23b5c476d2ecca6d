"""Damaged and hostile files: read, they give what was written or one sentence, in bounded memory and under a second.

What the program writes itself (prompts, spaces, ledgers, checkpoints, results) is hashed: content that is not what was written
must be refused, also where somebody signed a changed manifest anew; then it may say other things of the prompt, and the prompt
must still be the one whose bytes it names. Files of others (tables, ``.npy``, adapters, TOML) have no digest: of them the
promise is a sentence instead of a traceback. Bombs come first: cases 0 to 11.
"""

from __future__ import annotations

import gzip
import json
import random
import resource
import signal
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tests.fault.apart import apart
from tests.fault.campaign import Row, Tally
from tests.fault.mutation import damaged, twisted
from tests.fault.saves import record
from tests.support.manifests import signed

from softprompt import artifacts
from softprompt.errors import SoftpromptError
from softprompt.library.record import MANIFEST
from softprompt.library.store import Library
from softprompt.study.ledger import Ledger, key_of
from softprompt.training import checkpoint
from softprompt.training.run_dir import RunDir
from softprompt.training.runs import RunResult

BATCH = 500
SECONDS = 1.0  # of processor time, a case
MEMORY = 512 << 20  # more than a process that reads nothing


@dataclass(frozen=True)
class Format:
    """A kind of file: its good bytes stand in ``good``; `read` gives what is compared with what they give.

    Attributes:
        name: for people.
        make: writes a good one into a folder and names the files that are damaged.
        read: reads what a folder holds; gives something that can be compared.
        hashed: whether other content than the good one must be refused.
        sign: signs a changed manifest anew, as somebody would who knows how; None where there is none.
    """

    name: str
    make: Callable[[Path], list[str]]
    read: Callable[[Path], Any]
    hashed: bool = True
    sign: Callable[[Any], bytes] | None = None


def _tensors(tensors: Any) -> str:
    return repr({name: (str(t.dtype), tuple(t.shape), t.flatten().tolist()) for name, t in sorted(tensors.items())})


# -- what the program writes ------------------------------------------------------------------------------------------


def _make_prompt(folder: Path) -> list[str]:
    Library(folder).add(record(1))
    return [f"mnli@0/{path.name}" for path in (folder / "mnli@0").iterdir() if path.name != "README.md"]


def _read_prompt(folder: Path) -> Any:
    library = Library(folder)
    problems = library.verify(["mnli@0"])
    library.list()
    stored = library.get("mnli@0")
    found = _tensors({"prompt": stored.prompt(), "key": stored.task_embedding()})
    if problems:  # verification reads more than a use does: what it refuses, a use may read
        raise artifacts.CorruptArtifactError(str(problems))
    return found + stored.manifest.model_dump_json()


def _signed_prompt(content: Any) -> bytes:
    """A manifest as the program would write it, with the digest of what it now says."""
    return signed(content) if isinstance(content, dict) else json.dumps(content).encode()


def _make_space(folder: Path) -> list[str]:
    from tests.support.models import tiny_backbone
    from tests.support.small_tasks import WordEncoder

    from softprompt.methods.sharpt.space import Space
    from softprompt.methods.sharpt.start import StartSettings, start_space

    backbone, encoder = tiny_backbone("t5"), WordEncoder()
    texts, start = encoder.encode(["cat red", "dog green", "bird blue", "fish red"]), StartSettings(skill_count=3)
    prompts = start_space(backbone, encoder, texts, [0], prompt_length=4, start=start)
    Space.of(prompts, backbone, name="space", kind="space", training={"seed": 0}).save(folder / "space")
    return ["space/manifest.json", "space/space.safetensors"]


def _read_space(folder: Path) -> Any:
    from softprompt.methods.sharpt.space import load_space

    space = load_space(folder / "space")
    told = {
        name: getattr(space, name) for name in ("name", "kind", "settings", "spread", "backbone", "encoder", "training")
    }
    return _tensors({**space.tensors, "centre": space.centre_m}) + repr(told) + repr(sorted(space.scales.items()))


def _sealed(content: Any) -> bytes:
    if not isinstance(content, dict):
        return json.dumps(content).encode()
    content.pop(artifacts.SEAL, None)
    seal = artifacts.sha256_bytes(json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    return json.dumps({**content, artifacts.SEAL: seal}).encode()


IDENTITY = {"task": "mnli", "seed": 0}


def _make_ledger(folder: Path) -> list[str]:
    key = key_of(IDENTITY)
    Ledger(folder).claim("tiny", "f" * 64)
    Ledger(folder).write("sources", key, IDENTITY, {"score": 51.25, "curve": [1, 2]}, {"prompt": torch.ones(2, 4)})
    return [f"cells/sources/{key}/cell.json", f"cells/sources/{key}/tensors.safetensors"]


def _read_ledger(folder: Path) -> Any:
    ledger, key = Ledger(folder), key_of(IDENTITY)
    ledger.claim("tiny", "f" * 64)
    found = ledger.read("sources", key)
    return repr((found.identity, found.result)) + _tensors(ledger.tensors("sources", key))


def _make_checkpoint(folder: Path) -> list[str]:
    checkpoint.save(folder, {"prompt": torch.ones(2, 4)}, {"step": 3, "rng": [1, 2, 3], "loss": 0.25})
    return ["step-000000003/state.json", "step-000000003/state.safetensors"]


def _read_checkpoint(folder: Path) -> Any:
    found = checkpoint.load_last(folder)
    assert found is not None
    return _tensors(found[0]) + repr(found[1])


def _make_results(folder: Path) -> list[str]:
    run = RunDir(folder / "run", {"a": 1}, resume=True)
    best = {"prompt": torch.ones(2, 4)}
    run.finish(
        [RunResult(name="mnli-0", seed=0, status="done", best=best, scores={"score": 51.25}, curve=[{"step": 1}])]
    )
    return ["run/results/mnli-0.json", "run/results/mnli-0.safetensors"]


def _read_results(folder: Path) -> Any:
    (result,) = RunDir(folder / "run", {"a": 1}, resume=True, writes=False).finished(["mnli-0"]) or []
    return repr(result.plain()) + _tensors(result.tensors())


def _make_run(folder: Path) -> list[str]:
    RunDir(folder / "run", {"steps": 10, "rate": 0.5, "tasks": ["mnli"]}, resume=True)
    for step in (1, 2, 3):
        artifacts.append_json_line(folder / "run" / "metrics.jsonl", {"step": step, "loss": 0.5})
    return ["run/run.json", "run/metrics.jsonl"]


def _read_run(folder: Path) -> Any:
    run = RunDir(folder / "run", {"steps": 10, "rate": 0.5, "tasks": ["mnli"]}, resume=True, writes=False)
    run.load()
    return [
        line for line in artifacts.read_json_lines(folder / "run" / "metrics.jsonl") if isinstance(line, dict)
    ] and ""


# -- what others write ------------------------------------------------------------------------------------------------

ROWS = [{"text": f"a good film {i}", "label": ("yes", "no")[i % 2], "n": i} for i in range(12)]


def _table(kind: str) -> Format:
    name = f"train{kind}"

    def make(folder: Path) -> list[str]:
        plain = kind.removesuffix(".gz").removesuffix(".zst")
        if plain == ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.Table.from_pylist(ROWS), folder / name)
            return [name]
        sign = "," if plain == ".csv" else "\t"
        text = {
            ".jsonl": "".join(json.dumps(row) + "\n" for row in ROWS), ".json": json.dumps(ROWS, indent=1),
        }.get(plain, "\n".join([sign.join(ROWS[0]), *(sign.join(map(str, row.values())) for row in ROWS)]) + "\n")  # fmt: skip
        data = text.encode()
        if kind.endswith(".gz"):
            data = gzip.compress(data, mtime=0)
        if kind.endswith(".zst"):
            import zstandard

            data = zstandard.ZstdCompressor().compress(data)
        (folder / name).write_bytes(data)
        return [name]

    return Format(kind, make, partial(_read_table, name=name), hashed=False)


def _read_table(folder: Path, name: str) -> Any:
    from softprompt.tasks.user import load_user_task

    task = load_user_task(folder / name)
    return len(task.split("train"))


def _make_npy(folder: Path) -> list[str]:
    from softprompt.library.formats.npy import write_npy

    write_npy(folder / "sst2.npy", torch.ones(3, 4))
    return ["sst2.npy"]


def _read_npy(folder: Path) -> Any:
    from softprompt.library.formats.npy import npy_record

    return npy_record(folder / "sst2.npy").prompt.shape


def _make_peft(folder: Path) -> list[str]:
    from softprompt.library.formats.peft import write_peft

    write_peft(folder / "peft", torch.ones(3, 4), backbone_name="tiny", backbone_kind="t5")
    return ["peft/adapter_config.json", "peft/adapter_model.safetensors"]


def _read_peft(folder: Path) -> Any:
    from softprompt.library.formats.peft import import_peft

    return import_peft(Library(folder / "library"), folder / "peft", "mnli", replace=True).prompt().shape


TASK = """\
inputs = "review: {text} about {n}"
targets = "{label}"
labels = ["yes", "no"]
metrics = ["accuracy"]
train = "train.jsonl"
"""


def _make_toml(folder: Path) -> list[str]:
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "task.toml").write_text(TASK)
    return ["task.toml"]


def _read_toml(folder: Path) -> Any:
    from softprompt.tasks.user import load_user_task

    return len(load_user_task(folder / "task.toml").split("train"))


STUDY = """\
name = "tiny"
sources = ["mnli", "sst2"]
targets = ["cb"]
seeds = [0, 1]
group = 3
[source]
recipe = "spot"
steps = 12
[target]
recipe = "spot"
steps = 8
[embedding]
step = 5
"""


def _make_study(folder: Path) -> list[str]:
    (folder / "study.toml").write_text(STUDY)
    return ["study.toml"]


def _read_study(folder: Path) -> Any:
    from softprompt.study.settings import load_study

    return load_study(folder / "study.toml").name


FORMATS = (
    Format("prompt", _make_prompt, _read_prompt),
    Format("signed prompt", _make_prompt, _read_prompt, sign=_signed_prompt),
    Format("space", _make_space, _read_space),
    Format("signed space", _make_space, _read_space, sign=_sealed),
    Format("ledger", _make_ledger, _read_ledger),
    Format("checkpoint", _make_checkpoint, _read_checkpoint),
    Format("results", _make_results, _read_results),
    Format("run folder", _make_run, _read_run, hashed=False),
    *(_table(kind) for kind in (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".jsonl.gz", ".csv.zst")),
    Format("npy", _make_npy, _read_npy, hashed=False),
    Format("adapter", _make_peft, _read_peft, hashed=False),
    Format("task.toml", _make_toml, _read_toml, hashed=False),
    Format("study.toml", _make_study, _read_study, hashed=False),
)


class Slow(BaseException):
    """A case took more processor time than it may."""


def _late(number: int, frame: Any) -> None:
    raise Slow


def _attempt(read: Callable[[], Any], good: Any, hashed: bool) -> tuple[str, str]:
    """(what happened, what is wrong with it)."""
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = read()
    except SoftpromptError as error:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        return "refused", "" if str(error).strip() else "the refusal says nothing"
    except Slow:
        return "slow", f"it took more than {SECONDS} s"
    except BaseException as error:
        import traceback

        where = traceback.extract_tb(error.__traceback__)
        ours = [f"{Path(f.filename).name}:{f.lineno}" for f in where if "softprompt" in f.filename]
        return "traceback", f"{type(error).__name__} at {ours[-1] if ours else '?'}: {str(error)[:200]}"
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    if found == good:
        return "read as it was", ""
    if hashed:
        return "silent", "changed content was read in silence"
    return "read", ""


class Case:
    """Case i of a format: its good files once, and then a damaged one in its place."""

    def __init__(self, kind: Format, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.kind, self.folder = kind, folder
        self.files = {name: (folder / name).read_bytes() for name in kind.make(folder)}
        self.good = kind.read(folder)

    def attempt(self, number: int) -> tuple[str, str]:
        draw = random.Random(number)
        name = draw.choice(sorted(self.files))
        if self.kind.sign is not None:
            name = next(n for n in self.files if n.endswith(MANIFEST))
            data = self.kind.sign(twisted(json.loads(self.files[name]), draw))
        elif name.endswith(".json") and draw.random() < 0.3:
            data = json.dumps(twisted(json.loads(self.files[name]), draw), indent=2).encode()
        else:
            data = damaged(self.files[name], draw)
        place = self.folder / name
        place.write_bytes(data)
        found, wrong = _attempt(lambda: self.kind.read(self.folder), self.good, self.kind.hashed)
        if self.kind.sign is not None and found == "silent" and self._same_tensors():
            found, wrong = "read as signed", ""
        place.write_bytes(self.files[name])
        return found, wrong

    def _same_tensors(self) -> bool:
        """Whether what was read under a newly signed manifest still holds the tensors that were written."""
        found, _, _ = self.kind.read(self.folder).partition("}")
        return bool(str(self.good).startswith(found))


def _batch(cases: Sequence[int], folder: Path) -> Any:
    counts, failures = Counter[str](), []
    signal.signal(signal.SIGVTALRM, _late)
    known: dict[str, Case] = {}
    for case in cases:
        kind = FORMATS[case % len(FORMATS)]
        if kind.name not in known:
            known[kind.name] = Case(kind, folder / str(case))
        found, wrong = known[kind.name].attempt(case)
        counts[found] += 1
        if wrong:
            failures.append(f"case {case} ({kind.name}): {wrong}")
    return [counts, failures, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]


# -- bombs ------------------------------------------------------------------------------------------------------------


def _bomb(number: int, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    row = json.dumps({"text": "a" * 1_000_000, "label": "yes"}).encode() + b"\n"
    path = folder / f"bomb{number}"
    match number:
        case 0 | 1:  # 1 GB and one endless line in a few MB
            path = path.with_suffix(".jsonl.gz")
            with gzip.open(path, "wb", compresslevel=1) as stream:
                for _ in range(1000 if number == 0 else 300):
                    stream.write(row if number == 0 else b"a" * 1_000_000)
        case 2 | 3:
            import zstandard

            path = path.with_suffix(".jsonl.zst" if number == 2 else ".csv.zst")
            with path.open("wb") as raw, zstandard.ZstdCompressor(level=1).stream_writer(raw) as stream:
                for _ in range(1000):
                    stream.write(row if number == 2 else b"text,label\n" + b"a" * 1_000_000)
        case 4 | 5:
            import pyarrow as pa
            import pyarrow.parquet as pq

            path = path.with_suffix(".parquet")
            rows, text = (2000, "a" * 1_000_000) if number == 4 else (20_000_000, "")
            which = pa.repeat(pa.scalar(0, pa.int8()), rows)
            same = {
                name: pa.DictionaryArray.from_arrays(which, [value])
                for name, value in (("text", text), ("label", "yes"))
            }
            pq.write_table(pa.table(same), path, compression="zstd")
        case 6:
            path = folder / "task.toml"
            path.write_text("a = " + "[" * 3_000_000)
        case 7:
            path = path.with_suffix(".jsonl")
            with path.open("wb") as stream:
                for _ in range(100):
                    stream.write(b"a" * 1_000_000)
                stream.write(b"\n" + json.dumps(ROWS[0]).encode())
        case 8:
            path = path.with_suffix(".json")
            path.write_bytes(b"[" * 50_000_000)
        case 9:
            path = path.with_suffix(".csv")
            path.write_bytes(b"text,label\n" + b'"' + b"a\n" * 20_000_000)
        case 10:
            path = path.with_suffix(".npy")
            header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }"
            path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\x00" * 64)
        case _:
            path = folder / "library" / "mnli@0" / MANIFEST
            path.parent.mkdir(parents=True)
            path.write_bytes(b"{" + b'"a":{' * 30_000_000)
    return path


BOMBS = 12
BOMB_SECONDS = 20.0  # of processor time: up to 64 MB are unpacked before a bomb is known for one


def _explode(number: int, folder: Path) -> list[str]:
    from softprompt.library.formats.npy import read_npy
    from softprompt.tasks.user import load_user_task

    path = _bomb(number, folder)

    def read() -> Any:
        if path.suffix == ".npy":
            return read_npy(path)
        if path.name == MANIFEST:
            return Library(folder / "library").get("mnli@0")
        return len(load_user_task(path).split("train"))

    def work() -> Any:
        signal.signal(signal.SIGVTALRM, _late)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        what, wrong = _attempt(read, None, False)
        return [what, wrong, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before]

    global SECONDS
    SECONDS = BOMB_SECONDS
    ended = apart(work, seconds=300, memory=MEMORY << 1)
    SECONDS = 1.0
    path.unlink()
    if ended.error or ended.late or ended.signal:
        return [f"case {number} (bomb): {ended.error[-300:] or 'it had to be killed'}"]
    what, wrong, grown = ended.value
    if wrong or what != "refused" or grown > MEMORY >> 10:
        return [f"case {number} (bomb): {what} {wrong}, {grown >> 10} MB"]
    return []


def run(cases: Sequence[int], folder: Path) -> Tally:
    """Case i: a bomb below 12; above, format i % 19, file, damage and place drawn from i."""
    tally = Tally()
    for case in (case for case in cases if case < BOMBS):
        found = _explode(case, folder / "bombs")
        tally.failures += found
        tally.counts["bombs refused" if not found else "broken"] += 1
    rest = [case for case in cases if case >= BOMBS]
    for start in range(0, len(rest), BATCH):
        some = rest[start : start + BATCH]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        ended = apart(_batch, some, folder / str(start), seconds=590, memory=4 * MEMORY)
        if ended.error or ended.late or ended.signal:
            tally.failures.append(f"cases {some[0]} to {some[-1]}: {ended.error[-600:] or 'the reader died or hung'}")
            continue
        counts, failures, peak = ended.value
        tally.counts += Counter(counts)
        tally.failures += failures
        if peak - before > MEMORY >> 10:
            tally.failures.append(f"cases {some[0]} to {some[-1]}: reading took {(peak - before) >> 10} MB")
    return tally


ROW = Row(
    name="files", promise="Hostile files are refused in a sentence",
    tried="damaged, twisted and newly signed prompts, spaces, ledgers, checkpoints, results, tables, npy, adapters and TOML; bombs",
    cases=100_000, short=[2, 7, 10, *range(100, 138), 15_288], piece=2_000, run=run,
)  # fmt: skip
