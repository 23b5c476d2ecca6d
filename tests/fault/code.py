"""No code comes out of data: everything that could carry a program is given to what reads it, and none of it runs.

Each case plants a program that would leave a mark, and an audit hook watches what the interpreter does: a class found by a
pickle, a shell, a module of the planted folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.fault.apart import apart
from tests.fault.campaign import Row, Tally
from tests.fault.files import STUDY, _signed_prompt
from tests.fault.saves import prompt, record

from softprompt.errors import SoftpromptError
from softprompt.library.store import Library

MARK = "mark"


class Evil:
    """Unpickled, it leaves a mark."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.folder / MARK}",)


def _program(folder: Path) -> str:
    return f"open({str(folder / MARK)!r}, 'w')\n"


def _adapter_bin(folder: Path) -> None:
    from softprompt.library.formats.peft import read_peft, write_peft

    write_peft(folder / "a", prompt(1), backbone_name="tiny", backbone_kind="t5")
    (folder / "a" / "adapter_model.safetensors").unlink()
    torch.save({"prompt_embeddings": Evil(folder)}, folder / "a" / "adapter_model.bin")
    read_peft(folder / "a")


def _adapter_pickle_as_safetensors(folder: Path) -> None:
    from softprompt.library.formats.peft import read_peft, write_peft

    write_peft(folder / "a", prompt(1), backbone_name="tiny", backbone_kind="t5")
    (folder / "a" / "adapter_model.safetensors").write_bytes(pickle.dumps(Evil(folder)))
    read_peft(folder / "a")


def _tiny(folder: Path) -> Path:
    from tests.support.models import save_tiny

    return save_tiny("t5", folder / "t5", width=16, layers=1)


def _bin_backbone(folder: Path) -> None:
    from softprompt.backbones.load import load_backbone

    model = _tiny(folder)
    (model / "model.safetensors").unlink()
    torch.save({"shared.weight": Evil(folder)}, model / "pytorch_model.bin")
    load_backbone(str(model))


def _bin_convert(folder: Path) -> None:
    from softprompt.backbones.pickled import converted_bin

    model = _tiny(folder)
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(folder)))
    converted_bin(model, "t5", folder / "out")


def _remote_code(folder: Path) -> None:
    from softprompt.backbones.load import load_backbone

    model = _tiny(folder)
    config = json.loads((model / "config.json").read_text())
    names = {
        "AutoConfig": "evil.EvilConfig",
        "AutoModelForSeq2SeqLM": "evil.EvilModel",
        "AutoModelForCausalLM": "evil.EvilModel",
    }
    (model / "config.json").write_text(json.dumps({**config, "model_type": "evil", "auto_map": names}))
    (model / "evil.py").write_text(_program(folder))
    load_backbone(str(model))


def _remote_tokenizer(folder: Path) -> None:
    from softprompt.backbones.load import load_backbone

    model = _tiny(folder)
    place = model / "tokenizer_config.json"
    told = json.loads(place.read_text())
    place.write_text(
        json.dumps({**told, "tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}})
    )
    (model / "evil.py").write_text(_program(folder))
    load_backbone(str(model))


def _remote_encoder(folder: Path) -> None:
    from tests.support.models import tiny_backbone

    from softprompt.methods.sharpt.encoders import load_encoder

    model = _tiny(folder)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(
        json.dumps({**config, "model_type": "evil", "auto_map": {"AutoModel": "evil.E", "AutoConfig": "evil.C"}})
    )
    (model / "evil.py").write_text(_program(folder))
    load_encoder(f"hf:{model}", tiny_backbone("t5")).encode(["a"])


def _chat_template(folder: Path) -> None:
    from softprompt.backbones.load import load_backbone

    model = _tiny(folder)
    code = "{{ ''.__class__.__mro__[1].__subclasses__() }}{{ cycler.__init__.__globals__.os.system('touch %s') }}" % (
        folder / MARK
    )
    (model / "chat_template.jinja").write_text(code)
    backbone = load_backbone(str(model))
    from softprompt.errors import UsageError

    try:
        backbone.tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
    except Exception as error:  # jinja2's sandbox has its own errors
        raise UsageError(str(error)) from error


def _npy_object(folder: Path) -> None:
    from softprompt.library.formats.npy import read_npy

    np.save(folder / "a.npy", np.array([Evil(folder)], dtype=object), allow_pickle=True)
    read_npy(folder / "a.npy")


def _npy_record(folder: Path) -> None:
    from softprompt.library.formats.npy import read_npy

    np.save(folder / "a.npy", np.zeros(3, dtype=[("a", "f4"), ("b", "O")]), allow_pickle=True)
    read_npy(folder / "a.npy")


def _npy_pickle(folder: Path) -> None:
    from softprompt.library.formats.npy import read_npy

    (folder / "a.npy").write_bytes(pickle.dumps(Evil(folder)))
    read_npy(folder / "a.npy")


def _npy_header(folder: Path) -> None:
    from softprompt.library.formats.npy import read_npy

    header = f"{{'descr': '<f4', 'fortran_order': __import__('os').system('touch {folder / MARK}'), 'shape': (1, 1), }}".encode()
    (folder / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(4))
    read_npy(folder / "a.npy")


def _manifest(folder: Path) -> None:
    """A manifest, signed anew, whose every field names a function."""
    library = Library(folder / "library")
    library.add(record(1))
    place = folder / "library" / "mnli@0" / "manifest.json"
    name = f"os:system('touch {folder / MARK}')"
    told = json.loads(place.read_text())
    told |= {
        "recipe": {"runner": name, "__reduce__": name},
        "init": {"module": name},
        "command": f"$(touch {folder / MARK})",
    }
    place.write_bytes(_signed_prompt({**told, "data_source": {"repo": name}, "origin": name}))
    library.list()
    library.get("mnli@0").files()


def _manifest_wording(folder: Path) -> None:
    from softprompt.tasks.tuned import wording_of

    library = Library(folder / "library")
    library.add(record(1))
    place = folder / "library" / "mnli@0" / "manifest.json"
    told = json.loads(place.read_text())
    (folder / "evil.py").write_text(_program(folder))
    place.write_bytes(
        _signed_prompt(
            {
                **told,
                "wording": {"form": "python", "task": f"{folder / 'evil.py'}:form", "template": "{text.__class__}"},
            }
        )
    )
    wording_of(library.get("mnli@0").manifest)


def _kernel(folder: Path) -> None:
    """A shared object where the compiled kernels are kept, named as ours is but for its bytes."""
    from softprompt.backbones.engine.native import library as native

    source = folder / "evil.c"
    source.write_text(
        f'#include <stdlib.h>\n__attribute__((constructor)) void f(void) {{ system("touch {folder / MARK}"); }}\n'
    )
    compiler = native.find_compiler()
    if compiler is None:
        return
    import subprocess

    place = folder / "cache" / "kernels"
    place.mkdir(parents=True)
    level = native.in_force()
    name = f"{level.name}-{native._identity(compiler, level)}-{'0' * 64}.so"
    subprocess.run([compiler, "-shared", "-fPIC", str(source), "-o", str(place / name)], check=True)
    os.environ["SOFTPROMPT_CACHE"] = str(folder / "cache")
    WATCH["shell"] = False  # the compiler is ours to call
    assert native._load_kept(place, level, native._identity(compiler, level)) is None


def _task_folder(folder: Path) -> None:
    """Programs beside the data of a task."""
    from softprompt.tasks.user import load_user_task

    for name in ("__init__.py", "task.py", "conftest.py", "data.py", "sitecustomize.py"):
        (folder / name).write_text(_program(folder))
    (folder / "train.jsonl").write_text('{"text": "a", "label": "yes"}\n{"text": "b", "label": "no"}\n' * 4)
    load_user_task(folder).split("train")


def _template(folder: Path) -> None:
    from softprompt.tasks.user import load_user_task

    (folder / "train.jsonl").write_text('{"text": "a", "label": "yes"}\n{"text": "b", "label": "no"}\n' * 4)
    (folder / "task.toml").write_text(
        'inputs = "{text.__class__.__mro__} {text!r:>{text}}"\ntargets = "{label}"\ntrain = "train.jsonl"\n'
    )
    load_user_task(folder / "task.toml").split("train")


def _toml_python(folder: Path) -> None:
    from softprompt.tasks.user import load_user_task

    (folder / "evil.py").write_text(_program(folder))
    (folder / "task.toml").write_text('inputs = "{text}"\ntargets = "{label}"\ntrain = "evil.py"\nform = "evil:f"\n')
    load_user_task(folder / "task.toml").split("train")


def _study(folder: Path) -> None:
    from softprompt.study.settings import load_study

    (folder / "study.toml").write_text(f'runner = "os:system"\n{STUDY}')
    load_study(folder / "study.toml")


def _parquet(folder: Path) -> None:
    """An extension type that older readers unpickled."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from softprompt.tasks.user import load_user_task

    told = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(Evil(folder)),
    }
    schema = pa.schema([pa.field("text", pa.string(), metadata=told), pa.field("label", pa.string())])
    rows = {"text": ["a", "b"] * 4, "label": ["yes", "no"] * 4}
    pq.write_table(pa.table(rows, schema=schema), folder / "train.parquet")
    load_user_task(folder / "train.parquet").split("train")


def _checkpoint(folder: Path) -> None:
    from softprompt.training import checkpoint

    checkpoint.save(folder, {"a": prompt(1)}, {"step": 1})
    (folder / "step-000000001" / "state.safetensors").write_bytes(pickle.dumps(Evil(folder)))
    checkpoint.load_last(folder)


PLANTS: tuple[Callable[[Path], None], ...] = (
    _adapter_bin, _adapter_pickle_as_safetensors, _bin_backbone, _bin_convert, _remote_code, _remote_tokenizer, _remote_encoder,
    _chat_template, _npy_object, _npy_record, _npy_pickle, _npy_header, _manifest, _manifest_wording, _kernel, _task_folder, _template,
    _toml_python, _study, _parquet, _checkpoint,
)  # fmt: skip
WATCH: dict[str, Any] = {"on": False, "shell": True, "seen": []}


def _hook(folder: Path) -> Callable[[str, tuple[Any, ...]], None]:
    def hook(event: str, words: tuple[Any, ...]) -> None:
        if not WATCH["on"]:
            return
        if (
            event in ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen")
            and WATCH["shell"]
            and "gcc" not in str(words)
        ):
            WATCH["seen"].append(f"{event} {str(words)[:100]}")
        if event == "pickle.find_class" and words[0] in ("os", "posix", "builtins", "subprocess", "nt"):
            WATCH["seen"].append(f"a pickle found {words}")
        if event == "exec" and str(folder) in str(getattr(words[0], "co_filename", "")):
            WATCH["seen"].append(f"code of {words[0].co_filename} ran")

    return hook


def _try(plant: Callable[[Path], None], folder: Path) -> Any:
    os.environ["SOFTPROMPT_CACHE"] = str(folder / "cache")
    sys.addaudithook(_hook(folder))
    WATCH.update(on=True, seen=[])
    warnings.simplefilter("ignore")
    what = "read, and nothing ran"
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
            plant(folder)
    except SoftpromptError:
        what = "refused"
    WATCH["on"] = False
    return [what, WATCH["seen"][:3]]


def run(cases: Sequence[int], folder: Path) -> Tally:
    """Case i: the i-th plant."""
    tally = Tally()
    for case in cases:
        plant, place = PLANTS[case], folder / str(case)
        place.mkdir()
        ended = apart(_try, plant, place, seconds=120)
        if (place / MARK).exists():
            tally.failures.append(f"case {case} ({plant.__name__}): it ran")
        if ended.value is None:
            tally.failures.append(f"case {case} ({plant.__name__}): {ended.error[-500:] or 'it had to be killed'}")
            continue
        tally.counts[ended.value[0]] += 1
        tally.failures += [f"case {case} ({plant.__name__}): {seen}" for seen in ended.value[1]]
    return tally


ROW = Row(
    name="code", promise="No code comes out of data",
    tried="pickles, remote code, object arrays, manifests and settings that name Python, templates, planted kernels",
    cases=len(PLANTS), short=range(0, len(PLANTS), 3), piece=len(PLANTS), run=run,
)  # fmt: skip
