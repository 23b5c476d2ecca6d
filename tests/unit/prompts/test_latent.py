"""SharPT's latent space against a straight float64 computation of Eq. 1-5 and against finite differences."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from softprompt.batch import PromptBatch, Rows
from softprompt.errors import DataError, UsageError
from softprompt.prompts.latent import (
    GENERATOR,
    LatentPrompts,
    LatentSettings,
    nearest_skills,
    skill_perplexity,
)

N, K, M, P, H = 2, 5, 3, 4, 6


class TableEncoder:
    """Encodes the text "i" as row i of a table."""

    name = "table"
    fingerprint = "f" * 64

    def __init__(self, table: Tensor) -> None:
        self.table = table
        self.width = int(table.shape[1])

    def encode(self, texts: Sequence[str]) -> Tensor:
        return self.table[[int(t) for t in texts]]


def random_tensors(seed: int = 0, n: int = N, k: int = K) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    return {
        "skills": normal(n, k, M),
        "position": normal(n, P, H),
        "w1": normal(n, H, M),
        "b1": normal(n, H),
        "w2": normal(n, H, H),
        "b2": normal(n, H),
    }


TABLE = torch.randn(12, M, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
ALL = ("skills", *GENERATOR)


def rows(runs: Sequence[int], texts: Sequence[int]) -> Rows:
    return Rows(run_B=torch.tensor(list(runs)), inputs=[str(t) for t in texts], keys=[f"t/train/{t}" for t in texts])


def straight(tensors: dict[str, Tensor], run: int, e0: Tensor) -> tuple[int, Tensor, Tensor]:
    """Eq. 2, Eq. 1 token by token, Eq. 4: skill number, prompt [P, H], codebook loss."""
    distances = [(e0 - e).square().sum().sqrt().item() for e in tensors["skills"][run]]
    k = distances.index(min(distances))
    e = tensors["skills"][run][k]
    h = torch.tanh(tensors["w1"][run] @ e + tensors["b1"][run])
    prompt = torch.stack([tensors["w2"][run] @ (z + h) + tensors["b2"][run] for z in tensors["position"][run]])
    return k, prompt, (e0 - e).square().sum().sqrt()


def prompt_of_rows(batch: PromptBatch) -> Tensor:
    return batch.unique_UPH[batch.which_B]


def total_loss(batch: PromptBatch, weight: Tensor) -> Tensor:
    """A smooth stand-in for the cross-entropy, plus the codebook loss."""
    loss = (torch.tanh(prompt_of_rows(batch)) * weight).sum()
    return loss if batch.aux_loss_B is None else loss + batch.aux_loss_B.sum()


def test_matches_the_straight_computation() -> None:
    tensors = random_tensors()
    prompts = LatentPrompts(tensors, TableEncoder(TABLE), codebook_loss=True)
    runs, texts = [0, 1, 0, 1, 1, 0], [0, 1, 2, 3, 4, 2]
    batch = prompts.prompts(rows(runs, texts))
    assert batch.aux_loss_B is not None
    for b, (run, text) in enumerate(zip(runs, texts, strict=True)):
        _, expected, aux = straight(tensors, run, TABLE[text])
        torch.testing.assert_close(prompt_of_rows(batch)[b], expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(batch.aux_loss_B[b], aux, rtol=1e-12, atol=1e-12)
    used = {(run, straight(tensors, run, TABLE[text])[0]) for run, text in zip(runs, texts, strict=True)}
    assert batch.unique_UPH.shape == (len(used), P, H)


def test_a_row_never_depends_on_its_neighbours() -> None:
    prompts = LatentPrompts(random_tensors(), TableEncoder(TABLE), codebook_loss=True)
    together = prompts.prompts(rows([0, 1] * 6, range(12)))
    for b in range(12):
        alone = prompts.prompts(rows([b % 2], [b]))
        torch.testing.assert_close(prompt_of_rows(alone)[0], prompt_of_rows(together)[b], rtol=1e-12, atol=1e-12)
        assert alone.aux_loss_B is not None
        assert together.aux_loss_B is not None
        assert alone.aux_loss_B[0] == together.aux_loss_B[b]


@pytest.mark.parametrize(
    "settings",
    [
        LatentSettings(),
        LatentSettings(top_n=3, temperature=0.7),
        LatentSettings(codebook_weight=0.25),
        LatentSettings(latent_space=False),
    ],
    ids=["paper", "top-n", "weighted", "no-space"],
)
@pytest.mark.parametrize("scaled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_gradients_match_finite_differences(settings: LatentSettings, scaled: bool) -> None:
    tensors = random_tensors(3)
    if not settings.latent_space:
        del tensors["skills"]
    names = tuple(n for n in ALL if n in tensors)
    scales = dict(zip(ALL, (0.5, 2.0, 0.3, 1.5, 0.7, 0.9), strict=True)) if scaled else {}
    prompts = LatentPrompts(
        tensors,
        TableEncoder(TABLE),
        settings=settings,
        tuned=names,
        codebook_loss=True,
        scales=scales,
        centre_m=TABLE.mean(0),
        spread=1.3,
    )
    some = rows([0, 1, 0, 1, 1], [0, 1, 2, 3, 4])
    weight = torch.randn(5, P, H, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    total_loss(prompts.prompts(some), weight).backward()
    step = 1e-6
    for name in names:
        tensor = prompts.tensors[name]
        assert tensor.grad is not None
        numeric = torch.zeros_like(tensor)
        with torch.no_grad():
            flat = tensor.view(-1)
            for i in range(flat.numel()):
                kept = flat[i].item()
                flat[i] = kept + step
                up = total_loss(prompts.prompts(some), weight)
                flat[i] = kept - step
                down = total_loss(prompts.prompts(some), weight)
                flat[i] = kept
                numeric.view(-1)[i] = (up - down) / (2 * step)
        torch.testing.assert_close(tensor.grad, numeric, rtol=1e-6, atol=1e-7)
        assert numeric.abs().max() > 0, name


def test_the_skills_get_both_gradients_or_one() -> None:
    """Cross-entropy and codebook loss both reach E (Eq. 5); the switch takes the first away and leaves the second."""
    tensors = random_tensors(4)
    some = rows([0, 0, 1], [0, 1, 2])
    weight = torch.ones(3, P, H, dtype=torch.float64)

    def gradient(settings: LatentSettings, codebook: bool) -> Tensor:
        prompts = LatentPrompts(tensors, TableEncoder(TABLE), settings=settings, tuned=ALL, codebook_loss=codebook)
        total_loss(prompts.prompts(some), weight).backward()
        found = prompts.tensors["skills"].grad
        return torch.zeros_like(tensors["skills"]) if found is None else found

    both = gradient(LatentSettings(), True)
    entropy = gradient(LatentSettings(), False)
    codebook = gradient(LatentSettings(skill_gradient=False), True)
    none = gradient(LatentSettings(skill_gradient=False), False)
    torch.testing.assert_close(both, entropy + codebook)
    assert entropy.abs().max() > 0
    assert codebook.abs().max() > 0
    assert none.abs().max() == 0


def test_no_gradient_reaches_the_encoder() -> None:
    table = TABLE.clone().requires_grad_(True)
    for settings in (LatentSettings(), LatentSettings(top_n=2), LatentSettings(latent_space=False)):
        prompts = LatentPrompts(
            random_tensors(), TableEncoder(table), settings=settings, tuned=GENERATOR, codebook_loss=True
        )
        total_loss(prompts.prompts(rows([0, 1], [0, 1])), torch.ones(2, P, H, dtype=torch.float64)).backward()
    assert table.grad is None


def test_targets_tune_the_generator_alone() -> None:
    prompts = LatentPrompts(random_tensors(), TableEncoder(TABLE), tuned=GENERATOR)
    batch = prompts.prompts(rows([0, 1], [0, 1]))
    assert batch.aux_loss_B is None
    batch.unique_UPH.sum().backward()
    assert set(prompts.trained()) == set(GENERATOR)
    assert set(prompts.buffers()) == {"skills"}
    assert prompts.tensors["skills"].grad is None


def test_ties_go_to_the_lowest_skill() -> None:
    skills = torch.tensor([[9.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    at = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 5.0]])
    assert nearest_skills(at, skills)[:, 0].tolist() == [1, 1, 1]
    assert nearest_skills(at, skills, 3).tolist() == [[1, 2, 3], [1, 3, 2], [1, 2, 3]]


def test_one_skill_serves_all() -> None:
    prompts = LatentPrompts(random_tensors(k=1), TableEncoder(TABLE))
    batch = prompts.prompts(rows([0] * 5 + [1] * 5, range(10)))
    assert batch.unique_UPH.shape[0] == 2
    assert batch.info["skills_used"] == [1, 1]
    assert batch.info["skill_perplexity"] == [1.0, 1.0]
    assert batch.info["collapsed"] == [True, True]


def test_a_residual_is_added_to_the_task_prompt() -> None:
    tensors = random_tensors()
    task = torch.randn(N, P, H, dtype=torch.float64)
    plain = LatentPrompts(tensors, TableEncoder(TABLE)).prompts(rows([0, 1], [3, 4]))
    residual = LatentPrompts({**tensors, "task_prompt": task}, TableEncoder(TABLE)).prompts(rows([0, 1], [3, 4]))
    torch.testing.assert_close(prompt_of_rows(residual), prompt_of_rows(plain) + task)


def test_no_latent_space_feeds_the_encoding_to_the_generator() -> None:
    tensors = random_tensors()
    prompts = LatentPrompts(
        {k: v for k, v in tensors.items() if k != "skills"},
        TableEncoder(TABLE),
        settings=LatentSettings(latent_space=False),
    )
    batch = prompts.prompts(rows([0, 0], [3, 3]))
    h = torch.tanh(tensors["w1"][0] @ TABLE[3] + tensors["b1"][0])
    expected = (tensors["position"][0] + h) @ tensors["w2"][0].T + tensors["b2"][0]
    assert batch.unique_UPH.shape[0] == 2
    torch.testing.assert_close(prompt_of_rows(batch)[1], expected)


def test_keep_gives_the_same_prompts_and_shares_nothing() -> None:
    prompts = LatentPrompts(random_tensors(), TableEncoder(TABLE), tuned=GENERATOR, keys=("a", "b"), scales={"w2": 0.5})
    kept = prompts.keep([1])
    before = prompts.prompts(rows([1], [5]))
    after = kept.prompts(rows([0], [5]))
    torch.testing.assert_close(prompt_of_rows(after), prompt_of_rows(before))
    assert after.key_U == before.key_U
    assert str(after.key_U[0]).startswith("b/skill-")
    kept.load({name: torch.zeros_like(t) for name, t in kept.tensors.items()})
    assert prompts.tensors["w2"].abs().max() > 0


def test_perplexity() -> None:
    counts = torch.tensor([[4.0, 4.0, 0.0], [8.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(skill_perplexity(counts), torch.tensor([2.0, 1.0, 0.0]))


def test_bad_input_is_one_sentence() -> None:
    tensors = random_tensors()
    with pytest.raises(UsageError, match="width 4, the latent space has width 3"):
        LatentPrompts(tensors, TableEncoder(torch.zeros(2, 4)))
    with pytest.raises(UsageError, match="skills should be"):
        LatentPrompts({**tensors, "skills": torch.zeros(N, K, 9)}, TableEncoder(TABLE))
    with pytest.raises(UsageError, match="'w2' should be"):
        LatentPrompts({**tensors, "w2": torch.zeros(N, H, 9)}, TableEncoder(TABLE))
    with pytest.raises(UsageError, match="top_n 9 is more than the 5 skills"):
        LatentPrompts(tensors, TableEncoder(TABLE), settings=LatentSettings(top_n=9))
    with pytest.raises(UsageError, match="temperature must be above 0"):
        LatentSettings(temperature=0.0)
    broken = TABLE.clone()
    broken[2, 1] = float("nan")
    with pytest.raises(DataError, match=r"NaN or infinity for 't/train/2' \(1 of 3 rows\)"):
        LatentPrompts(tensors, TableEncoder(broken)).prompts(rows([0, 0, 0], [1, 2, 3]))
    with pytest.raises(UsageError, match="needs the input text of each of 1 rows, found 0"):
        LatentPrompts(tensors, TableEncoder(TABLE)).prompts(Rows(run_B=torch.tensor([0])))
