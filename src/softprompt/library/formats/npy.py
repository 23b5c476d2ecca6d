"""Google's released prompts: one float32 array [P, H] in NumPy's format, with or without the ``.npy`` suffix.

The official code exports ``<run>/numpy_checkpoints/checkpoint_<step>/encoder.prompt.prompt.prompt``, where steps start
at 1,100,000 (those of the LM-adapted T5 checkpoint). Pickled arrays are not opened, and no more memory is asked for
than the file has bytes, whatever its header says.
"""

from __future__ import annotations

import io
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from softprompt import artifacts
from softprompt.errors import CorruptArtifactError, DataError
from softprompt.library.record import PromptRecord, check_prompt

GOOGLE_FIRST_STEP = 1_100_000
# The official prompts are for T5 1.1, LM-adapted; its sizes by width, as the hub names them.
_GOOGLE_SIZES = {512: "small", 768: "base", 1024: "large", 2048: "xl", 4096: "xxl"}


def parse_npy(data: bytes, path: str | Path) -> npt.NDArray[Any]:
    """An array from the bytes of a ``.npy`` file, which it shares.

    Raises:
        DataError: it holds Python objects or records, which are not opened.
        CorruptArtifactError: it is not NumPy's format, or has fewer or more bytes than its header says.
    """
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, by_column, dtype = np.lib.format.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, by_column, dtype = np.lib.format.read_array_header_2_0(stream)
        else:
            raise ValueError(f"version {version}")
    except Exception as error:  # numpy hands the header to Python's parser, whose errors are of many classes
        raise CorruptArtifactError(f"{path} is not a readable .npy file ({str(error)[:120]}).") from error
    if dtype.hasobject or dtype.fields is not None or dtype.subdtype is not None:
        raise DataError(
            f"{path} holds Python objects or records (dtype {dtype}); pickles are not opened, export plain floats."
        )
    expected, found = math.prod(shape) * dtype.itemsize, len(data) - stream.tell()
    if expected != found or min(shape, default=0) < 0:
        raise CorruptArtifactError(
            f"{path} should hold {list(shape)} {dtype} ({expected:,} bytes) and has {found:,} bytes."
        )
    array = np.frombuffer(data, dtype=dtype, offset=stream.tell())
    return array.reshape(shape, order="F" if by_column else "C")


def array_to_prompt(array: npt.NDArray[Any], path: str | Path) -> Tensor:
    """A prompt [P, H] from an array [P, H] or [1, P, H], values and precision kept.

    Raises:
        DataError: wrong dtype or shape.
        NonFiniteError: NaN or infinity.
    """
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise DataError(f"{path} holds {array.dtype}; a prompt is float16, float32 or float64.")
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    prompt = torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C", copy=True))
    check_prompt(prompt, str(path))
    return prompt


def read_npy(path: str | Path) -> Tensor:
    """A prompt [P, H] from a ``.npy`` file, whatever its suffix.

    Raises:
        DataError: absent, or not a float array [P, H].
        CorruptArtifactError: not NumPy's format.
        NonFiniteError: NaN or infinity.
    """
    return array_to_prompt(parse_npy(artifacts.read_bytes(path), path), path)


def npy_bytes(prompt: Tensor) -> bytes:
    """A prompt [P, H] as the bytes of a ``.npy`` file. NumPy has no bfloat16: such prompts become float32, which holds them."""
    check_prompt(prompt, "the prompt to export")
    kept = prompt.detach().to("cpu")
    stream = io.BytesIO()
    np.save(stream, (kept.float() if kept.dtype == torch.bfloat16 else kept).numpy(), allow_pickle=False)
    return stream.getvalue()


def write_npy(path: str | Path, prompt: Tensor) -> None:
    """Write a prompt [P, H] as Google's code reads it, atomically."""
    artifacts.write_bytes(path, npy_bytes(prompt))


def npy_record(path: str | Path, task: str | None = None, *, name: str | None = None, **more: Any) -> PromptRecord:
    """A released or exported prompt as a record for `Library.add`; it stays ``unverified``.

    Args:
        path: ``sst2.npy``, or an ``encoder.prompt.prompt.prompt`` of the official code.
        task: what it was tuned on; from the file's or run's name where not given.
        name: name in the library.
        more: further fields of `PromptRecord`.
    """
    place = Path(path)
    prompt = read_npy(place)
    found_task, steps = _google_name(place)
    size = _GOOGLE_SIZES.get(int(prompt.shape[1]))
    values: dict[str, Any] = {
        "backbone_name": f"google/t5-{size}-lm-adapt" if size else "unknown",
        "backbone_fingerprint": None,
        "backbone_kind": "t5",
        "steps": steps,
        "best_step": steps,
        "origin": f"NumPy prompt {place.name}",
        "versions": {},
    }
    return PromptRecord(task=task or found_task, prompt=prompt, name=name, **{**values, **more})


def _google_name(path: Path) -> tuple[str, int | None]:
    """Task and steps as far as the path tells them."""
    checkpoint = re.fullmatch(r"checkpoint_(\d+)", path.parent.name)
    if checkpoint and path.parent.parent.name == "numpy_checkpoints":
        steps = int(checkpoint[1])
        return path.parents[2].name, steps - GOOGLE_FIRST_STEP if steps >= GOOGLE_FIRST_STEP else steps
    return path.name.removesuffix(".npy"), None
