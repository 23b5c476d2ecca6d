"""Which skills are used: measured on a fixed sample of rows, logged in training, and dead ones revived.

One batch says little about which of K skills are dead, so use is measured on a reference sample of source encodings,
which cost nothing once they are cached. Both the measurement and the revival depend on the present skills, the step and
the run's seed alone: a resumed training repeats them bit for bit.

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
from softprompt.training.stream import keyed_rng


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
                "so every row gets the same prompt (start E with k-means, or turn revival on)"
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


class SkillUpkeep:
    """Measures skill use every so many steps, logs it, and gives dead skills a new place.

    A dead skill is moved to a reference encoding drawn with probability proportional to its squared distance from its
    nearest skill (as k-means++ draws), so that it lands where skills are sparse.

    Args:
        encoding_Sm: raw encodings of the reference rows, [S, m].
        names: of the runs, for the log.
        seeds: of the runs.
        every: steps between measurements, at least 1.
        revive: whether dead skills are moved.
        until: no revival after this step (moved skills need time to settle); None for no end.
        log: takes one record a run and measurement.
    """

    def __init__(
        self,
        encoding_Sm: Tensor,
        *,
        names: Sequence[str],
        seeds: Sequence[int],
        every: int,
        revive: bool = True,
        until: int | None = None,
        log: Log | None = None,
    ) -> None:
        if every < 1:
            raise UsageError(f"skill use is measured every {every} steps; at least 1 is needed.")
        self.encoding_Sm = encoding_Sm
        self.names, self.seeds = tuple(names), tuple(seeds)
        self.every, self.revive, self.until, self.log = every, revive, until, log

    @torch.no_grad()
    def __call__(self, prompts: LatentPrompts, step: int) -> None:
        if step % self.every or not prompts.settings.latent_space:
            return
        reviving = self.revive and "skills" in prompts.tuned and (self.until is None or step <= self.until)
        for run in range(prompts.run_count):
            use = skill_use(prompts, self.encoding_Sm, run)
            revived = self._revive(prompts, run, use, step) if reviving and use.dead else 0
            if self.log is not None:
                self.log({"run": self.names[run], "step": step, **use.plain(), "revived": revived})

    def _revive(self, prompts: LatentPrompts, run: int, use: SkillUse, step: int) -> int:
        own_Sm = prompts.standardise(self.encoding_Sm)
        skills_Km = prompts.effective("skills")[run]
        nearest_S = nearest_skills(own_Sm, skills_Km)[:, 0]
        square_S = (own_Sm - skills_Km[nearest_S]).square().sum(1).to("cpu", torch.float64)
        dead = [k for k, count in enumerate(use.counts) if count == 0]
        places = int((square_S > 0).sum())
        count = min(len(dead), places)
        if not count:
            return 0
        rng = keyed_rng(self.seeds[run], "sharpt-revival", step)
        weight_S = (square_S / square_S.sum()).numpy()
        picked = rng.choice(len(weight_S), size=count, replace=False, p=weight_S / weight_S.sum())
        target = prompts.tensors["skills"].data[run]
        value = own_Sm[torch.from_numpy(picked).to(own_Sm.device)] / prompts.scales.get("skills", 1.0)
        target[torch.tensor(dead[:count], device=target.device)] = value.to(target)
        return count

    def keep(self, runs: Sequence[int]) -> SkillUpkeep:
        """The upkeep of these runs alone."""
        return SkillUpkeep(
            self.encoding_Sm,
            names=[self.names[i] for i in runs],
            seeds=[self.seeds[i] for i in runs],
            every=self.every,
            revive=self.revive,
            until=self.until,
            log=self.log,
        )
