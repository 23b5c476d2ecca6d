"""Executors by name, and their options given as text, ``KEY=VALUE``, read and checked before anything starts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softprompt.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from softprompt.study.executors import Executor


def _whole(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError(text)
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def _amount(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError(text)
    return value


def _names(text: str) -> list[str]:
    found = [word.strip() for word in text.split(",") if word.strip()]
    if not found:
        raise ValueError(text)
    return found


def _free(text: str) -> Any:
    """A whole number, true or false, JSON in brackets or braces, else the text itself."""
    if text.isdecimal():
        return int(text)
    if text in ("true", "false"):
        return text == "true"
    return json.loads(text) if text[:1] in ("[", "{") else text


_KINDS: Mapping[Callable[[str], Any], str] = {
    _count: "a whole number of at least 1",
    _whole: "a whole number of at least 0",
    _amount: "a number of at least 0",
    _names: "names with commas between",
    str: "a text",
    _free: "a number, a text or JSON",
}
_TAKEN: Mapping[str, Mapping[str, Callable[[str], Any]]] = {
    "serial": {},
    "processes": {"workers": _count, "devices": _names, "threads": _whole},
    "ray": {"workers": _count, "address": str, "gpus": _amount, "cpus": _amount},
    "slurm": {"workers": _count, "cluster": str},
}
_SHARED = ("timeout_min", "mem_gb", "nodes", "cpus_per_task", "tasks_per_node")
_SLURM = (
    "account", "additional_parameters", "array_parallelism", "comment", "constraint", "cpus_per_gpu", "dependency",
    "exclude", "exclusive", "gpus_per_task", "gres", "job_name", "mail_type", "mail_user", "mem", "mem_per_cpu",
    "mem_per_gpu", "nodelist", "num_gpus", "partition", "qos", "setup", "signal_delay_s", "srun_args",
    "stderr_to_stdout", "time", "use_srun", "wckey",
)  # fmt: skip
# submitit's own: what every cluster takes, and what only Slurm does. Its installed version checks them once more.
_SUBMITIT: Mapping[str, Callable[[str], Any]] = {
    "name": str,
    "gpus_per_node": _whole,
    **dict.fromkeys(_SHARED, _count),
    **{f"slurm_{name}": _free for name in _SLURM},
}


def known_options(executor: str) -> dict[str, Callable[[str], Any]]:
    """Name to reader of every option of an executor.

    Raises:
        UnknownNameError: no such executor.
    """
    if executor not in _TAKEN:
        raise UnknownNameError("executor", executor, _TAKEN)
    return {**_TAKEN[executor], **(_SUBMITIT if executor == "slurm" else {})}


def executor_options(executor: str, given: Sequence[str], workers: int | None = None) -> dict[str, Any]:
    """Keyword arguments of an executor from ``KEY=VALUE`` texts; submitit's parameters stand together.

    Args:
        executor: ``serial``, ``processes``, ``ray`` or ``slurm``.
        given: ``KEY=VALUE`` each.
        workers: another way to say ``workers=N``; None where it was not said.

    Raises:
        UnknownNameError: an option the executor does not take, with the nearest names.
        UsageError: a text without ``=``, an option set twice, or a value of another kind.
    """
    known = known_options(executor)
    pairs = [item.partition("=") for item in given]
    if workers is not None:
        pairs.append(("workers", "=", str(workers)))
    made: dict[str, Any] = {}
    for name, sign, text in pairs:
        key = name.strip().replace("-", "_")
        if not sign:
            raise UsageError(f"an executor option is KEY=VALUE, got {name!r}: write for example workers=4.")
        if key not in known:
            remedy = "" if known else "The serial executor takes no option: choose --executor processes, ray or slurm."
            raise UnknownNameError(f"option of executor '{executor}'", key, known, remedy)
        if key in made:
            raise UsageError(f"executor option {key} is set twice: leave one out.")
        try:
            made[key] = known[key](text.strip())
        except ValueError:
            raise UsageError(f"executor option {key} takes {_KINDS[known[key]]}, got {text!r}.") from None
    own = {key: value for key, value in made.items() if key in _TAKEN[executor]}
    parameters = {key: value for key, value in made.items() if key not in own}
    return {**own, "parameters": parameters} if parameters else own


def make_executor(name: str, ledger: Path, **options: Any) -> Executor:
    """An executor by name.

    Args:
        name: ``serial``, ``processes``, ``ray`` or ``slurm``.
        ledger: the ledger's folder; Slurm's files go below it.
        options: of the executor.

    Raises:
        UnknownNameError: another name.
        UsageError: what it needs is not installed, or an option is wrong.
    """
    from softprompt.study.clusters import RayExecutor, SlurmExecutor
    from softprompt.study.executors import ProcessExecutor, SerialExecutor

    known: dict[str, Callable[..., Executor]] = {
        "serial": SerialExecutor,
        "processes": ProcessExecutor,
        "ray": RayExecutor,
        "slurm": SlurmExecutor,
    }
    if name not in known:
        raise UnknownNameError("executor", name, known)
    if name == "slurm":
        options = {"folder": ledger / "slurm", **options}
    try:
        return known[name](**options)
    except TypeError as error:
        raise UsageError(f"executor '{name}' does not take these options ({sorted(options)}): {error}.") from error
