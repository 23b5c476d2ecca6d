"""The Llama family (Llama, Mistral, Qwen 2 and 3, Gemma 1 to 3) and GPT-2 over loaded Hugging Face weights, in packed rows.

A prompt's keys and values depend on nothing behind it, so each of the prompts in a batch passes the layers once, forward
and backward, and the rows that use it attend to it (``engine/tree.py``); at inference they are kept by the prompt's key.
With dropout, whose masks belong to a row, every row carries its own prompt. Weights receive no gradients; logits are
computed where targets are predicted and nowhere else.

Letters: B rows, C candidate answers, U unique prompts, P prompt tokens, T input tokens, D target tokens, S packed
positions, R predicted tokens, H width, A query heads, G key/value heads, K head width, V vocabulary.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from softprompt.backbones.base import Decoding, Dropout, ExampleLosses
from softprompt.backbones.causal import CausalBackbone
from softprompt.backbones.engine.decoder_layers import (
    DecoderLayer,
    Form,
    form_of,
    last_norm_of,
    layers_of,
    rotation_of,
)
from softprompt.backbones.engine.dropout import Masks
from softprompt.backbones.engine.formulas import drop, wide
from softprompt.backbones.engine.layers import Linear, Norm
from softprompt.backbones.engine.losses import token_losses
from softprompt.backbones.engine.ops import activate, add_rms
from softprompt.backbones.engine.packing import Layout, pack
from softprompt.backbones.engine.tree import Rotation, Tree, attend_masked, attend_tree
from softprompt.backbones.fingerprint import digest_tensors
from softprompt.backbones.greedy import greedy_answers
from softprompt.backbones.laid import Laid, laid_out
from softprompt.backbones.sharding import Root, local, shard_layers, through
from softprompt.batch import PromptBatch, TokenBatch, TokenRow, on_device

_KEPT_BYTES = 1 << 30  # of the remembered keys and values of prompts
_MORE_PLACES = 16  # by which a cache that is full grows
_NO_MASKS = Masks(None, torch.device("cpu"))
_TOKENS_AT_ONCE = 512  # float32 logits of more tokens than this are not held together

KeyValues = list[Tensor]  # by layer, [S, 2 G K], keys not yet rotated


class DecoderBackbone(CausalBackbone):
    """A decoder-only model of the Llama family, or GPT-2. See ``decoder_layers.form_of`` for what belongs to it.

    Attributes:
        checkpointing: recompute layers in the backward pass instead of keeping their activations.
        prompt_cache_bytes: the most that remembered keys and values of prompts take, bytes.
    """

    def __init__(self, model: Any, tokenizer: Any, *, name: str, fingerprint: str) -> None:
        super().__init__(model, tokenizer, name=name, fingerprint=fingerprint)
        self.checkpointing = False
        self.prompt_cache_bytes, self._prompt_kv_bytes = _KEPT_BYTES, 0
        self.form: Form = form_of(model)
        self._layers = layers_of(model)
        self._norm: Norm = self.form.norm(last_norm_of(model))
        self._head = Linear(model.get_output_embeddings().weight.detach())
        self._root: Root | None = None
        self._prompt_kv: OrderedDict[str, Tensor] = OrderedDict()  # [layers, P, 2 G K], keys rotated

    def shard(self, device: torch.device) -> None:
        self._root = shard_layers(self, self._model, ("_layers",), device)
        self._table = self._embed.weight.detach()
        self.device, self.sharded = device, True

    def weights_digest(self) -> str:
        if self._root is None:
            return super().weights_digest()
        own = [(name, local(p)) for name, p in self._root.named_parameters()]
        return digest_tensors([*own, *self._model.named_parameters()])

    # -- the layers -------------------------------------------------------------------------------------------------

    def _pass(
        self, x_SH: Tensor, tree: Tree, masks: Masks, given: Tensor | None = None, kept: KeyValues | None = None
    ) -> tuple[Tensor, Tensor]:
        """Computed positions through all layers: the residual stream, and what is still to be added to it.

        Args:
            given: keys (rotated) and values of the positions that the tree only attends to, [layers, their number, 2 G K].
            kept: takes the keys (not rotated) and values of the computed ones.
        """
        if self._root is None:
            return self._through_layers(x_SH, tree, masks, given, kept)
        found: tuple[Tensor, Tensor] = self._root(self._through_layers, x_SH, tree, masks, given, kept)
        return found

    def _through_layers(
        self, x_SH: Tensor, tree: Tree, masks: Masks, given: Tensor | None, kept: KeyValues | None
    ) -> tuple[Tensor, Tensor]:
        x_SH = masks.drop(self._placed(x_SH, tree.position_S[tree.given :]), 0, tree.layout)
        out_SH: Tensor | None = None
        rotations = self._rotations(tree)
        again = self.checkpointing and x_SH.requires_grad
        for i, layer in enumerate(self._layers):
            run = partial(
                self._layer, tree=tree, rotations=rotations, masks=masks, site=10 * i + 10,
                given=None if given is None else given[i], kept=kept,
            )  # fmt: skip
            x_SH, out_SH = through(layer, run, x_SH, out_SH, again=again)
        assert out_SH is not None
        return x_SH, out_SH

    def _placed(self, x_SH: Tensor, position_S: Tensor) -> Tensor:
        """Embeddings with what belongs to their positions, for models that learn it."""
        table = self.form.place_LH
        return x_SH if table is None else x_SH + table[position_S]

    def _rotations(self, tree: Tree) -> list[Rotation]:
        """By rope, of the computed positions."""
        return [rotation_of(rope, tree.position_S[tree.given :]) for rope in self.form.ropes]

    def _layer(
        self, layer: DecoderLayer, x_SH: Tensor, out_SH: Tensor | None, *, tree: Tree, rotations: list[Rotation],
        masks: Masks, site: int, given: Tensor | None, kept: KeyValues | None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        layout = tree.layout
        x_SH, h_SH = self._residual(x_SH, out_SH, masks, site - 5, layout, layer.before_attention)
        qkv = self._qkv(layer, h_SH, layout)
        if kept is not None:
            kept.append(qkv[:, layer.heads.queries * layer.heads.width :].contiguous())
        out_SH = layer.out(attend_tree(qkv, tree, rotations[layer.rope], layer.heads, given))
        out_SH = self._normed(out_SH, layer.after_attention, layout)
        x_SH, h_SH = self._residual(x_SH, out_SH, masks, site + 1, layout, layer.before_feed)
        return x_SH, self._feed(layer, h_SH, layout)

    def _qkv(self, layer: DecoderLayer, h_SH: Tensor, layout: Layout) -> Tensor:
        """Queries, keys and values side by side, [S, (A + 2 G) K]; Qwen 3 and Gemma 3 norm their heads."""
        qkv = layer.qkv(h_SH)
        if layer.q_norm is None or layer.k_norm is None:
            return qkv
        heads, width = layer.heads, layer.heads.width
        q, k, v = torch.split(qkv, [heads.queries * width, heads.groups * width, heads.groups * width], 1)
        q = self._normed(q.reshape(-1, width), layer.q_norm, layout).view(q.shape)
        k = self._normed(k.reshape(-1, width), layer.k_norm, layout).view(k.shape)
        return torch.cat([q, k, v], 1)

    def _feed(self, layer: DecoderLayer, h_SH: Tensor, layout: Layout) -> Tensor:
        up_SF = layer.up(h_SH)
        out_SH = layer.down(activate(up_SF, None, layout, self.form.activation, gated=self.form.gated))
        return self._normed(out_SH, layer.after_feed, layout)

    def _residual(
        self, x_SH: Tensor, out_SH: Tensor | None, masks: Masks, site: int, layout: Layout, norm: Norm
    ) -> tuple[Tensor, Tensor]:
        keep = None if out_SH is None else masks.channels(site, self.hidden_size)
        if norm.bias is not None:
            total = x_SH if out_SH is None else x_SH + drop(out_SH, keep, layout.row_S)
            return total, F.layer_norm(total, total.shape[-1:], norm.weight, norm.bias, norm.eps)
        return add_rms(x_SH, out_SH, keep, layout, norm.weight, norm.eps)

    def _normed(self, x_SH: Tensor, norm: Norm | None, layout: Layout) -> Tensor:
        return x_SH if norm is None else add_rms(x_SH, None, None, layout, norm.weight, norm.eps)[1]

    def _project(self, hidden_RH: Tensor, *, exact: bool = False) -> Tensor:
        """Hidden states to logits [R, V]; exact: in float32 at least."""
        logits = self._head.exact(hidden_RH) if exact else self._head(hidden_RH)
        cap = self.form.final_softcap
        return logits if cap is None else torch.tanh(logits / cap) * cap

    # -- training ---------------------------------------------------------------------------------------------------

    def _predicted(
        self, batch: TokenBatch, prompts: PromptBatch | None, dropout: Dropout | None
    ) -> tuple[Tensor, Tensor, Layout]:
        """Normed hidden states [R, H] that predict targets, the targets int64 [R], and their layout."""
        masks = Masks(dropout, self.device)
        laid = self._laid(batch, prompts, targets=True, apart=masks.active)
        laid.check_scored()
        x_SH, out_SH = self._pass(laid.x_SH, laid.tree, masks)
        target_R, goal = pack(batch.target_BD, batch.target_lengths)
        place_R = laid.predictors(laid.last_B, laid.goal_B, goal)
        last = 10 * len(self._layers) + 5
        x_RH, out_RH = x_SH.index_select(0, place_R), out_SH.index_select(0, place_R)
        return self._residual(x_RH, out_RH, masks, last, goal, self._norm)[1], target_R, goal

    def _laid(self, batch: TokenBatch, prompts: PromptBatch | None, **how: Any) -> Laid:
        self._check(prompts, 0)  # the width: laying them out needs it
        laid = laid_out(self._embed, self.dtype, batch, prompts, **how)
        self._check(None, laid.tree.longest)
        return laid

    def example_losses(
        self, batch: TokenBatch, prompts: PromptBatch | None, dropout: Dropout | None = None
    ) -> ExampleLosses:
        hidden_RH, target_R, layout = self._predicted(batch, prompts, dropout)
        nll_R, log_z_sq_R = token_losses(hidden_RH, self._project, target_R)
        zero_B = torch.zeros(layout.rows, dtype=nll_R.dtype, device=layout.device)
        return ExampleLosses(
            nll_B=zero_B.index_add(0, layout.row_S, nll_R),
            log_z_sq_B=zero_B.index_add(0, layout.row_S, log_z_sq_R),
            tokens_B=layout.length_B,
        )

    def logits(self, batch: TokenBatch, prompts: PromptBatch | None) -> Tensor:
        hidden_RH, _, layout = self._predicted(batch, prompts, None)
        return layout.pad(wide(self._project(hidden_RH)))

    # -- inference --------------------------------------------------------------------------------------------------

    def _begin(
        self, batch: TokenBatch, prompts: PromptBatch | None, answers: Sequence[Sequence[Sequence[int]]] = (),
        kept: KeyValues | None = None,
    ) -> tuple[Laid, Tensor, Tensor, Tensor | None]:  # fmt: skip
        """Rows, and answers behind them, through the layers; keys and values of known prompts are not computed again."""
        given = None
        known = prompts is not None and not self.sharded and 0 not in batch.input_lengths
        laid = self._laid(batch, prompts, targets=False, answers=answers, given=known)
        laid.check_scored()
        if prompts is not None and known:
            given = self._given(prompts, laid.used)
        x_SH, out_SH = self._pass(laid.x_SH, laid.tree, _NO_MASKS, given, kept)
        return laid, x_SH, out_SH, given

    def _given(self, prompts: PromptBatch, used: Sequence[int]) -> Tensor:
        """Keys (rotated) and values of some prompts, one after the other, [layers, S, 2 G K]; those with a key are remembered."""
        known = {
            u: self._prompt_kv[key] for u in used if (key := prompts.key_U[u]) in self._prompt_kv and key is not None
        }
        missing = [u for u in used if u not in known]
        if missing:
            lengths = tuple(prompts.length_U[u] for u in missing)
            x_SH = torch.cat([prompts.unique_UPH[u, :n] for u, n in zip(missing, lengths, strict=True)]).to(self.dtype)
            kept: KeyValues = []
            tree = Tree(lengths, (-1,) * len(missing), self.device)
            self._pass(x_SH, tree, _NO_MASKS, None, kept)
            parts = torch.stack(self._rotated(kept, tree)).split(list(lengths), 1)  # type: ignore[no-untyped-call]
            known.update(zip(missing, (part.clone() for part in parts), strict=True))
        for u in used:
            self._remember(prompts.key_U[u], known[u])
        return torch.cat([known[u] for u in used], 1)

    def _rotated(self, kept: KeyValues, tree: Tree) -> KeyValues:
        """The same with rotated keys."""
        rotations = self._rotations(tree)
        found = []
        for layer, kv in zip(self.form.plan, kept, strict=True):
            keys, values = kv.view(kv.shape[0], 2, layer.heads.groups, layer.heads.width).unbind(1)
            found.append(torch.stack([rotations[layer.rope].turned(keys), values], 1).flatten(1))
        return found

    def _remember(self, key: str | None, found: Tensor) -> None:
        if key is None:
            return
        if key not in self._prompt_kv:
            self._prompt_kv[key] = found
            self._prompt_kv_bytes += found.nbytes
        self._prompt_kv.move_to_end(key)
        while self._prompt_kv_bytes > self.prompt_cache_bytes and self._prompt_kv:
            self._prompt_kv_bytes -= self._prompt_kv.popitem(last=False)[1].nbytes

    def _exact(self, x_RH: Tensor, out_RH: Tensor) -> Tensor:
        """The last hidden states, summed and normed in float32 at least."""
        total = wide(x_RH) + wide(out_RH)
        if self._norm.bias is not None:
            return F.layer_norm(total, total.shape[-1:], wide(self._norm.weight), wide(self._norm.bias), self._norm.eps)
        return F.rms_norm(total, total.shape[-1:], wide(self._norm.weight), self._norm.eps)

    @torch.no_grad()
    def label_scores(
        self, batch: TokenBatch, prompts: PromptBatch | None, labels: Sequence[Sequence[TokenRow]]
    ) -> list[Tensor]:
        answers = [[[int(i) for i in label] for label in row] for row in labels]
        laid, x_SH, out_SH, _ = self._begin(batch, prompts, answers)
        flat = TokenBatch.of([label for row in answers for label in row], device=self.device)
        target_R, layout = pack(flat.input_BT, flat.input_lengths)
        place_R = laid.predictors(laid.last_B[laid.owner_C], laid.answer_C, layout)
        # Answers of a row share the position that predicts their first token.
        place, inverse_R = torch.unique(place_R, return_inverse=True)
        hidden = self._exact(x_SH[place], out_SH[place])
        score_R = hidden.new_zeros(target_R.shape)
        for begin in range(0, len(place), _TOKENS_AT_ONCE):
            logs = self._project(hidden[begin : begin + _TOKENS_AT_ONCE], exact=True).log_softmax(-1)
            mine = ((inverse_R >= begin) & (inverse_R < begin + _TOKENS_AT_ONCE)).nonzero()[:, 0]
            score_R[mine] = logs[inverse_R[mine] - begin, target_R[mine]]
        score_C = hidden.new_zeros(layout.rows).index_add(0, layout.row_S, score_R)
        return list(torch.split(score_C, [len(row) for row in labels]))

    @torch.no_grad()
    def generate(self, batch: TokenBatch, prompts: PromptBatch | None, max_new_tokens: int) -> list[list[int]]:
        if not batch.size:
            return []
        kept: KeyValues = []
        laid, x_SH, out_SH, given = self._begin(batch, prompts, kept=kept)
        state = _Decoding.of(self, laid, kept, given, max_new_tokens)
        self._check(None, laid.tree.longest + max_new_tokens)
        hidden_BH = self._exact(x_SH[laid.last_B], out_SH[laid.last_B])
        count = batch.size

        def follow(id_R: Tensor, rows_R: Tensor) -> Tensor:
            nonlocal count
            if len(rows_R) < count:
                state.keep(rows_R)
            count = len(rows_R)
            return self._project(self._step(id_R, state), exact=True).argmax(-1)

        return greedy_answers(self, self._project(hidden_BH, exact=True).argmax(-1), follow, max_new_tokens)

    @torch.no_grad()
    def decoding(self, batch: TokenBatch, prompts: PromptBatch | None, max_new_tokens: int) -> Decoding:
        return _Stepping(self, batch, prompts)

    def _step(self, id_B: Tensor, state: _Decoding) -> Tensor:
        """One more token of every row: the hidden states that predict the next ones, [B, H]."""
        if self._root is None:
            return self._decode_step(id_B, state)
        found: Tensor = self._root(self._decode_step, id_B, state)
        return found

    def _decode_step(self, id_B: Tensor, state: _Decoding) -> Tensor:
        state.advance()
        layout = Layout((1,) * id_B.shape[0], self.device)
        rotations = [rotation_of(rope, state.position_B) for rope in self.form.ropes]
        x_BH = self._placed(self._embed(id_B).to(self.dtype), state.position_B)
        out_BH: Tensor | None = None
        for i, layer in enumerate(self._layers):
            run = partial(self._step_layer, i=i, layout=layout, rotations=rotations, state=state)
            x_BH, out_BH = through(layer, run, x_BH, out_BH)
        assert out_BH is not None
        return self._exact(x_BH, out_BH)

    def _step_layer(
        self, layer: DecoderLayer, x_BH: Tensor, out_BH: Tensor | None, *, i: int, layout: Layout,
        rotations: list[Rotation], state: _Decoding,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        x_BH, h_BH = self._residual(x_BH, out_BH, _NO_MASKS, 0, layout, layer.before_attention)
        mixed = state.attend(i, layer, self._qkv(layer, h_BH, layout), rotations[layer.rope])
        out_BH = self._normed(layer.out(mixed), layer.after_attention, layout)
        x_BH, h_BH = self._residual(x_BH, out_BH, _NO_MASKS, 0, layout, layer.before_feed)
        return x_BH, self._feed(layer, h_BH, layout)

    @torch.no_grad()
    def answer_states(self, batch: TokenBatch, prompts: PromptBatch | None) -> Tensor:
        laid, x_SH, out_SH, _ = self._begin(batch, prompts)
        return self._exact(x_SH[laid.last_B], out_SH[laid.last_B]).float()

    @torch.no_grad()
    def encode_mean(self, batch: TokenBatch) -> Tensor:
        laid = self._laid(batch, None, targets=False)
        x_SH, out_SH = self._pass(laid.x_SH, laid.tree, _NO_MASKS)
        hidden_SH = self._exact(x_SH, out_SH).float()
        layout = laid.tree.layout
        total_BH = hidden_SH.new_zeros(layout.rows, hidden_SH.shape[1]).index_add(0, layout.row_S, hidden_SH)
        return total_BH / layout.length_B.clamp(min=1)[:, None]


class _Decoding:
    """Greedy decoding: by layer the keys (rotated) and values of every row, [B, G, L + new, K], by place in its text.

    Places after a row's text stay empty, and what is written follows behind the longest text's place: only the mask and
    the rotation know positions.
    """

    def __init__(self, caches: list[tuple[Tensor, Tensor]], length_B: Tensor, width: int) -> None:
        self.caches = caches
        self.position_B = length_B - 1
        self.length_B, self.width, self.made = length_B, width, 0

    @classmethod
    def of(cls, backbone: DecoderBackbone, laid: Laid, kept: KeyValues, given: Tensor | None, new: int) -> _Decoding:
        place, lengths = laid.tree.whole_texts(laid.rows)
        device = backbone.device
        place_L = on_device(torch.from_numpy(place.ravel()), device)
        caches = []
        for i, (layer, kv) in enumerate(zip(backbone.form.plan, backbone._rotated(kept, laid.tree), strict=True)):
            all_S = kv if given is None else torch.cat([given[i], kv])
            padded = all_S.index_select(0, place_L).view(*place.shape, 2, layer.heads.groups, layer.heads.width)
            pair = F.pad(padded.permute(2, 0, 3, 1, 4), (0, 0, 0, new))
            caches.append((pair[0], pair[1]))
        return cls(caches, on_device(torch.from_numpy(lengths), device), place.shape[1])

    def advance(self) -> None:
        """One more position of every row."""
        self.position_B = self.position_B + 1
        self.made += 1
        if self.width + self.made > self.caches[0][0].shape[2]:
            grown = (0, 0, 0, _MORE_PLACES)
            self.caches = [(F.pad(k, grown), F.pad(v, grown)) for k, v in self.caches]

    def join(self, other: _Decoding) -> None:
        """The other's rows behind these; what was written now counts as text."""
        sides = (self, other)
        width = max(int((side.length_B + side.made).max()) for side in sides)
        places = [side._written(width) for side in sides]
        caches = []
        for mine, theirs in zip(self.caches, other.caches, strict=True):
            k, v = (torch.cat([_moved(mine[i], places[0]), _moved(theirs[i], places[1])]) for i in (0, 1))
            caches.append((k, v))
        self.position_B = torch.cat([self.position_B, other.position_B])
        self.length_B = torch.cat([side.length_B + side.made for side in sides])
        self.caches, self.width, self.made = caches, width, 0

    def _written(self, width: int) -> Tensor:
        """int64 [B, width + some], where each position of a row stands in the caches, text and answer."""
        column = torch.arange(width + _MORE_PLACES, device=self.length_B.device)
        length = self.length_B[:, None]
        place = torch.where(column < length, column, self.width + column - length)
        return place.clamp(max=self.caches[0][0].shape[2] - 1)

    def keep(self, rows: Tensor) -> None:
        """Some rows alone."""
        self.caches = [(k[rows], v[rows]) for k, v in self.caches]
        self.position_B, self.length_B = self.position_B[rows], self.length_B[rows]

    def attend(self, i: int, layer: DecoderLayer, qkv: Tensor, rotation: Rotation) -> Tensor:
        """The new positions' attention in a layer, [B, A K]; their keys and values are added."""
        heads, (keys, values), end = layer.heads, self.caches[i], self.width + self.made
        q, k, v = torch.split(qkv.view(qkv.shape[0], -1, heads.width), [heads.queries, heads.groups, heads.groups], 1)
        turned = rotation.turned(torch.cat([q, k], 1))
        keys[:, :, end - 1], values[:, :, end - 1] = turned[:, heads.queries :], v
        column = torch.arange(end, device=qkv.device)
        place = torch.where(column < self.width, column, self.length_B[:, None] + column - self.width)
        mask = (column >= self.width) | (column < self.length_B[:, None])
        if heads.window is not None:
            mask = mask & (self.position_B[:, None] - place < heads.window)
        mask = mask[:, None, None]
        # One position a row: the heads of a group stand as its queries, and keys and values need no copies.
        q = turned[:, : heads.queries].view(qkv.shape[0], heads.groups, -1, heads.width)
        return attend_masked(q, keys[:, :, :end], values[:, :, :end], mask, heads).flatten(1)


def _moved(cache: Tensor, place_BL: Tensor) -> Tensor:
    """[B, G, L, K] with the positions that stand at these places."""
    return cache.gather(2, place_BL[:, None, :, None].expand(-1, cache.shape[1], -1, cache.shape[3]))


class _Stepping(Decoding):
    """`DecoderBackbone.generate`, a token at a time."""

    def __init__(self, backbone: DecoderBackbone, batch: TokenBatch, prompts: PromptBatch | None) -> None:
        kept: KeyValues = []
        laid, x_SH, out_SH, given = backbone._begin(batch, prompts, kept=kept)
        self._backbone = backbone
        self._state = _Decoding.of(backbone, laid, kept, given, _MORE_PLACES)
        self._take(backbone._exact(x_SH[laid.last_B], out_SH[laid.last_B]))

    def _take(self, hidden_BH: Tensor) -> None:
        self._next_B = self._backbone._project(hidden_BH, exact=True).argmax(-1)
        ends = self._backbone.end_ids
        self.tokens = [None if token in ends else token for token in self._next_B.tolist()]

    @torch.no_grad()
    def advance(self) -> None:
        self._take(self._backbone._step(self._next_B, self._state))

    def keep(self, rows: Sequence[int]) -> None:
        if len(rows) == len(self.tokens):
            return
        index = torch.tensor(list(rows), device=self._backbone.device)
        self._state.keep(index)
        self._next_B, self.tokens = self._next_B[index], [self.tokens[r] for r in rows]

    def join(self, other: _Stepping) -> None:
        self._state.join(other._state)
        self._next_B, self.tokens = torch.cat([self._next_B, other._next_B]), self.tokens + other.tokens
