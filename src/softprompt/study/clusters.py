"""Executors on other machines: Ray actors, and Slurm jobs through submitit. Both packages are optional.

The ledger's folder must be the same shared path on every machine.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from softprompt.errors import UsageError
from softprompt.inference.ray_predict import join_ray
from softprompt.study.executors import Order, Outcome, execute
from softprompt.study.making import Tell


class RayExecutor:
    """Actors on a Ray cluster; an actor whose worker or node is lost is replaced, its pack given out again.

    The ledger's folder must be the same shared path on every node.

    Args:
        workers: actors.
        address: of the running cluster; ``auto`` finds it, empty starts one on this machine.
        gpus: GPUs of each actor, may be a fraction.
        cpus: CPU cores of each actor.
    """

    def __init__(self, workers: int = 2, address: str = "auto", gpus: float = 0.0, cpus: float = 1.0) -> None:
        ray, self._started = join_ray(address)
        self._ray = ray
        self.slots = workers
        self._actor = ray.remote(num_gpus=gpus, num_cpus=cpus, max_restarts=0)(_RayWorker)
        self._idle = [self._actor.remote() for _ in range(workers)]
        self._open: dict[Any, tuple[Any, Order]] = {}

    def submit(self, order: Order, tell: Tell | None = None) -> None:
        actor = self._idle.pop()
        self._open[actor.run.remote(order)] = (actor, order)

    def wait(self, timeout_s: float) -> list[Outcome]:
        if not self._open:
            return []
        ready, _ = self._ray.wait(list(self._open), num_returns=1, timeout=timeout_s)
        return [self._ended(reference) for reference in ready]

    def _ended(self, reference: Any) -> Outcome:
        actor, order = self._open.pop(reference)
        try:
            outcome: Outcome = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            with contextlib.suppress(Exception):
                self._ray.kill(actor)
            self._idle.append(self._actor.remote())
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            return Outcome(key=order.key, kind="lost", message=f"a Ray worker was lost: {reason}")
        self._idle.append(actor)
        return outcome

    def stop(self) -> None:
        for actor, _ in self._open.values():
            self._ray.kill(actor)

    def close(self) -> None:
        for actor in [*self._idle, *(actor for actor, _ in self._open.values())]:
            with contextlib.suppress(Exception):
                self._ray.kill(actor)
        if self._started:
            self._ray.shutdown()


class _RayWorker:
    """What an actor does; Ray wraps it."""

    def run(self, order: Order) -> Outcome:
        return execute(order)

    def pid(self) -> int:
        """Of the actor's process."""
        return os.getpid()


class SlurmExecutor:
    """Slurm jobs through submitit, one for each pack.

    Args:
        workers: jobs at a time.
        folder: where submitit keeps its files.
        cluster: ``slurm``; ``local`` runs the jobs as processes of this machine.
        parameters: passed to submitit's ``update_parameters``: ``timeout_min``, ``slurm_partition``, ``gpus_per_node``, ...
    """

    def __init__(
        self, folder: str | Path, workers: int = 16, cluster: str = "slurm", parameters: Mapping[str, Any] | None = None
    ) -> None:
        try:
            import submitit
        except ImportError as error:
            raise UsageError("the slurm executor needs submitit: pip install 'softprompt[slurm]'.") from error
        self.slots = workers
        try:
            self._executor = submitit.AutoExecutor(folder=str(folder), cluster=cluster)
            self._executor.update_parameters(
                **{"name": "softprompt-study", "timeout_min": 24 * 60, **(parameters or {})}
            )
        except (RuntimeError, ValueError, NameError) as error:
            raise UsageError(f"Slurm cannot be used as asked: {error}.") from error
        self._open: list[tuple[Any, Order]] = []

    def submit(self, order: Order, tell: Tell | None = None) -> None:
        self._open.append((self._executor.submit(execute, order), order))

    def wait(self, timeout_s: float) -> list[Outcome]:
        deadline = time.monotonic() + timeout_s
        while self._open:
            ended = [pair for pair in self._open if pair[0].done()]
            if ended or time.monotonic() > deadline:
                self._open = [pair for pair in self._open if pair not in ended]
                return [self._outcome(job, order) for job, order in ended]
            time.sleep(min(1.0, timeout_s))
        return []

    @staticmethod
    def _outcome(job: Any, order: Order) -> Outcome:
        try:
            outcome: Outcome = job.result()
        except Exception as error:  # submitit raises its own kinds for killed, timed out and crashed jobs
            return Outcome(
                key=order.key, kind="lost", message=f"job {job.job_id} was lost: {str(error).splitlines()[0]}"
            )
        return outcome

    def stop(self) -> None:
        for job, _ in self._open:
            job.cancel()

    def close(self) -> None:
        self.stop()
