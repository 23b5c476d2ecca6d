"""`predict` over many rows on a Ray cluster, through Ray Data: each worker loads the backbone once and answers blocks of rows.

A worker or node that is lost costs the block it had: Ray gives it to another one. Ray is optional.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softprompt import errors, waits
from softprompt.errors import SoftpromptError, UsageError, printable
from softprompt.inference.predict import Prediction, Predictions, predict
from softprompt.tasks.tuned import Input

BLOCK_ROWS = 256
_RAISED = re.compile(r"softprompt\.errors\.(\w+): (.+)")


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """What each worker loads, as plain data that can travel; places are read by every node.

    Attributes:
        backbone: name or folder, as for `load_backbone`, with ``dtype``, ``device`` and ``revision``.
        library: folder or URL of the prompt; None for the bare backbone.
        prompt: its name.
        as_is: see `predict`.
        max_new_tokens: see `predict`.
    """

    backbone: str
    dtype: str = "auto"
    device: str = "auto"
    revision: str | None = None
    library: str | None = None
    prompt: str | None = None
    as_is: bool = False
    max_new_tokens: int | None = None


class _Answerer:
    """What a worker does; Ray Data wraps it."""

    def __init__(self, asked: WorkerSettings) -> None:
        from softprompt.backbones.load import load_backbone
        from softprompt.library.store import Library

        self._asked = asked
        self._backbone = load_backbone(
            asked.backbone, dtype=asked.dtype, device=asked.device, revision=asked.revision, progress=False
        )
        self._prompter = self._kept = None
        if asked.library is not None and asked.prompt is not None:
            library = Library(asked.library)
            self._kept = library.get(asked.prompt).manifest
            self._prompter = library.stack([asked.prompt], self._backbone)

    def __call__(self, block: Mapping[str, Any]) -> dict[str, list[Any]]:
        rows = [json.loads(text) for text in block["row"]]
        found = predict(
            self._backbone, self._prompter, rows, self._kept, as_is=self._asked.as_is,
            max_new_tokens=self._asked.max_new_tokens,
        )  # fmt: skip
        answers = [json.dumps([one.output, one.label]) for one in found.rows]
        return {"place": list(block["place"]), "answer": answers, "cut": [found.cut, *[0] * (len(rows) - 1)]}


def predict_on_ray(
    asked: WorkerSettings,
    rows: Sequence[Input],
    *,
    workers: int = 1,
    cpus: float = 1.0,
    gpus: float = 0.0,
    address: str | None = None,
) -> Predictions:
    """The answers to rows in their order, as `predict` gives them.

    Args:
        asked: what the workers load.
        rows: texts, or rows of the columns the prompt's wording reads.
        workers: how many.
        cpus: cores of each.
        gpus: GPUs of each, may be a fraction.
        address: of a running cluster (``auto`` finds it); None starts one on this machine.

    Raises:
        UsageError: Ray is not installed, or the cluster cannot be joined.
        SoftpromptError: as `predict`, from a worker.
    """
    ray, started = join_ray(address)
    try:
        found = _answers(asked, rows, workers, {"num_cpus": cpus, "num_gpus": gpus or None})
    except ray.exceptions.RayError as error:
        raise _own(error) from error
    finally:
        if started:
            ray.shutdown()
    return found


def join_ray(address: str | None) -> tuple[Any, bool]:
    """Ray's module with a cluster behind it, and whether this call joined or started it.

    Args:
        address: of a running cluster (``auto`` finds it); None or empty starts one on this machine.

    Raises:
        UsageError: Ray is not installed, or no cluster of this address lets us in.
    """
    # `ray start` asks for a token as soon as its user has one; `ray.init` shows it to a running cluster only where it is
    # told to before it is imported.
    if address and (Path.home() / ".ray" / "auth_token").is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray
    except ImportError as error:
        raise UsageError("--executor ray needs Ray, which is not installed: pip install 'softprompt[ray]'.") from error
    if ray.is_initialized():
        return ray, False
    try:
        ray.init(address=address or None, log_to_driver=False, include_dashboard=None if address else False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        said = printable(str(error).strip().split("\n")[0])
        raise UsageError(
            f"the Ray cluster {address or 'of this machine'!r} cannot be used ({said}): start one with 'ray start --head', or name "
            "its address; where it asks for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN."
        ) from error
    return ray, True


def _answers(
    asked: WorkerSettings,
    rows: Sequence[Input],
    workers: int,
    resources: Mapping[str, float | None],
) -> Predictions:
    import ray.data

    given = [{"place": i, "row": json.dumps(row, default=str)} for i, row in enumerate(rows)]
    blocks = max(workers, -(-len(given) // BLOCK_ROWS))
    answered = ray.data.from_items(given, override_num_blocks=blocks).map_batches(
        _Answerer, fn_constructor_kwargs={"asked": asked}, batch_size=BLOCK_ROWS,
        compute=ray.data.ActorPoolStrategy(size=workers), **resources,
    )  # fmt: skip
    made: dict[int, Prediction] = {}
    cut = 0
    for row in answered.iter_rows():
        output, label = json.loads(row["answer"])
        made[int(row["place"])] = Prediction(output=output, label=label)
        cut += int(row["cut"])
        waits.tell("answering rows", len(made), len(given))
    return Predictions(rows=[made[i] for i in range(len(given))], cut=cut)


def _own(error: BaseException) -> SoftpromptError:
    """What a worker raised, where it was one of our errors; else a sentence. Ray tells of it in the text of its own error."""
    told = _RAISED.findall(str(error))
    if not told:
        last = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        return SoftpromptError(f"the workers on Ray could not answer: {last[0]}")
    kind, message = told[-1]
    made: SoftpromptError = Exception.__new__(getattr(errors, kind, SoftpromptError))
    Exception.__init__(made, message)
    return made
