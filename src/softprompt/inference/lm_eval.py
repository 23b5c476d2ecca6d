"""An adapter for EleutherAI's lm-evaluation-harness, so that others can check our scores with their own tasks.

    from lm_eval import simple_evaluate
    model = lm_eval_model(backbone, prompt_PH)
    simple_evaluate(model=model, tasks=["sst2"])

The harness is not a dependency of this package: ``pip install lm_eval``.

Letters: B rows, D target tokens, P prompt tokens, H width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from softprompt.backbones.base import Backbone
from softprompt.batch import PromptBatch, TokenBatch
from softprompt.errors import UsageError
from softprompt.prompts.stack import PromptStack


class PromptScorer:
    """What the harness asks of a model, on a frozen backbone with one soft prompt.

    Args:
        backbone: the frozen model.
        prompt_PH: float [P, H]; None for the bare backbone.
        batch_size: rows a pass.
        score_end: whether the end-of-sequence token counts in a continuation's likelihood: what an encoder-decoder was
            trained to emit, and no part of a decoder-only model's continuation. Decided so where None.
        max_new_tokens: for requests that name no limit.
    """

    def __init__(
        self,
        backbone: Backbone,
        prompt_PH: Tensor | None = None,
        *,
        batch_size: int = 16,
        score_end: bool | None = None,
        max_new_tokens: int = 128,
    ) -> None:
        if batch_size < 1:
            raise UsageError(f"batch_size {batch_size} was asked for; at least 1 is needed.")
        self.backbone = backbone
        self.stack = None if prompt_PH is None else PromptStack(prompt_PH[None].to(backbone.device))
        self.rows_per_pass = batch_size
        self.score_end = backbone.kind != "causal" if score_end is None else score_end
        self.max_new_tokens = max_new_tokens

    def loglikelihoods(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """For (context, continuation) pairs: the log-likelihood in nats, and whether greedy decoding would give it."""
        contexts = self.backbone.tokenize_inputs([context for context, _ in pairs])
        # The space that the harness puts between the two is not part of a target; the backbone adds its own.
        goals = self.backbone.tokenize_targets([continuation.strip() for _, continuation in pairs])
        if not self.score_end:
            goals = [ids[:-1] for ids in goals]
        return self._score([ids or self._nothing() for ids in contexts], goals)

    def _nothing(self) -> list[int]:
        """What a decoder-only model reads where there is neither prompt nor context: as the harness has it, the end token."""
        return (
            [] if self.stack is not None or self.backbone.kind != "causal" else [self.backbone.tokenizer.eos_token_id]
        )

    def _score(self, contexts: Sequence[Sequence[int]], goals: Sequence[Sequence[int]]) -> list[tuple[float, bool]]:
        found: list[tuple[float, bool]] = [(0.0, True)] * len(goals)
        # Rows of like length go together, so that little is computed for padding.
        order = sorted((i for i in range(len(goals)) if goals[i]), key=lambda i: (len(goals[i]), len(contexts[i])))
        for begin in range(0, len(order), self.rows_per_pass):
            rows = order[begin : begin + self.rows_per_pass]
            batch = TokenBatch.of([contexts[i] for i in rows], [goals[i] for i in rows], self.backbone.device)
            with torch.no_grad():
                logits_BDV = self.backbone.logits(batch, self._prompts(len(rows)))
            for slot, i in enumerate(rows):
                target = torch.tensor(goals[i], device=logits_BDV.device)
                log_p = logits_BDV[slot, : len(target)].float().log_softmax(-1)
                chosen = log_p.gather(1, target[:, None])[:, 0]
                found[i] = (float(chosen.sum()), bool((log_p.argmax(-1) == target).all()))
        return found

    def rolling(self, texts: Sequence[str]) -> list[float]:
        """The log-likelihood of whole texts, in nats. A text that does not fit is scored in windows, each token once,
        the first of a window seeing the last token of the one before (the harness's way).

        Raises:
            UsageError: an encoder-decoder: it reads its inputs, it does not continue them.
        """
        if self.backbone.kind != "causal":
            raise UsageError(
                "loglikelihood_rolling asks for a text's own likelihood, which an encoder-decoder does not have."
            )
        (begin,) = self.backbone.tokenize_inputs([""])
        prompt_length = 0 if self.stack is None else self.stack.prompt_length
        longest = (self.backbone.max_length or 2048) - prompt_length - len(begin) - 1
        contexts: list[list[int]] = []
        goals: list[list[int]] = []
        owners: list[int] = []
        for owner, ids in enumerate(self.backbone.tokenize_targets(list(texts))):
            ids = ids[:-1]
            for at in range(0, len(ids), longest):
                contexts.append(ids[at - 1 : at] if at else begin or self._nothing())
                goals.append(ids[at : at + longest])
                owners.append(owner)
        totals = [0.0] * len(texts)
        for owner, (value, _) in zip(owners, self._score(contexts, goals), strict=True):
            totals[owner] += value
        return totals

    def greedy_until(self, requests: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
        """Greedy continuations, each cut before the first of its stop texts.

        Raises:
            UsageError: a request asks for sampling or beams; use ``inference.hf_model.PromptedModel`` for these.
        """
        limits, stops = [], []
        for _, options in requests:
            if (
                options.get("do_sample")
                or float(options.get("temperature") or 0) > 0
                or int(options.get("num_beams", 1)) > 1
            ):
                raise UsageError(
                    "this adapter generates greedily; wrap the model with inference.hf_model for sampling or beams."
                )
            until = options.get("until") or []
            stops.append([until] if isinstance(until, str) else list(until))
            limits.append(int(options.get("max_gen_toks") or options.get("max_new_tokens") or self.max_new_tokens))
        inputs = self.backbone.tokenize_inputs([context for context, _ in requests])
        found = [""] * len(requests)
        order = sorted(range(len(requests)), key=lambda i: (limits[i], len(inputs[i])))
        for begin in range(0, len(order), self.rows_per_pass):
            rows = order[begin : begin + self.rows_per_pass]
            batch = TokenBatch.of([inputs[i] for i in rows], None, self.backbone.device)
            ids = self.backbone.generate(batch, self._prompts(len(rows)), max(limits[i] for i in rows))
            texts = self.backbone.decode([row[: limits[i]] for row, i in zip(ids, rows, strict=True)])
            for i, text in zip(rows, texts, strict=True):
                cuts = [at for stop in stops[i] if stop and (at := text.find(stop)) >= 0]
                found[i] = text[: min(cuts)] if cuts else text
        return found

    def _prompts(self, rows: int) -> PromptBatch | None:
        if self.stack is None:
            return None
        return self.stack(torch.zeros(rows, dtype=torch.int64, device=self.backbone.device))


def lm_eval_model(backbone: Backbone, prompt_PH: Tensor | None = None, **settings: Any) -> Any:
    """A model for ``lm_eval.simple_evaluate``; the arguments are those of `PromptScorer`.

    Raises:
        UsageError: the harness is not installed.
    """
    try:
        from lm_eval.api.model import LM
    except ImportError as error:
        raise UsageError("lm-evaluation-harness is not installed: pip install lm_eval.") from error
    scorer = PromptScorer(backbone, prompt_PH, **settings)

    class SoftPromptLM(LM):  # type: ignore[misc]
        """lm-evaluation-harness's view of a `PromptScorer`."""

        def __init__(self) -> None:
            super().__init__()
            self.scorer = scorer

        @property
        def tokenizer_name(self) -> str:
            return str(getattr(backbone.tokenizer, "name_or_path", backbone.name)).replace("/", "__")

        def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            return scorer.loglikelihoods([request.args for request in requests])

        def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
            return scorer.rolling([request.args[0] for request in requests])

        def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
            return scorer.greedy_until([request.args for request in requests])

    return SoftPromptLM()
