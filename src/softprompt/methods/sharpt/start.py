"""Where a latent space and its generator start, and the scales they are tuned in.

The paper says "randomly initialized" and no more; it states neither K nor the start of E. What is chosen here:

- Encodings are standardised with the sources' mean and spread (``standardise``), so that E lives at unit scale whatever
  the encoder. Euclidean distance does not see the mean; the generator does.
- Skills start as k-means centres of source encodings (``k-means``), as sampled encodings, from a normal
  distribution with the encodings' mean and spread, or from a standard normal one (``random``: nothing of the sources).
- The generator starts so that a generated prompt looks like words (``vocabulary``): with s the root mean square of
  the backbone's word embeddings, z_l = v_l / s for P sampled embeddings v_l, W2 = s I, b1 = b2 = 0, and W1 normal with
  standard deviation GAIN / sqrt(m). Hence p_l = v_l + s tanh(W1 e): a sampled-vocabulary prompt, as SPoT's source
  prompts start, plus a skill's share of about half a word's size. ``linear`` is the literal reading: z standard
  normal, W and b uniform in +-1/sqrt(fan-in), a linear layer's usual start.
- ``balanced`` tunes each tensor of the generator in units in which a step of rate r moves a prompt entry by about r, as
  it does in plain prompt tuning: Adam moves every entry by its rate, and W2 has H of them behind each prompt entry.
  Without it (the literal reading) one step at 0.3 wipes out any start of W1 and W2.
- Skills are tuned in units of their own, whatever the generator's and whatever the rate: a step moves an entry of E by
  ``skill_step`` standard deviations of the encodings (0.03, plain units at a rate of 0.03). A step that is large against
  the distance of an encoding to its skill (about 15 in 384 dimensions) lets the few skills that win jump to the middle
  of the encodings, where they win everything.

Letters: N runs, P prompt tokens, H width, K skills, m encoder width, S encodings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from softprompt.backbones.base import Backbone
from softprompt.errors import UsageError
from softprompt.fields import Count, Positive, Settings
from softprompt.prompts.init import SAMPLED_IDS, InitSettings, initial_prompts
from softprompt.prompts.latent import GENERATOR, InstanceEncoder, LatentPrompts, LatentSettings
from softprompt.training.stream import keyed_rng

SkillInit = Literal["k-means", "sampled", "normal", "random"]
GeneratorInit = Literal["vocabulary", "linear"]
GAIN = 0.5
KMEANS_ROWS = 20_000
KMEANS_ROUNDS = 25


@dataclass(frozen=True, kw_only=True)
class StartSettings(Settings):
    """How a latent space starts.

    Attributes:
        skill_count: K, at least 1; the paper does not state it.
        skill_init: start of E.
        generator_init: start of z, W1, b1, W2, b2.
        standardise: whether encodings are centred and scaled with the sources' mean and spread.
        balanced: whether the generator's tensors are tuned in the units described above.
        skill_step: how far a step moves an entry of E, in standard deviations of (standardised) encodings, > 0.
        task_prompt: whether the generated prompt is added to a tuned prompt of the whole run (a residual).
    """

    skill_count: Count = 64
    skill_init: SkillInit = "k-means"
    generator_init: GeneratorInit = "vocabulary"
    standardise: bool = True
    balanced: bool = True
    skill_step: Positive = 0.03
    task_prompt: bool = False


def start_space(
    backbone: Backbone,
    encoder: InstanceEncoder,
    encoding_Sm: Tensor,
    seeds: Sequence[int],
    *,
    prompt_length: int,
    rate: float = 0.03,
    latent: LatentSettings | None = None,
    start: StartSettings | None = None,
) -> LatentPrompts:
    """A fresh latent space and generator for each seed, all of it tuned, with the codebook loss; on the backbone's device.

    Args:
        backbone: gives the word embeddings.
        encoder: made ``encoding_Sm``.
        encoding_Sm: raw instance encodings of source rows, float [S, m].
        seeds: of the N runs.
        prompt_length: P.
        rate: learning rate that E will be tuned with.
        latent: how skills are used.
        start: how they start.

    Raises:
        UsageError: fewer encodings than skills at a k-means or sampled start.
    """
    latent, start = latent or LatentSettings(), start or StartSettings()
    centre_m, spread = standardisation(encoding_Sm) if start.standardise else (None, 1.0)
    tensors, scales = start_generator(backbone, encoder.width, seeds, prompt_length=prompt_length, start=start)
    if latent.latent_space:
        own_Sm = encoding_Sm.to(torch.float32) if centre_m is None else (encoding_Sm - centre_m) / spread
        scales["skills"] = start.skill_step / rate
        tensors["skills"] = torch.stack([start_skills(own_Sm, start, seed) for seed in seeds]) / scales["skills"]
    return LatentPrompts(
        {name: t.to(backbone.device) for name, t in tensors.items()}, encoder, settings=latent, tuned=tuple(tensors),
        codebook_loss=True, centre_m=centre_m, spread=spread, scales=scales,
    )  # fmt: skip


def standardisation(encoding_Sm: Tensor) -> tuple[Tensor, float]:
    """Mean [m] of the encodings and the root mean square of what remains, over rows and entries."""
    encoding_Sm = encoding_Sm.to(torch.float64)
    centre_m = encoding_Sm.mean(0)
    spread = float((encoding_Sm - centre_m).square().mean().sqrt())
    return centre_m.to(torch.float32), spread if spread > 1e-8 else 1.0


def word_scale(backbone: Backbone) -> float:
    """Root mean square of the embeddings of the first 5,000 ids, the most common tokens."""
    table_VH = backbone.embedding_table()[:SAMPLED_IDS].to(torch.float32)
    return float(table_VH.square().mean().sqrt().clamp(min=1e-6))


def start_generator(
    backbone: Backbone, width: int, seeds: Sequence[int], *, prompt_length: int, start: StartSettings
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Tensors of fresh generators, in the units they are tuned in, and those units.

    Args:
        width: m.

    Returns:
        tensors by name, each float32 [N, ...]; scale by name (tensor as the formula uses it = scale times tensor).
    """
    size = word_scale(backbone)
    hidden = backbone.hidden_size
    vocabulary = start.generator_init == "vocabulary"
    made = [_generator_of(seed, prompt_length, hidden, width, size if vocabulary else None) for seed in seeds]
    tensors = {name: torch.stack([one[name] for one in made]) for name in GENERATOR}
    words_NPH = initial_prompts(backbone, InitSettings(kind="sampled-vocabulary"), prompt_length, seeds)
    if start.task_prompt:
        tensors["task_prompt"] = words_NPH
        tensors["position"] = torch.zeros_like(tensors["position"])
    elif vocabulary:
        tensors["position"] = words_NPH / size
    scales: dict[str, float] = {}
    if start.balanced:
        scales = {
            "position": 1 / size,
            "w1": 1 / (width * size),
            "b1": 1 / size,
            "w2": 1 / hidden,
            "b2": 1.0,
        }
    return {name: t / scales.get(name, 1.0) for name, t in tensors.items()}, scales


def _generator_of(seed: int, length: int, hidden: int, width: int, size: float | None) -> dict[str, Tensor]:
    rng = keyed_rng(seed, "sharpt-generator")

    def uniform(bound: float, *shape: int) -> Tensor:
        return torch.from_numpy(rng.uniform(-bound, bound, shape).astype(np.float32))

    def normal(scale: float, *shape: int) -> Tensor:
        return torch.from_numpy((scale * rng.standard_normal(shape)).astype(np.float32))

    if size is not None:
        return {
            "position": torch.zeros(length, hidden),
            "w1": normal(GAIN / width**0.5, hidden, width),
            "b1": torch.zeros(hidden),
            "w2": size * torch.eye(hidden),
            "b2": torch.zeros(hidden),
        }
    return {
        "position": normal(1.0, length, hidden),
        "w1": uniform(width**-0.5, hidden, width),
        "b1": uniform(width**-0.5, hidden),
        "w2": uniform(hidden**-0.5, hidden, hidden),
        "b2": uniform(hidden**-0.5, hidden),
    }


def start_skills(encoding_Sm: Tensor, start: StartSettings, seed: int) -> Tensor:
    """E as it starts, float32 [K, m].

    Args:
        encoding_Sm: standardised instance encodings, float [S, m].
        start: kind and K.
        seed: of the run.

    Raises:
        UsageError: fewer encodings than K.
    """
    count, rows = start.skill_count, int(encoding_Sm.shape[0])
    rng = keyed_rng(seed, "sharpt-skills")
    encoding_Sm = encoding_Sm.detach().to("cpu", torch.float32)
    if start.skill_init in ("normal", "random"):
        noise = torch.from_numpy(rng.standard_normal((count, encoding_Sm.shape[1])).astype(np.float32))
        return (
            noise if start.skill_init == "random" else encoding_Sm.mean(0) + noise * encoding_Sm.std(0, unbiased=False)
        )
    if rows < count:
        raise UsageError(
            f"{count} skills were asked for with a {start.skill_init} start, which has {rows} source instances to start from; "
            f"lower --skills to at most {rows}, or start them with --space-set skill_init=normal."
        )
    picked = np.sort(rng.permutation(rows)[: max(count, KMEANS_ROWS)])
    sample_Sm = encoding_Sm[torch.from_numpy(picked)]
    if start.skill_init == "sampled":
        return sample_Sm[torch.from_numpy(rng.permutation(len(picked))[:count])].clone()
    return kmeans(sample_Sm, count, rng)


def kmeans(encoding_Sm: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """Centres [K, m] by Lloyd's rounds from a k-means++ start; an empty cluster takes the row farthest from its centre."""
    centre_Km = _spread_out(encoding_Sm, count, rng)
    for _ in range(KMEANS_ROUNDS):
        distance_SK = torch.cdist(encoding_Sm, centre_Km)
        nearest_S = distance_SK.argmin(1)
        counts_K = torch.bincount(nearest_S, minlength=count)
        sums_Km = torch.zeros_like(centre_Km).index_add_(0, nearest_S, encoding_Sm)
        new_Km = sums_Km / counts_K.clamp(min=1)[:, None]
        empty = (counts_K == 0).nonzero()[:, 0]
        if len(empty):
            far = distance_SK.min(1).values.argsort(descending=True, stable=True)[: len(empty)]
            new_Km[empty] = encoding_Sm[far]
        if torch.equal(new_Km, centre_Km):
            break
        centre_Km = new_Km
    return centre_Km


def _spread_out(encoding_Sm: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """k-means++: each next row is drawn with probability proportional to its squared distance from those chosen."""
    chosen = [int(rng.integers(len(encoding_Sm)))]
    square_S = (encoding_Sm - encoding_Sm[chosen[0]]).square().sum(1).double()
    for _ in range(count - 1):
        weight_S = square_S.numpy() / max(float(square_S.sum()), 1e-300)
        total = float(weight_S.sum())
        pick = int(rng.choice(len(weight_S), p=weight_S / total)) if total > 0 else int(rng.integers(len(weight_S)))
        chosen.append(pick)
        square_S = torch.minimum(square_S, (encoding_Sm - encoding_Sm[pick]).square().sum(1).double())
    return encoding_Sm[chosen].clone()
