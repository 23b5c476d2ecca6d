"""Which skills are used: measured on a fixed sample of rows and logged in training.

One batch says little about which of K skills are dead, so use is measured on a reference sample of source encodings,
which cost nothing once they are cached. Nothing moves a dead skill: with a k-means start and skills tuned in plain
units there are next to none (docs/sharpt.md).

Letters: N runs, K skills, S reference rows, m encoder width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from softprompt.errors import UsageError
from softprompt.prompts.latent import COLLAPSED_PERPLEXITY, LatentPrompts, nearest_skills, skill_perplexity


@dataclass(frozen=True, kw_only=True)
class SkillUse:
    """How a run's rows are spread over its skills.

    Attributes:
        counts: rows of each skill, K ints.
        perplexity: exp of the entropy of use, 1..K.
        dead: skills no row chose.
        distance: mean Euclidean distance of a row to its skill, in standardised units.
    """

    counts: tuple[int, ...]
    perplexity: float
    dead: int
    distance: float

    @property
    def collapsed(self) -> bool:
        """Whether (nearly) all rows share one of several skills."""
        return len(self.counts) > 1 and self.perplexity < COLLAPSED_PERPLEXITY

    def sentence(self) -> str:
        """In words, for a log or a report."""
        used = len(self.counts) - self.dead
        text = f"{used} of {len(self.counts)} skills used, perplexity {self.perplexity:.1f}, {self.dead} dead"
        if self.collapsed:
            skill = max(range(len(self.counts)), key=self.counts.__getitem__)
            text += (
                f"; collapsed: skill {skill} takes {100 * self.counts[skill] / max(1, sum(self.counts)):.0f} % of the rows, "
                "so every row gets the same prompt (start E with k-means, or lower the learning rate)"
            )
        return text

    def plain(self) -> dict[str, Any]:
        """For a JSON line."""
        return {
            "used": len(self.counts) - self.dead,
            "dead": self.dead,
            "perplexity": round(self.perplexity, 4),
            "distance": round(self.distance, 6),
            "collapsed": self.collapsed,
        }


@torch.no_grad()
def skill_use(prompts: LatentPrompts, encoding_Sm: Tensor, run: int = 0) -> SkillUse:
    """Use of one run's skills over some rows.

    Args:
        prompts: with a latent space.
        encoding_Sm: raw instance encodings, [S, m].
        run: which run.

    Raises:
        UsageError: there is no latent space.
    """
    if not prompts.settings.latent_space:
        raise UsageError("skill use was asked of a generator without a latent space; there are no skills to count.")
    own_Sm = prompts.standardise(encoding_Sm)
    skills_Km = prompts.effective("skills")[run].detach()
    chosen_S = nearest_skills(own_Sm, skills_Km)[:, 0]
    counts_K = torch.bincount(chosen_S, minlength=prompts.skill_count)
    distance = torch.linalg.vector_norm(own_Sm - skills_Km[chosen_S], dim=1).mean()
    return SkillUse(
        counts=tuple(int(c) for c in counts_K.tolist()),
        perplexity=float(skill_perplexity(counts_K[None].to(torch.float64))[0]),
        dead=int((counts_K == 0).sum()),
        distance=float(distance),
    )


Log = Callable[[dict[str, Any]], None]


class SkillWatch:
    """Measures skill use every so many steps and after the last one, and logs it.

    Args:
        encoding_Sm: raw encodings of the reference rows, [S, m].
        names: of the runs, for the log.
        every: steps between measurements, at least 1.
        last: the last step, which is measured whatever ``every`` says.
        log: takes one record a run and measurement.
    """

    def __init__(self, encoding_Sm: Tensor, *, names: Sequence[str], every: int, last: int, log: Log) -> None:
        if every < 1:
            raise UsageError(f"skill use is measured every {every} steps; at least 1 is needed.")
        self.encoding_Sm, self.names, self.every, self.last, self.log = encoding_Sm, tuple(names), every, last, log

    def __call__(self, prompts: LatentPrompts, step: int) -> None:
        """Logs one record a run at multiples of ``every`` and at the last step."""
        if step % self.every and step != self.last:
            return
        for record in self.measured(prompts, step):
            self.log(record)

    def measured(self, prompts: LatentPrompts, step: int) -> list[dict[str, Any]]:
        """One record a run; none without a latent space."""
        if not prompts.settings.latent_space:
            return []
        uses = [skill_use(prompts, self.encoding_Sm, run).plain() for run in range(prompts.run_count)]
        return [{"run": name, "step": step, **use} for name, use in zip(self.names, uses, strict=True)]

    def keep(self, runs: Sequence[int]) -> SkillWatch:
        """The watch over these runs alone."""
        names = [self.names[i] for i in runs]
        return SkillWatch(self.encoding_Sm, names=names, every=self.every, last=self.last, log=self.log)
