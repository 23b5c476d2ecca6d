"""A study runner whose trainings have a closed form, so that tests of the study's machinery take milliseconds.

Every task is a point; tuning a prompt is gradient descent on the squared distance to that point, the score falls with the
distance that is left. It saves checkpoints as the real trainer does, can be slowed down, and logs every step it takes.
"""

import hashlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from softprompt import artifacts
from softprompt.analysis.similarity import similarity_NN
from softprompt.errors import Interrupted, SoftpromptError
from softprompt.study.grid import TARGET_KINDS, DataFacts, Facts, Pack, StudyCell
from softprompt.study.ledger import Ledger
from softprompt.study.making import Tell
from softprompt.study.prompt_cells import settings_of
from softprompt.study.settings import Study

RATE = 0.05


def draw(*words: object, shape: tuple[int, ...] = (4, 8)) -> np.ndarray:
    """Numbers that depend on the words alone."""
    digest = hashlib.sha256("/".join(map(str, words)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little")).normal(size=shape)


def point(task: str) -> np.ndarray:
    """Where a task's best prompt is; tasks with the same first letter are near each other."""
    return draw("family", task[0]) + 0.3 * draw("task", task)


class AnalyticRunner:
    """See the module.

    Args:
        pause: seconds a step takes.
        log: file that gets a line for every step.
        fail: name of a cell that cannot be made.
        backbone: its fingerprint.
        device: ignored.
        parameters: its size.
    """

    def __init__(
        self, pause: float = 0.0, log: str = "", fail: str = "", backbone: str = "analytic", device: str = "",
        parameters: int = 1000,
    ) -> None:  # fmt: skip
        self.pause, self.log, self.fail, self.fingerprint = pause, log, fail, backbone
        self.parameters = parameters

    def facts(self, study: Study) -> Facts:
        data = {
            task: DataFacts(
                train=f"train-{task}", validation=f"val-{task}", train_rows=10 * len(task), validation_rows=8
            )
            for task in study.all_tasks
        }
        return Facts(
            backbone="analytic", fingerprint=self.fingerprint, dtype="float64", data=data, parameters=self.parameters
        )

    def make(
        self,
        study: Study,
        pack: Pack,
        ledger: Ledger,
        folder: Path,
        provenance: Mapping[str, Any],
        tell: Tell | None = None,
    ) -> None:
        if pack.kind == "evaluation":
            for cell in pack.cells:
                kind, key = cell.spec["of"]
                prompt = ledger.tensors(kind, key)["best"].double().numpy()
                ledger.write(cell.kind, cell.key, cell.identity, self._scores(cell, prompt), {}, provenance)
            return
        if self.fail in {cell.name for cell in pack.cells}:
            raise SoftpromptError(f"cell {self.fail} was made to fail.")
        settings = settings_of(study, pack)
        prompts = np.stack([self._start(cell, ledger) for cell in pack.cells])
        goals = np.stack([self._goal(cell) for cell in pack.cells])
        early: np.ndarray | None = None
        first = 0
        state = folder / "state.safetensors"
        if state.exists():
            saved = artifacts.read_tensors(state)
            first, prompts = int(saved["step"]), saved["prompts"].numpy()
            early = saved["early"].numpy() if "early" in saved else None
        for step in range(first + 1, settings.steps + 1):
            time.sleep(self.pause)
            prompts = prompts + RATE * (goals - prompts)
            if self.log:
                with open(self.log, "a") as stream:
                    stream.write(f"{pack.key} {step} {os.getpid()}\n")
            if step == settings.embedding_step:
                early = prompts
            if step % settings.eval_every == 0:
                tensors = {"step": torch.tensor(step), "prompts": torch.from_numpy(prompts)}
                tensors |= {"early": torch.from_numpy(early)} if early is not None else {}
                artifacts.write_tensors(state, tensors)
            if tell is not None:
                tell(step, settings.steps)
            if (Path(ledger.folder) / "stop-now").exists():
                raise Interrupted(f"stopped at step {step}.")
        for i, cell in enumerate(pack.cells):
            self._record(
                cell, pack, prompts[i], None if early is None else early[i], settings.steps, ledger, provenance
            )

    def _record(
        self, cell: StudyCell, pack: Pack, prompt: np.ndarray, early: np.ndarray | None, steps: int, ledger: Ledger,
        provenance: Mapping[str, Any],
    ) -> None:  # fmt: skip
        tensor = None if early is None else {"prompt": torch.from_numpy(early)}
        for child in pack.made:
            if child.made_by == cell.id and child.kind == "embedding" and tensor is not None:
                goal = self._goal(cell)
                at = goal + (self._start(cell, ledger) - goal) * (1 - RATE) ** int(child.spec["step"])
                ledger.write(child.kind, child.key, child.identity, {}, {"prompt": torch.from_numpy(at)}, provenance)
            if child.made_by == cell.id and child.kind == "evaluation":
                ledger.write(child.kind, child.key, child.identity, self._scores(child, prompt), {}, provenance)
        if cell.kind == "embedding":
            ledger.write(cell.kind, cell.key, cell.identity, {}, tensor, provenance)
            return
        result = {"status": "done", "steps": steps, "seconds": 0.5, "tokens": 100 * steps, "eval_tokens": 10 * steps}
        if "target" in cell.spec:
            result["curve"] = [{"step": steps, "loss": 1.0, "score": self._scores(cell, prompt)["halves"][0]}]
        ledger.write(cell.kind, cell.key, cell.identity, result, {"best": torch.from_numpy(prompt)}, provenance)

    def _goal(self, cell: StudyCell) -> np.ndarray:
        if cell.kind in TARGET_KINDS or cell.spec.get("role") == "target":
            return point(str(cell.spec.get("target", cell.spec.get("name"))))
        tasks = [cell.spec["target"]] if cell.kind == "mixture" else cell.spec["tasks"]
        return np.mean([point(task) for task in tasks], axis=0)

    def _start(self, cell: StudyCell, ledger: Ledger) -> np.ndarray:
        if cell.kind in ("transfer", "mixture_transfer"):
            return ledger.tensors(*cell.parents[0])["best"].double().numpy()
        if cell.kind == "weighted_average":
            own = ledger.tensors("embedding", cell.spec["own"])["prompt"].numpy()
            others = [ledger.tensors("embedding", key)["prompt"].numpy() for key in cell.spec["embeddings"]]
            weight = similarity_NN([own, *others], "per_token")[0, 1:]
            top = np.argsort(-weight)[: cell.spec["k"]]
            prompts = [ledger.tensors("source", cell.spec["sources"][i])["best"].numpy() for i in top]
            return np.mean(prompts, axis=0)
        return draw("start", cell.spec["seed"], cell.kind)

    def _scores(self, cell: StudyCell, prompt: np.ndarray) -> dict[str, Any]:
        left = float(((prompt - point(str(cell.spec["target"]))) ** 2).mean())
        score = 100.0 * float(np.exp(-left))
        return {"score": score, "halves": [score - 0.5, score + 0.5], "rows": [4, 4], "predictions": []}
