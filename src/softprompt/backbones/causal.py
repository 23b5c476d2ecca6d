"""Decoder-only language models over Hugging Face modules, the soft prompt in front of prompt-free text.

A row is [prompt; inputs; targets]; only targets are scored. Rows are padded on one side of the whole row, never inside
it, with explicit positions and masks, so left and right padding give the same values. At inference the keys and values
of a prompt are computed once and kept by the prompt's key.

Letters: B rows, P prompt tokens, T input tokens, D target tokens, L longest whole row, H width, V vocabulary,
A key/value heads, K head width, U unique prompts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from softprompt.backbones.base import Backbone, Dropout, ExampleLosses, dtype_name
from softprompt.backbones.engine.dropout import Masks
from softprompt.backbones.engine.quantized import activation_bytes, parameter_count, precision_of
from softprompt.backbones.fingerprint import digest_memory, digest_tensors
from softprompt.backbones.seq2seq import tokenize
from softprompt.backbones.sharding import blocks, fully_shard, local, no_whole_model
from softprompt.backbones.t5 import first_id
from softprompt.batch import PromptBatch, TokenBatch
from softprompt.distributed import any_process
from softprompt.errors import BackboneError, IncompatibleBackboneError, UsageError

_KEPT_PROMPTS = 256  # prompts whose keys and values are remembered
_DROPOUT_PARTS = ("self_attn", "attn", "attention", "self_attention", "mlp", "feed_forward")

KeyValues = list[tuple[Tensor, Tensor]]  # by layer, each [A, P, K]


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


class CausalBackbone(Backbone):
    """A decoder-only model with a language-model head.

    Args:
        model: the Hugging Face module; frozen here.
        tokenizer: its tokenizer.
        name: what the user asked for.
        fingerprint: hex digest of the stored model.

    Attributes:
        padding_side: side on which whole rows are padded; the results are the same.
        checkpointing: recompute layers in the backward pass instead of keeping their activations.
    """

    kind = "causal"

    def __init__(self, model: Any, tokenizer: Any, *, name: str, fingerprint: str) -> None:
        self._model = model.eval().requires_grad_(False)
        self.tokenizer, self.name, self.fingerprint = tokenizer, name, fingerprint
        self.padding_side: Literal["left", "right"] = "left"
        embedding = model.get_input_embeddings()
        self._table: Tensor = embedding.weight.detach()
        # Gemma scales its embeddings after the lookup (inputs_embeds are taken as they are): ask the module, not the table.
        self._embed = embedding
        self.vocab_size, self.hidden_size = self._table.shape
        self.dtype, self.device = self._table.dtype, self._table.device
        self.precision = precision_of(model) or dtype_name(self.dtype)
        self.parameter_count = parameter_count(model)
        self.activation_bytes = activation_bytes(model, self.dtype)
        self.max_length = getattr(model.config, "max_position_embeddings", None)
        eos = model.config.eos_token_id if model.config.eos_token_id is not None else tokenizer.eos_token_id
        self.end_id = first_id(eos)
        self._prefix = _begin_ids(tokenizer)
        self._target_space = _wants_space(tokenizer)
        self._checkpointing = False
        self._masks: Masks | None = None
        self._prompt_kv: OrderedDict[str, KeyValues] = OrderedDict()

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

    @property
    def hf_model(self) -> Any:
        if self.sharded:
            raise no_whole_model(self.name)
        return self._model

    def shard(self, device: torch.device) -> None:
        base = self._model.base_model
        for block in blocks(base):
            fully_shard(block, device)
        plain = {p for p in self._model.parameters() if isinstance(p, torch.nn.Parameter) and local(p) is p}
        fully_shard(base, device, plain)
        self._model.to(device)
        self._table = self._embed.weight.detach()
        self.device, self.sharded = device, True

    def weights_digest(self) -> str:
        if not self.sharded:
            return digest_memory(self._model)
        tensors = (*self._model.named_parameters(), *self._model.named_buffers())
        return digest_tensors((name, local(tensor)) for name, tensor in tensors)

    def embedding_table(self) -> Tensor:
        with torch.no_grad():
            ids = torch.arange(self.vocab_size, device=self.device)
            return self._embed(ids).detach().float()  # type: ignore[no-any-return]

    def tokenize_inputs(self, texts: Sequence[str], max_tokens: int | None = None) -> list[list[int]]:
        return tokenize(self.tokenizer, texts, max_tokens, self._prefix, [])

    def tokenize_targets(self, texts: Sequence[str], max_tokens: int | None = None) -> list[list[int]]:
        if self._target_space:
            texts = [f" {text}" for text in texts]
        return tokenize(self.tokenizer, texts, max_tokens, [], [self.end_id])

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        return [str(self.tokenizer.decode(list(row), skip_special_tokens=True)).strip() for row in rows]

    def _check(self, prompts: PromptBatch | None, longest: int) -> None:
        if prompts is not None and prompts.unique_UPH.shape[2] != self.hidden_size:
            raise IncompatibleBackboneError(
                f"the prompt has width {prompts.unique_UPH.shape[2]} and backbone {self.name} has width "
                f"{self.hidden_size}: prompts do not move between backbones; load its own or retrain it."
            )
        if self.max_length is not None and longest > self.max_length:
            raise UsageError(
                f"a row of {longest} positions (prompt, text and target) was asked of backbone {self.name}, which holds "
                f"{self.max_length}: lower max_input_tokens or the prompt length."
            )

    def _whole_rows(self, batch: TokenBatch, prompts: PromptBatch | None) -> _Whole:
        """[prompt; inputs; targets] of every row, padded on ``padding_side``."""
        text = batch.input_length_B.tolist()
        goal = batch.target_length_B.tolist()
        prompt = [0] * batch.size if prompts is None else [prompts.length_U[u] for u in prompts.which_B.tolist()]
        total = [p + t + d for p, t, d in zip(prompt, text, goal, strict=True)]
        longest = max(total, default=0)
        self._check(prompts, longest)
        rows, starts = [], []
        for b in range(batch.size):
            parts = [self._embed(torch.cat([batch.input_BT[b, : text[b]], batch.target_BD[b, : goal[b]]]))]
            if prompts is not None:
                parts.insert(0, prompts.unique_UPH[prompts.which_B[b], : prompt[b]].to(self.dtype))
            pad = self._table.new_zeros(longest - total[b], self.hidden_size)
            left = self.padding_side == "left"
            starts.append(longest - total[b] if left else 0)
            rows.append(torch.cat([pad, *parts] if left else [*parts, pad]))
        start_B = torch.tensor(starts, dtype=torch.int64, device=self.device)
        place = torch.arange(longest, device=self.device)[None, :] - start_B[:, None]
        real = (place >= 0) & (place < torch.tensor(total, device=self.device)[:, None])
        return _Whole(
            embedded_BLH=torch.stack(rows),
            mask_BL=real.to(torch.int64),
            position_BL=place.clamp(min=0) * real,
            start_B=start_B,
            target_start_B=torch.tensor(
                [p + t for p, t in zip(prompt, text, strict=True)], dtype=torch.int64, device=self.device
            ),
        )

    def _target_logits(self, batch: TokenBatch, prompts: PromptBatch | None, dropout: Dropout | None) -> Tensor:
        """float32 [B, D, V]; position d predicts target d."""
        whole = self._whole_rows(batch, prompts)
        # The position before a target predicts it; logits are computed from the first such position on.
        first_B = whole.start_B + whole.target_start_B - 1
        if bool((first_B < whole.start_B).any()):
            raise UsageError("a row with neither prompt nor input tokens cannot be scored by a causal model.")
        from_here = int(first_B.min())
        masks = Masks(dropout, self.device)
        with self._dropped(masks):
            out = self._model(
                inputs_embeds=_drop(whole.embedded_BLH, masks.channels(0, self.hidden_size)),
                attention_mask=whole.mask_BL,
                position_ids=whole.position_BL,
                use_cache=False,
                logits_to_keep=whole.embedded_BLH.shape[1] - from_here,
            ).logits
        depth = torch.arange(batch.target_BD.shape[1], device=self.device)
        index_BD = (first_B[:, None] - from_here + depth[None, :]).clamp(max=out.shape[1] - 1)
        rows = torch.arange(batch.size, device=self.device)[:, None]
        found = out[rows, index_BD]
        return found if found.dtype == torch.float64 else found.float()  # type: ignore[no-any-return]

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

    @torch.no_grad()
    def generate(self, batch: TokenBatch, prompts: PromptBatch | None, max_new_tokens: int) -> list[list[int]]:
        text = batch.input_length_B.tolist()
        lengths = [0] * batch.size if prompts is None else [prompts.length_U[u] for u in prompts.which_B.tolist()]
        self._check(prompts, max((p + t for p, t in zip(lengths, text, strict=True)), default=0) + max_new_tokens)
        cache, mask_BP = self._prompt_cache(prompts, batch.size)
        width = batch.input_BT.shape[1]
        shift_B = width - batch.input_length_B
        place = torch.arange(width, device=self.device)[None, :] - shift_B[:, None]
        id_BT = batch.input_BT.gather(1, place.clamp(min=0))
        mask_BL = torch.cat([mask_BP, (place >= 0).to(torch.int64)], 1)
        offset_B = torch.tensor(lengths, dtype=torch.int64, device=self.device)
        position_BT = (place.clamp(min=0) + offset_B[:, None]) * (place >= 0)
        out: list[list[int]] = [[] for _ in range(batch.size)]
        alive, idle = list(range(batch.size)), False
        for _ in range(max_new_tokens):
            logits = self._model(
                input_ids=id_BT,
                attention_mask=mask_BL,
                position_ids=position_BT,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits
            next_B = logits[:, -1].float().argmax(-1)
            going = next_B != self.end_id
            going &= not idle
            for slot, (row, token) in enumerate(zip(alive, next_B.tolist(), strict=True)):
                if bool(going[slot]):
                    out[row].append(token)
            rows = going.nonzero()[:, 0]
            idle = not len(rows)
            if not (any_process(not idle) if self.sharded else not idle):
                break
            if idle:  # its answers are done, and other processes need its shards
                rows = torch.zeros(1, dtype=torch.int64, device=self.device)
            if len(rows) < len(alive):
                cache.batch_select_indices(rows)
            alive = [alive[i] for i in rows.tolist()]
            id_BT = next_B[rows][:, None]
            position_BT = position_BT[rows][:, -1:] + 1
            mask_BL = torch.cat([mask_BL[rows], mask_BL.new_ones(len(rows), 1)], 1)
        return out

    def _prompt_cache(self, prompts: PromptBatch | None, rows: int) -> tuple[Any, Tensor]:
        """A cache that holds each row's prompt, padded on the left, and its mask int64 [B, P]."""
        from transformers import DynamicCache

        cache = DynamicCache()
        if prompts is None:
            return cache, torch.zeros(rows, 0, dtype=torch.int64, device=self.device)
        which = prompts.which_B.tolist()
        found = self._prompts_key_values(prompts, list(dict.fromkeys(which)))
        longest = max(prompts.length_U[u] for u in found)
        mask_BP = torch.zeros(len(which), longest, dtype=torch.int64, device=self.device)
        for b, u in enumerate(which):
            mask_BP[b, longest - prompts.length_U[u] :] = 1
        for layer in range(len(next(iter(found.values())))):
            padded = {u: tuple(_pad_left(x, longest) for x in kv[layer]) for u, kv in found.items()}
            keys = torch.stack([padded[u][0] for u in which])
            cache.update(keys, torch.stack([padded[u][1] for u in which]), layer)
        return cache, mask_BP

    def _prompts_key_values(self, prompts: PromptBatch, wanted: list[int]) -> dict[int, KeyValues]:
        """Keys and values of some prompts; those with a key are remembered."""
        found: dict[int, KeyValues] = {}
        for u in wanted:
            key = prompts.key_U[u]
            if key is not None and key in self._prompt_kv:
                self._prompt_kv.move_to_end(key)
                found[u] = self._prompt_kv[key]
        missing = [u for u in wanted if u not in found]
        while any_process(bool(missing)) if self.sharded else missing:
            u = missing.pop() if missing else wanted[0]
            found[u] = self._prompt_key_values(prompts, u)
        return found

    def _prompt_key_values(self, prompts: PromptBatch, u: int) -> KeyValues:
        """Keys and values of one prompt, each layer [A, P, K]."""
        key = prompts.key_U[u]
        from transformers import DynamicCache

        cache = DynamicCache()
        rows = prompts.unique_UPH[u, : prompts.length_U[u]].to(self.dtype)[None]
        self._model(inputs_embeds=rows, past_key_values=cache, use_cache=True, logits_to_keep=1)
        found = [(layer.keys[0], layer.values[0]) for layer in cache.layers]
        if key is not None:
            self._prompt_kv[key] = found
            while len(self._prompt_kv) > _KEPT_PROMPTS:
                self._prompt_kv.popitem(last=False)
        return found

    @torch.no_grad()
    def encode_mean(self, batch: TokenBatch) -> Tensor:
        real_BT = torch.arange(batch.input_BT.shape[1], device=self.device)[None, :] < batch.input_length_B[:, None]
        hidden = self._model.base_model(
            input_ids=batch.input_BT * real_BT, attention_mask=real_BT.to(torch.int64), use_cache=False
        ).last_hidden_state.float()
        total = (hidden * real_BT[:, :, None]).sum(1)
        return total / batch.input_length_B.clamp(min=1)[:, None]  # type: ignore[no-any-return]


def _pad_left(x_APK: Tensor, length: int) -> Tensor:
    return torch.nn.functional.pad(x_APK, (0, 0, length - x_APK.shape[1], 0))


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


def _begin_ids(tokenizer: Any) -> list[int]:
    """The beginning-of-text token where the tokenizer puts one."""
    ids = tokenizer("x")["input_ids"]
    begin = tokenizer.bos_token_id
    return [begin] if begin is not None and ids[:1] == [begin] else []


def _wants_space(tokenizer: Any) -> bool:
    """Whether a word that follows others is tokenised with its space (byte-level BPE), so that targets need one."""

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    head, both = ids("x"), ids("x yes")
    if both[: len(head)] != head:
        return False
    tail = both[len(head) :]
    return tail == ids(" yes") and tail != ids("yes")


def refuse_encoder(config: Any, name: str) -> None:
    """Refuse a model that is neither T5-like nor decoder-only."""
    if getattr(config, "is_encoder_decoder", False):
        raise BackboneError(
            f"{name} is an encoder-decoder of type {config.model_type!r}; supported are the T5 family, BERT-to-BERT "
            "pairs and decoder-only language models."
        )
