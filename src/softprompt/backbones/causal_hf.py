"""Decoder-only language models through their transformers module: every architecture that ``decoder.py`` does not run.

A row is [padding; prompt; inputs; targets], padded on its left alone (answers that are only scored: on their right), with
explicit positions and masks. Padding never lies between a prompt and its text: models with sliding windows count places,
and a row would then answer otherwise beside a longer one.

Letters: B rows, C candidate answers, P prompt tokens, T input tokens, D target tokens, L longest whole row, H width,
V vocabulary.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from softprompt.backbones.base import Dropout, ExampleLosses
from softprompt.backbones.causal import CausalBackbone, nothing_to_score
from softprompt.backbones.engine.dropout import Masks
from softprompt.backbones.engine.formulas import wide
from softprompt.backbones.greedy import greedy_answers
from softprompt.backbones.sharding import blocks, fully_shard, local
from softprompt.batch import PromptBatch, TokenBatch, TokenRow, on_device
from softprompt.distributed import in_step

_DROPOUT_PARTS = ("self_attn", "attn", "attention", "self_attention", "mlp", "feed_forward")
_CANDIDATE_POSITIONS = 16384  # cached positions of candidates that are scored together


@dataclass(frozen=True, eq=False)
class _Whole:
    """Whole rows, padded on one side.

    Attributes:
        embedded_BLH: input embeddings.
        mask_BL: int64, 1 where a position is real.
        position_BL: int64, place within the row.
        start_B: int64, where each row begins.
        target_start_B: int64, where each row's targets begin, counted from the row's begin.
    """

    embedded_BLH: Tensor
    mask_BL: Tensor
    position_BL: Tensor
    start_B: Tensor
    target_start_B: Tensor


class TransformersCausal(CausalBackbone):
    """A decoder-only model run by its Hugging Face module.

    Attributes:
        padding_side: side on which whole rows are padded in training; the results are the same.
        checkpointing: recompute layers in the backward pass instead of keeping their activations.
    """

    def __init__(self, model: Any, tokenizer: Any, *, name: str, fingerprint: str) -> None:
        super().__init__(model, tokenizer, name=name, fingerprint=fingerprint)
        self.padding_side: Literal["left", "right"] = "left"
        known = inspect.signature(model.forward).parameters
        self._takes_positions, self._takes_last = "position_ids" in known, "logits_to_keep" in known
        self._checkpointing = False
        self._masks: Masks | None = None

    @property
    def checkpointing(self) -> bool:
        return self._checkpointing

    @checkpointing.setter
    def checkpointing(self, on: bool) -> None:
        self._checkpointing = on
        if on:
            self._model.gradient_checkpointing_enable({"use_reentrant": False})
            for module in self._model.modules():
                if hasattr(module, "_gradient_checkpointing_func"):
                    module._gradient_checkpointing_func = self._checkpoint
            self._model.train()  # transformers checkpoints in training mode alone; there is no dropout of its own left
            _silence_dropout(self._model)
        else:
            self._model.gradient_checkpointing_disable()
            self._model.eval()

    def shard(self, device: torch.device) -> None:
        base = self._model.base_model
        for block in blocks(base):
            fully_shard(block, device)
        plain = {p for p in self._model.parameters() if isinstance(p, torch.nn.Parameter) and local(p) is p}
        fully_shard(base, device, plain)
        self._model.to(device)
        self._table = self._embed.weight.detach()
        self.device, self.sharded = device, True

    # -- whole rows -------------------------------------------------------------------------------------------------

    def _rows(self, batch: TokenBatch, prompts: PromptBatch | None, *, targets: bool, side: str) -> _Whole:
        """[prompt; inputs; targets] of every row (targets left out where not asked for), padded on one side."""
        prompt_B = torch.zeros_like(batch.input_length_B) if prompts is None else prompts.length_B()
        text_B = batch.input_length_B + (batch.target_length_B if targets else 0)
        total_B = prompt_B + text_B
        longest = int(total_B.max()) if batch.size else 0
        self._check(prompts, longest)
        start_B = longest - total_B if side == "left" else torch.zeros_like(total_B)
        place_BL = torch.arange(longest, device=self.device)[None, :] - start_B[:, None]
        real_BL = (place_BL >= 0) & (place_BL < total_B[:, None])
        # The text of a row, [inputs; targets], is looked up by place: first among the inputs, then among the targets.
        text_BL = place_BL - prompt_B[:, None]
        goal_BL = text_BL - batch.input_length_B[:, None]
        id_BL = _at(batch.input_BT, text_BL)
        if targets:
            id_BL = torch.where(goal_BL >= 0, _at(batch.target_BD, goal_BL), id_BL)
        embedded_BLH = self._embed(id_BL * (real_BL & (text_BL >= 0)))
        if prompts is not None:
            of_prompt_BL = real_BL & (text_BL < 0)
            length = prompts.unique_UPH.shape[1]
            source_BL = prompts.which_B[:, None] * length + place_BL
            chosen = of_prompt_BL.flatten().nonzero()[:, 0]
            rows = prompts.unique_UPH.flatten(0, 1).index_select(0, source_BL.flatten()[chosen])
            embedded_BLH = embedded_BLH.flatten(0, 1).index_copy(0, chosen, rows.to(self.dtype)).view_as(embedded_BLH)
        embedded_BLH = embedded_BLH * real_BL[:, :, None].to(embedded_BLH.dtype)
        return _Whole(
            embedded_BLH=embedded_BLH,
            mask_BL=real_BL.to(torch.int64),
            position_BL=place_BL.clamp(min=0) * real_BL,
            start_B=start_B,
            target_start_B=prompt_B + batch.input_length_B,
        )

    def _run(self, *, position_ids: Tensor, keep: int | None = None, **arguments: Any) -> Any:
        """The module's forward pass, with the arguments that it knows."""
        if self._takes_positions:
            arguments["position_ids"] = position_ids
        if keep is not None and self._takes_last:
            arguments["logits_to_keep"] = keep
        return self._model(**arguments)

    def _target_logits(self, batch: TokenBatch, prompts: PromptBatch | None, dropout: Dropout | None) -> Tensor:
        """float32 [B, D, V]; position d predicts target d."""
        whole = self._rows(batch, prompts, targets=True, side=self.padding_side)
        # The position before a target predicts it; logits are computed from the first such position on.
        first_B = whole.start_B + whole.target_start_B - 1
        if bool((first_B < whole.start_B).any()):
            raise nothing_to_score()
        from_here = int(first_B.min())
        masks = Masks(dropout, self.device)
        with self._dropped(masks):
            out = self._run(
                inputs_embeds=_drop(whole.embedded_BLH, masks.channels(0, self.hidden_size)),
                attention_mask=whole.mask_BL,
                position_ids=whole.position_BL,
                use_cache=False,
                keep=whole.embedded_BLH.shape[1] - from_here,
            ).logits
        depth = torch.arange(batch.target_BD.shape[1], device=self.device)
        place_BD = first_B[:, None] + depth[None, :] - (whole.embedded_BLH.shape[1] - out.shape[1])
        rows = torch.arange(batch.size, device=self.device)[:, None]
        return wide(out[rows, place_BD.clamp(max=out.shape[1] - 1)])

    def example_losses(
        self, batch: TokenBatch, prompts: PromptBatch | None, dropout: Dropout | None = None
    ) -> ExampleLosses:
        logits_BDV = self._target_logits(batch, prompts, dropout)
        log_z_BD = torch.logsumexp(logits_BDV, -1)
        chosen_BD = logits_BDV.gather(2, batch.target_BD[:, :, None])[:, :, 0]
        depth = torch.arange(batch.target_BD.shape[1], device=self.device)
        real_BD = depth[None, :] < batch.target_length_B[:, None]
        zero = log_z_BD.new_zeros(())
        return ExampleLosses(
            nll_B=torch.where(real_BD, log_z_BD - chosen_BD, zero).sum(1),
            log_z_sq_B=torch.where(real_BD, log_z_BD.square(), zero).sum(1),
            tokens_B=batch.target_length_B,
        )

    def logits(self, batch: TokenBatch, prompts: PromptBatch | None) -> Tensor:
        return self._target_logits(batch, prompts, None)

    def _checkpoint(self, run: Callable[..., Any], *inputs: Any) -> Any:
        """A layer that is computed again in the backward pass, with the dropout it had."""
        masks = self._masks

        def dropped(*given: Any) -> Any:
            # The second time the forward pass is over, and its hooks are gone.
            if masks is None or self._masks is masks:
                return run(*given)
            with self._dropped(masks):
                return run(*given)

        return checkpoint(dropped, *inputs, use_reentrant=False)

    @contextmanager
    def _dropped(self, masks: Masks) -> Iterator[None]:
        """Own dropout on what each attention and feed-forward part adds to the residual stream, for one forward pass."""
        parts = []
        if masks.active:
            for name, module in self._model.named_modules():
                parent, _, part = name.rpartition(".")
                if part in _DROPOUT_PARTS and parent.rpartition(".")[2].isdigit():
                    parts.append(module)
        hooks = [
            module.register_forward_hook(_hook(masks.channels(site, self.hidden_size)))
            for site, module in enumerate(parts, start=1)
        ]
        before, self._masks = self._masks, masks
        try:
            yield
        finally:
            self._masks = before
            for hook in hooks:
                hook.remove()

    # -- inference --------------------------------------------------------------------------------------------------

    def _begin(self, batch: TokenBatch, prompts: PromptBatch | None) -> tuple[_Whole, Any]:
        """Every row's prompt and text through the model once, kept in a cache: the rows, and the module's output."""
        whole = self._rows(batch, prompts, targets=False, side="left")
        if bool((whole.target_start_B < 1).any()):
            raise nothing_to_score()
        out = self._run(
            inputs_embeds=whole.embedded_BLH,
            attention_mask=whole.mask_BL,
            position_ids=whole.position_BL,
            use_cache=True,
            keep=1,
        )
        return whole, out

    @torch.no_grad()
    def generate(self, batch: TokenBatch, prompts: PromptBatch | None, max_new_tokens: int) -> list[list[int]]:
        lengths = torch.zeros_like(batch.input_length_B) if prompts is None else prompts.length_B()
        self._check(prompts, int((batch.input_length_B + lengths).max()) + max_new_tokens if batch.size else 0)
        whole, out = self._begin(batch, prompts)
        cache, mask_BL, position_B = out.past_key_values, whole.mask_BL, whole.position_BL[:, -1]

        def follow(id_R: Tensor, rows_R: Tensor) -> Tensor:
            nonlocal mask_BL, position_B
            if len(rows_R) < len(mask_BL):
                cache.batch_select_indices(rows_R)
            position_B = position_B[rows_R] + 1
            mask_BL = torch.cat([mask_BL[rows_R], mask_BL.new_ones(len(rows_R), 1)], 1)
            out = self._run(
                input_ids=id_R[:, None], attention_mask=mask_BL, position_ids=position_B[:, None],
                past_key_values=cache, use_cache=True, keep=1,
            )  # fmt: skip
            return wide(out.logits[:, -1]).argmax(-1)

        return greedy_answers(self, wide(out.logits[:, -1]).argmax(-1), follow, max_new_tokens)

    @torch.no_grad()
    def label_scores(
        self, batch: TokenBatch, prompts: PromptBatch | None, labels: Sequence[Sequence[TokenRow]]
    ) -> list[Tensor]:
        flat = [[int(i) for i in label] for row in labels for label in row]
        owner = [b for b, row in enumerate(labels) for _ in row]
        deepest = max((len(label) for label in flat), default=0)
        lengths = torch.zeros_like(batch.input_length_B) if prompts is None else prompts.length_B()
        self._check(prompts, int((batch.input_length_B + lengths).max()) + deepest - 1 if batch.size else 0)
        with self._exact_head():
            whole, out = self._begin(batch, prompts)
            first_BV = wide(out.logits[:, -1]).log_softmax(-1)
            width = whole.mask_BL.shape[1] + deepest
            size = max(1, _CANDIDATE_POSITIONS // max(1, width))
            parts = [range(i, min(i + size, len(flat))) for i in range(0, len(flat), size)]
            scores = [
                self._behind(whole, out.past_key_values, first_BV, [owner[c] for c in part], [flat[c] for c in part])
                for part in in_step(parts, self.sharded)
            ]
        found = torch.cat(scores)[: len(flat)] if scores else first_BV.new_zeros(0)
        return list(torch.split(found, [len(row) for row in labels]))

    def _behind(
        self, whole: _Whole, cache: Any, first_BV: Tensor, owner: Sequence[int], answers: Sequence[Sequence[int]]
    ) -> Tensor:
        """float32 [C], the summed log-probability of answers behind the cached row that owns each."""
        row_C = on_device(torch.tensor(list(owner), dtype=torch.int64), self.device)
        batch = TokenBatch.of(answers, device=self.device)
        id_CD, length_C = batch.input_BT, batch.input_length_B
        score_CD = first_BV[row_C].gather(1, id_CD[:, :1])
        if id_CD.shape[1] > 1:
            # The answers' last tokens are padding or ends whose successors nobody asks for.
            step_D = torch.arange(id_CD.shape[1] - 1, device=self.device)
            real_CD = (step_D[None, :] < length_C[:, None] - 1).to(torch.int64)
            own = copy.deepcopy(cache)
            own.batch_select_indices(row_C)
            logits_CDV = self._run(
                input_ids=id_CD[:, :-1] * real_CD,
                attention_mask=torch.cat([whole.mask_BL[row_C], real_CD], 1),
                position_ids=whole.position_BL[row_C, -1:] + 1 + step_D[None, :],
                past_key_values=own,
                use_cache=True,
            ).logits
            later_CD = wide(logits_CDV).log_softmax(-1).gather(2, id_CD[:, 1:, None])[:, :, 0]
            score_CD = torch.cat([score_CD, later_CD * real_CD], 1)
        return score_CD.sum(1) * (length_C > 0)

    @contextmanager
    def _exact_head(self) -> Iterator[None]:
        """The output head computed in float32 at least, for one or more passes."""
        head = self._model.get_output_embeddings()
        if self.dtype in (torch.float32, torch.float64) or head is None:
            yield
            return
        weight, bias = wide(head.weight), None if head.bias is None else wide(head.bias)

        def exact(module: Any, given: Any, out: Tensor) -> Tensor:
            return F.linear(wide(given[0]), weight, bias)

        hook = head.register_forward_hook(exact)
        try:
            yield
        finally:
            hook.remove()

    @torch.no_grad()
    def answer_states(self, batch: TokenBatch, prompts: PromptBatch | None) -> Tensor:
        whole = self._rows(batch, prompts, targets=False, side="left")
        if bool((whole.target_start_B < 1).any()):
            raise nothing_to_score()
        out = self._run(
            inputs_embeds=whole.embedded_BLH, attention_mask=whole.mask_BL, position_ids=whole.position_BL,
            use_cache=False, keep=1, output_hidden_states=True,
        )  # fmt: skip
        found: Tensor = out.hidden_states[-1][:, -1].float()
        return found

    @torch.no_grad()
    def encode_mean(self, batch: TokenBatch) -> Tensor:
        real_BT = torch.arange(batch.input_BT.shape[1], device=self.device)[None, :] < batch.input_length_B[:, None]
        hidden = self._model.base_model(
            input_ids=batch.input_BT * real_BT, attention_mask=real_BT.to(torch.int64), use_cache=False
        ).last_hidden_state.float()
        total = (hidden * real_BT[:, :, None]).sum(1)
        return total / batch.input_length_B.clamp(min=1)[:, None]  # type: ignore[no-any-return]


def _at(id_BT: Tensor, place_BL: Tensor) -> Tensor:
    """Ids by place; any id where there is no such place."""
    if not id_BT.shape[1]:
        return torch.zeros_like(place_BL)
    return id_BT.gather(1, place_BL.clamp(0, id_BT.shape[1] - 1))


def _drop(x_BLH: Tensor, mask_BH: Tensor | None) -> Tensor:
    return x_BLH if mask_BH is None else (x_BLH * mask_BH[:, None, :]).to(x_BLH.dtype)


def _hook(mask_BH: Tensor | None) -> Any:
    def drop(module: Any, args: Any, out: Any) -> Any:
        if isinstance(out, tuple):
            return (_drop(out[0], mask_BH), *out[1:])
        return _drop(out, mask_BH)

    return drop


def _silence_dropout(model: Any) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
