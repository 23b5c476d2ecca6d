"""SharPT's whole loss (Eq. 5) and all its gradients against a straight float64 computation on the Hugging Face model.

The reference shares no code with the package: skills by a loop over distances, prompts token by token, the backbone's
own transformers forward on input embeddings, cross-entropy by hand.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from tests.support.models import corpus, tiny_model
from torch import Tensor

from softprompt.backbones.load import wrap
from softprompt.batch import Rows, TokenBatch
from softprompt.prompts.latent import GENERATOR, LatentPrompts

K, M, P = 4, 3, 5
NAMES = ("skills", *GENERATOR)


class FixedEncoder:
    name = "fixed"
    fingerprint = "0" * 64
    width = M

    def __init__(self, table: dict[str, Tensor]) -> None:
        self.table = table

    def encode(self, texts: Sequence[str]) -> Tensor:
        return torch.stack([self.table[text] for text in texts])


def tensors_for(width: int) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(11)
    shapes = {
        "skills": (K, M),
        "position": (P, width),
        "w1": (width, M),
        "b1": (width,),
        "w2": (width, width),
        "b2": (width,),
    }
    scale = {"w2": 0.3}
    return {n: scale.get(n, 1.0) * torch.randn(s, generator=g, dtype=torch.float64) for n, s in shapes.items()}


def straight_loss(
    model: torch.nn.Module, own: dict[str, Tensor], encoding: Tensor, inputs: list[int], targets: list[int], start: int
) -> Tensor:
    """Cross-entropy summed over the target's tokens, plus ||sg(e0) - e_k||, for one row."""
    distances = [float(torch.linalg.vector_norm(encoding - e)) for e in own["skills"].detach()]
    e = own["skills"][distances.index(min(distances))]
    h = torch.tanh(own["w1"] @ e + own["b1"])
    prompt = torch.stack([own["w2"] @ (z + h) + own["b2"] for z in own["position"]])
    words = model.get_input_embeddings()(torch.tensor(inputs))  # type: ignore[operator]
    logits = model(
        inputs_embeds=torch.cat([prompt, words])[None], decoder_input_ids=torch.tensor([[start, *targets[:-1]]])
    ).logits[0]
    nll = -torch.log_softmax(logits, -1)[torch.arange(len(targets)), torch.tensor(targets)].sum()
    return nll + (encoding - e).square().sum().sqrt()


@pytest.mark.parametrize("kind", ["t5", "t5-gated-untied"])
def test_loss_and_gradients_match_hugging_face(kind: str) -> None:
    model, tokenizer = tiny_model(kind)
    reference = copy.deepcopy(model).double()
    backbone = wrap(model, tokenizer, name=kind)
    texts = corpus(5, 3)
    encodings = torch.randn(5, M, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    inputs = backbone.tokenize_inputs(texts)
    targets = backbone.tokenize_targets(["yes", "no", "entailment", "yes", "not good"])
    tensors = tensors_for(backbone.hidden_size)

    prompts = LatentPrompts(
        {n: t[None].float() for n, t in tensors.items()},
        FixedEncoder(dict(zip(texts, encodings.float(), strict=True))),
        tuned=NAMES,
        codebook_loss=True,
    )
    batch = prompts.prompts(Rows(run_B=torch.zeros(5, dtype=torch.int64), inputs=texts))
    losses = backbone.example_losses(TokenBatch.of(inputs, targets), batch)
    assert batch.aux_loss_B is not None
    found = losses.nll_B + batch.aux_loss_B
    found.sum().backward()

    own = {n: t.clone().requires_grad_(True) for n, t in tensors.items()}
    expected = torch.stack(
        [
            straight_loss(reference, own, e, i, t, backbone.start_id)  # type: ignore[attr-defined]
            for e, i, t in zip(encodings, inputs, targets, strict=True)
        ]
    )
    expected.sum().backward()

    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    for name in NAMES:
        gradient, truth = prompts.tensors[name].grad, own[name].grad
        assert gradient is not None
        assert truth is not None
        assert truth.abs().max() > 1e-4, name
        error = (gradient[0].double() - truth).abs().max() / truth.abs().max()
        assert error < 1e-4, f"{name}: {error}"
    assert all(p.grad is None for p in model.parameters())
