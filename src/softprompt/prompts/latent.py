"""Prompts generated from a shared latent space of skill vectors (SharPT, section 2).

A row's text is encoded by a frozen instance encoder, the encoding picks its nearest skill vector (Eq. 2), and a small
generator turns the skill into P prompt tokens (Eq. 1): p_l = W2 (z_l + tanh(W1 e + b1)) + b2.

Letters: B rows, P prompt tokens, H backbone width, N runs, U unique prompts, K skills, m encoder width.
Rows of one run with the same skill share one generated prompt, so U is at most K a run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from softprompt.batch import PromptBatch, Rows
from softprompt.errors import DataError, UsageError
from softprompt.fields import Amount, Count, Positive, Settings
from softprompt.prompts.prompter import Prompter

GENERATOR = ("position", "w1", "b1", "w2", "b2")
"""Names of the generator's tensors: z [N, P, H], W1 [N, H, m], b1 [N, H], W2 [N, H, H], b2 [N, H]."""

COLLAPSED_PERPLEXITY = 1.05
"""Below it all but a few in a hundred rows share one skill."""


class InstanceEncoder(Protocol):
    """What turns a text into its instance encoding; frozen.

    Attributes:
        name: what a user would ask for to get it again.
        width: m.
        fingerprint: hex digest of its weights, tokenizer and pooling.
    """

    name: str
    width: int
    fingerprint: str

    def encode(self, texts: Sequence[str]) -> Tensor:
        """float32 [B, m], one row a text, no gradient."""

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens it reads of each text: what an encoding costs."""


class Watch(Protocol):
    """What looks at the skills after an optimiser step: their use, measured and logged."""

    def __call__(self, prompts: LatentPrompts, step: int) -> None:
        """``step`` is the number of optimiser steps done."""

    def keep(self, runs: Sequence[int]) -> Watch:
        """The watch over these runs alone."""


@dataclass(frozen=True, kw_only=True)
class LatentSettings(Settings):
    """How skills are chosen and used. The defaults are the paper's choices where it states one.

    Attributes:
        latent_space: False is the paper's "no latent space" ablation: the encoding feeds the generator directly.
        top_n: skills mixed for a row, 1..K; 1 is the paper's nearest neighbour.
        temperature: the mixture's weights are softmax(-distance / temperature) over the top_n; only for top_n > 1, > 0.
        skill_gradient: whether the cross-entropy reaches the skill vectors (paper: yes, Eq. 5).
        codebook_weight: weight of ||sg(e0) - e_k|| (paper: 1), >= 0.
    """

    latent_space: bool = True
    top_n: Count = 1
    temperature: Positive = 1.0
    skill_gradient: bool = True
    codebook_weight: Amount = 1.0


@dataclass(frozen=True, kw_only=True)
class PreparedRows:
    """Rows with their instance encodings.

    Attributes:
        run_B: int64 [B].
        encoding_Bm: [B, m] in the dtype of the skills, standardised as the space says.
    """

    run_B: Tensor
    encoding_Bm: Tensor


def without_name(text: str, task_names: Sequence[str]) -> str:
    """A text as an instance encoder reads it: without the task's name where that stands first.

    With the name in front, encodings fall apart by task and a skill becomes a task's identity; without it rows of
    different tasks can share a skill. A text that is nothing but a name stays.

    >>> without_name("cr sentence: the battery lasts", ["cr"])
    'sentence: the battery lasts'
    >>> without_name("wsc: Mark told *him*", ["wsc"])
    'Mark told *him*'
    >>> without_name("record sales this year", ["cr"])
    'record sales this year'
    """
    first, _, rest = text.partition(" ")
    return rest if rest.strip() and first.removesuffix(":") in task_names else text


def nearest_skills(encoding_Bm: Tensor, skills_Km: Tensor, top_n: int = 1) -> Tensor:
    """The ``top_n`` nearest skills of each encoding by Euclidean distance (Eq. 2).

    Distances are summed differences, not the matrix-product form, so that a row's choice does not hang on its
    neighbours and equal skills tie exactly; ties go to the lowest index.

    Args:
        encoding_Bm: float [B, m].
        skills_Km: float [K, m].

    Returns:
        int64 [B, top_n], nearest first.
    """
    with torch.no_grad():
        distance_BK = torch.cdist(encoding_Bm, skills_Km, compute_mode="donot_use_mm_for_euclid_dist")
        if top_n == 1:
            return distance_BK.argmin(dim=1, keepdim=True)
        return torch.sort(distance_BK, dim=1, stable=True).indices[:, :top_n]


class LatentPrompts(Prompter):
    """N runs, each with its own latent space and prompt generator; the encoder and the backbone are shared and frozen.

    Args:
        tensors: ``"skills"`` [N, K, m] (absent without a latent space), those named in ``GENERATOR``, and optionally
            ``"task_prompt"`` [N, P, H], a prompt the generated one is added to. Copied. All of one floating dtype.
        encoder: the instance encoder.
        settings: how skills are chosen and used.
        tuned: names of the tensors that are tuned. Source training tunes all, target training the generator alone.
        codebook_loss: whether rows carry ||sg(e0) - e_k|| (source training) or not (target training, Eq. 3).
        centre_m: float [m], subtracted from encodings; zeros where not given.
        spread: what centred encodings are divided by, > 0.
        scales: the tensor a formula uses is ``scales[name] * tensors[name]`` (1 where not given). A scale changes no
            function that can be reached, only how far one optimiser step of a given rate moves it.
        keys: identity of each run, for caches and answers.
        task_names: words that name a task: where one stands first in a text, what follows it is encoded.
        watch: called after each optimiser step.

    Raises:
        UsageError: shapes that do not fit together, or an encoder of another width than the skills.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        encoder: InstanceEncoder,
        *,
        settings: LatentSettings | None = None,
        tuned: Sequence[str] = (),
        codebook_loss: bool = False,
        centre_m: Tensor | None = None,
        spread: float = 1.0,
        scales: Mapping[str, float] | None = None,
        keys: Sequence[str | None] | None = None,
        task_names: Sequence[str] = (),
        watch: Watch | None = None,
    ) -> None:
        self.watch = watch
        self.task_names = tuple(sorted(set(task_names)))
        self.settings = settings or LatentSettings()
        self.encoder = encoder
        self.codebook_loss = codebook_loss and self.settings.latent_space
        self.tensors = {name: t.detach().clone() for name, t in tensors.items()}
        self.tuned = tuple(tuned)
        for name in self.tuned:
            self.tensors[name].requires_grad_(True)
        width = int(self.tensors["w1"].shape[2])
        like = self.tensors["w1"]
        self.centre_m = torch.zeros(width).to(like) if centre_m is None else centre_m.detach().to(like, copy=True)
        self.spread = float(spread)
        self.scales = dict(scales or {})
        self.keys = tuple(keys) if keys is not None else (None,) * int(like.shape[0])
        self._check(width)

    def _check(self, width: int) -> None:
        count, length, hidden = (int(s) for s in self.tensors["position"].shape)
        expected = {
            "w1": (count, hidden, width),
            "b1": (count, hidden),
            "w2": (count, hidden, hidden),
            "b2": (count, hidden),
        }
        if "task_prompt" in self.tensors:
            expected["task_prompt"] = (count, length, hidden)
        for name, shape in expected.items():
            if tuple(self.tensors[name].shape) != shape:
                raise UsageError(
                    f"generator tensor {name!r} should be {shape}, found {tuple(self.tensors[name].shape)}."
                )
        if self.settings.latent_space:
            if "skills" not in self.tensors:
                raise UsageError("a latent space needs the tensor 'skills'; found none.")
            shape = tuple(self.tensors["skills"].shape)
            if len(shape) != 3 or shape[0] != count or shape[2] != width:
                raise UsageError(f"skills should be ({count}, K, {width}) to fit the generator, found {shape}.")
            if self.settings.top_n > shape[1]:
                raise UsageError(f"top_n {self.settings.top_n} is more than the {shape[1]} skills; lower it.")
        if self.encoder.width != width:
            raise UsageError(
                f"instance encoder {self.encoder.name!r} has width {self.encoder.width}, the latent space has width "
                f"{width}; use the encoder the space was trained with."
            )

    @property
    def run_count(self) -> int:
        return int(self.tensors["position"].shape[0])

    @property
    def prompt_length(self) -> int:
        return int(self.tensors["position"].shape[1])

    @property
    def skill_count(self) -> int:
        """K; 0 without a latent space."""
        return int(self.tensors["skills"].shape[1]) if self.settings.latent_space else 0

    def trained(self) -> dict[str, Tensor]:
        """The tuned tensors, each [N, ...]."""
        return {name: self.tensors[name] for name in self.tuned}

    def buffers(self) -> dict[str, Tensor]:
        """The frozen ones, each [N, ...]: skills while a target is tuned."""
        return {name: t for name, t in self.tensors.items() if name not in self.tuned}

    def after_step(self, step: int) -> None:
        if self.watch is not None:
            with torch.no_grad():
                self.watch(self, step)

    def effective(self, name: str) -> Tensor:
        """A tensor as the formulas use it, [N, ...]: scaled."""
        return self._scaled(name, self.tensors[name])

    def _scaled(self, name: str, value: Tensor) -> Tensor:
        """``value``, a tensor or a product linear in it, times the tensor's scale."""
        scale = self.scales.get(name, 1.0)
        return value if scale == 1.0 else value * scale

    def standardise(self, encoding_Bm: Tensor) -> Tensor:
        """Raw encodings [B, m] as they are compared with skills."""
        return (encoding_Bm.to(self.centre_m) - self.centre_m) / self.spread

    def prepare(self, rows: Rows) -> PreparedRows:
        """Instance encodings of the rows (no gradient).

        Raises:
            UsageError: rows without texts.
            DataError: a text whose encoding is not finite.
        """
        if len(rows.inputs) != len(rows.run_B):
            raise UsageError(
                f"SharPT needs the input text of each of {len(rows.run_B)} rows, found {len(rows.inputs)}; pass Rows.inputs."
            )
        with torch.no_grad():
            raw_Bm = self.encoder.encode([without_name(text, self.task_names) for text in rows.inputs])
        if tuple(raw_Bm.shape) != (len(rows.inputs), self.encoder.width):
            raise UsageError(
                f"instance encoder {self.encoder.name!r} gave {tuple(raw_Bm.shape)} for {len(rows.inputs)} texts of width "
                f"{self.encoder.width}; use another encoder."
            )
        check_finite(raw_Bm, rows.inputs, rows.keys, self.encoder.name)
        encoding_Bm = self.standardise(raw_Bm)
        return PreparedRows(run_B=rows.run_B.to(encoding_Bm.device), encoding_Bm=encoding_Bm)

    def skills_of(self, prepared: PreparedRows) -> Tensor:
        """int64 [B, top_n], the skills each row uses, nearest first (Eq. 2)."""
        skills_NKm = self.effective("skills").detach()
        chosen_Bn = torch.empty(
            len(prepared.run_B), self.settings.top_n, dtype=torch.int64, device=prepared.encoding_Bm.device
        )
        for run in sorted(set(prepared.run_B.tolist())):
            of_run = prepared.run_B == run
            chosen_Bn[of_run] = nearest_skills(prepared.encoding_Bm[of_run], skills_NKm[run], self.settings.top_n)
        return chosen_Bn

    def __call__(self, prepared: PreparedRows) -> PromptBatch:
        if not self.settings.latent_space:
            every_B = torch.arange(len(prepared.run_B), device=prepared.run_B.device)
            return self._batch(prepared.run_B, prepared.encoding_Bm, every_B, (None,) * len(every_B), None, {})
        chosen_Bn = self.skills_of(prepared)
        info = self._use(prepared.run_B, chosen_Bn[:, 0])
        if self.settings.top_n > 1:
            mixed_Bm = self._mix(prepared, chosen_Bn)
            every_B = torch.arange(len(chosen_Bn), device=chosen_Bn.device)
            aux_B = self._codebook(prepared.encoding_Bm, mixed_Bm)
            return self._batch(prepared.run_B, mixed_Bm, every_B, (None,) * len(every_B), aux_B, info)
        code_B = prepared.run_B * self.skill_count + chosen_Bn[:, 0]
        code_U, which_B = torch.unique(code_B, return_inverse=True)
        run_U, skill_U = code_U // self.skill_count, code_U % self.skill_count
        skill_Um = self.effective("skills")[run_U, skill_U]
        aux_B = self._codebook(prepared.encoding_Bm, skill_Um[which_B])
        keys = tuple(self._key(r, k) for r, k in zip(run_U.tolist(), skill_U.tolist(), strict=True))
        return self._batch(run_U, skill_Um, which_B, keys, aux_B, info)

    def _key(self, run: int, skill: int) -> str | None:
        return None if self.keys[run] is None else f"{self.keys[run]}/skill-{skill}"

    def _mix(self, prepared: PreparedRows, chosen_Bn: Tensor) -> Tensor:
        """[B, m], the weighted mean of each row's top_n skills; differentiable in skills and weights."""
        skill_Bnm = self.effective("skills")[prepared.run_B[:, None], chosen_Bn]
        distance_Bn = torch.linalg.vector_norm(prepared.encoding_Bm[:, None] - skill_Bnm, dim=2)
        weight_Bn = torch.softmax(-distance_Bn / self.settings.temperature, dim=1)
        return torch.einsum("bn,bnm->bm", weight_Bn, skill_Bnm)

    def _codebook(self, encoding_Bm: Tensor, skill_Bm: Tensor) -> Tensor | None:
        """||sg(e0) - e_k||, a norm and not its square (Eq. 4), [B]; None on targets."""
        if not self.codebook_loss:
            return None
        norm_B: Tensor = torch.linalg.vector_norm(encoding_Bm.detach() - skill_Bm, dim=1)
        return self.settings.codebook_weight * norm_B

    def _batch(
        self,
        run_U: Tensor,
        skill_Um: Tensor,
        which_B: Tensor,
        keys: tuple[str | None, ...],
        aux_B: Tensor | None,
        info: Mapping[str, object],
    ) -> PromptBatch:
        if self.settings.latent_space and not self.settings.skill_gradient:
            skill_Um = skill_Um.detach()
        unique_UPH = self.generate(run_U, skill_Um)
        return PromptBatch(
            unique_UPH=unique_UPH,
            which_B=which_B,
            length_U=(self.prompt_length,) * len(keys),
            key_U=keys,
            aux_loss_B=aux_B,
            info=info,
        )

    def generate(self, run_U: Tensor, skill_Um: Tensor) -> Tensor:
        """Prompts of skill vectors (Eq. 1).

        W2 (z_l + e') is computed as W2 z_l + W2 e': P + U products a run in place of P times U.

        Args:
            run_U: int64 [U].
            skill_Um: [U, m].

        Returns:
            [U, P, H], differentiable.
        """
        # unbind, not indexing: its backward stacks once, where N selections would each fill a tensor of N.
        tensors = {name: self.tensors[name].unbind(0) for name in (*GENERATOR, "task_prompt") if name in self.tensors}
        made: list[Tensor] = []
        places: list[Tensor] = []
        for run in sorted(set(run_U.tolist())):
            index_u = (run_U == run).nonzero()[:, 0]
            own = {name: per_run[run] for name, per_run in tensors.items()}
            made.append(self._generate_run(own, skill_Um[index_u]))
            places.append(index_u)
        if len(made) == 1:
            return made[0]
        return torch.cat(made)[torch.argsort(torch.cat(places))]

    def _generate_run(self, own: Mapping[str, Tensor], skill_um: Tensor) -> Tensor:
        """[u, P, H] of one run's tensors and skills [u, m]."""
        hidden_uH = torch.tanh(self._scaled("w1", skill_um @ own["w1"].T) + self._scaled("b1", own["b1"]))
        shared_PH = self._scaled("w2", self._scaled("position", own["position"]) @ own["w2"].T)
        shared_PH = shared_PH + self._scaled("b2", own["b2"])
        if "task_prompt" in own:
            shared_PH = shared_PH + self._scaled("task_prompt", own["task_prompt"])
        return self._scaled("w2", hidden_uH @ own["w2"].T)[:, None] + shared_PH

    def _use(self, run_B: Tensor, skill_B: Tensor) -> dict[str, object]:
        """Skill use of this batch by run, to log: rows of one batch say little of dead skills, see ``sharpt.use``."""
        counts_NK = torch.zeros(self.run_count, self.skill_count, device=skill_B.device)
        counts_NK.index_put_((run_B, skill_B), torch.ones_like(skill_B, dtype=torch.float32), accumulate=True)
        perplexity = skill_perplexity(counts_NK).tolist()
        rows = counts_NK.sum(dim=1).tolist()
        return {
            "skills_used": (counts_NK > 0).sum(dim=1).tolist(),
            "skill_perplexity": perplexity,
            "collapsed": [r > 1 and p < COLLAPSED_PERPLEXITY for p, r in zip(perplexity, rows, strict=True)],
        }

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Overwrites tensors by name, in place, e.g. with a checkpoint's. Shapes must be those of this prompter."""
        with torch.no_grad():
            for name, value in values.items():
                self.tensors[name].copy_(value)

    def keep(self, runs: Sequence[int]) -> LatentPrompts:
        index = torch.tensor(list(runs), device=self.tensors["w1"].device)
        return LatentPrompts(
            {name: t.detach()[index] for name, t in self.tensors.items()},
            self.encoder,
            settings=self.settings,
            tuned=self.tuned,
            codebook_loss=self.codebook_loss,
            centre_m=self.centre_m,
            spread=self.spread,
            scales=self.scales,
            keys=[self.keys[i] for i in runs],
            task_names=self.task_names,
            watch=None if self.watch is None else self.watch.keep(runs),
        )


def skill_perplexity(counts_NK: Tensor) -> Tensor:
    """exp of the entropy of skill use, float [N], 1 (one skill takes all rows) to K (all alike); 0 for no rows."""
    total_N1 = counts_NK.sum(dim=1, keepdim=True)
    share_NK = counts_NK / total_N1.clamp(min=1)
    entropy_N = -(share_NK * torch.log(share_NK.clamp(min=1e-30))).sum(dim=1)
    return torch.where(total_N1[:, 0] > 0, torch.exp(entropy_N), torch.zeros_like(entropy_N))


def check_finite(encoding_Bm: Tensor, texts: Sequence[str], keys: Sequence[str], encoder: str) -> None:
    """Refuses encodings with NaN or infinity, naming the first such row.

    Raises:
        DataError: naming the example, or its text where it has no key.
    """
    bad = (~torch.isfinite(encoding_Bm).all(dim=1)).nonzero()[:, 0].tolist()
    if bad:
        what = repr(keys[bad[0]]) if len(keys) > bad[0] and keys[bad[0]] else f"text {texts[bad[0]][:60]!r}"
        raise DataError(
            f"instance encoder {encoder!r} gave NaN or infinity for {what} ({len(bad)} of {len(texts)} rows); "
            f"remove the row or use another encoder."
        )
