"""What every encoder-decoder backbone shares: packed rows in, losses, logits, greedy decoding and encodings out.

The prompt stands in front of the encoder's input embeddings and touches the text; the decoder gets none (Lester et al.
2021, section 2; SPoT section 2.1). Letters: B rows, T input tokens, P prompt tokens, L = P + T, D target tokens,
S packed encoder positions, R packed decoder positions, H width, V vocabulary, U unique prompts.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from softprompt.backbones.base import Backbone, Decoding, Dropout, ExampleLosses, dtype_name
from softprompt.backbones.engine.attention import DecodeState, Memory
from softprompt.backbones.engine.dropout import Masks
from softprompt.backbones.engine.losses import token_losses
from softprompt.backbones.engine.packing import Layout, pack
from softprompt.backbones.engine.quantized import activation_bytes, parameter_count, precision_of
from softprompt.backbones.fingerprint import digest_memory, digest_tensors
from softprompt.backbones.greedy import greedy_answers
from softprompt.backbones.sharding import Root, local, no_whole_model, shard_layers
from softprompt.backbones.texts import tokenize
from softprompt.batch import PromptBatch, TokenBatch, TokenRow, on_device
from softprompt.distributed import in_step
from softprompt.errors import IncompatibleBackboneError, UsageError

Result = TypeVar("Result")

_CANDIDATE_POSITIONS = 16384  # source positions that candidates scored together read


class Seq2SeqBackbone(Backbone):
    """An encoder-decoder over a loaded Hugging Face model.

    Args:
        model: the Hugging Face module; frozen here, its fused weights re-pointed to shared storage.
        tokenizer: its tokenizer.
        name: what the user asked for.
        fingerprint: hex digest of the stored model.

    Attributes:
        checkpointing: recompute layers in the backward pass instead of keeping their activations.
    """

    start_id: int
    end_id: int
    end_ids: tuple[int, ...]
    pad_id: int
    _encoder: list[Any]
    _decoder: list[Any]
    _decoder_depth: int

    def __init__(self, model: Any, tokenizer: Any, *, name: str, fingerprint: str) -> None:
        self._model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        self.fingerprint = fingerprint
        self.checkpointing = False
        self._root: Root | None = None
        first = next(model.parameters())
        self.dtype, self.device = first.dtype, first.device
        self.precision = precision_of(model) or dtype_name(self.dtype)
        self.parameter_count = parameter_count(model)
        self.activation_bytes = activation_bytes(model, self.dtype)

    # What an architecture supplies.

    @abstractmethod
    def _word_embeddings(self) -> Tensor:
        """[V, H], the encoder's input embeddings."""

    @abstractmethod
    def _encode(self, x_SH: Tensor, layout: Layout, masks: Masks) -> Tensor:
        """The encoder over packed input embeddings: [S, H]."""

    @abstractmethod
    def _decode(self, id_R: Tensor, layout: Layout, memory: Memory, masks: Masks) -> Tensor:
        """The teacher-forced decoder over packed ids: [R, H]."""

    @abstractmethod
    def _project(self, hidden_RH: Tensor, *, exact: bool = False) -> Tensor:
        """Decoder states to logits [R, V]; exact: in float32 at least, whatever the weights are in."""

    @abstractmethod
    def _step(self, id_B: Tensor, position: int | Tensor, state: DecodeState) -> Tensor:
        """One decoding step at a position of all rows or at each row's own, int64 [B]: [B, H]; extends the state in place."""

    # What follows from it.

    @property
    def hf_model(self) -> Any:
        if self.sharded:
            raise no_whole_model(self.name)
        return self._model

    def _pass(self, run: Callable[..., Result], *inputs: Any) -> Result:
        """``run(*inputs)``, a forward pass through some layers."""
        found: Result = run(*inputs) if self._root is None else self._root(run, *inputs)
        return found

    def shard(self, device: torch.device) -> None:
        self._root = shard_layers(self, self._model, ("_encoder", "_decoder"), device)
        self.device, self.sharded = device, True

    def embedding_table(self) -> Tensor:
        return self._word_embeddings().detach().float()

    def weights_digest(self) -> str:
        if self._root is None:
            return digest_memory(self._model)
        own = [(name, local(p)) for name, p in self._root.named_parameters()]
        return digest_tensors([*own, *self._model.named_parameters()])

    def _rows(self, batch: TokenBatch, prompts: PromptBatch | None) -> tuple[Tensor, Layout]:
        """Packed input embeddings [S, H], every row its prompt and then its text, and their layout."""
        text_lengths = batch.input_lengths
        id_S, text = pack(batch.input_BT, text_lengths)
        if prompts is None:
            self._check_length(text.longest)
            return self._word_embeddings()[id_S], text
        unique_UPH = prompts.unique_UPH
        width = self._word_embeddings().shape[1]
        if unique_UPH.shape[2] != width:
            raise IncompatibleBackboneError(
                f"the prompt has width {unique_UPH.shape[2]} and backbone {self.name} has width {width}: "
                "prompts do not move between backbones; load the backbone it was made for or retrain it."
            )
        prompt_lengths = prompts.lengths()
        layout = Layout(tuple(p + t for p, t in zip(prompt_lengths, text_lengths, strict=True)), batch.input_BT.device)
        self._check_length(layout.longest)
        prompt = Layout(tuple(prompt_lengths), layout.device)
        prompt_place = layout.start_B[prompt.row_S] + prompt.position_S
        text_place = layout.start_B[text.row_S] + prompt.length_B[text.row_S] + text.position_S
        source = prompts.which_B[prompt.row_S] * unique_UPH.shape[1] + prompt.position_S
        prompt_SH = unique_UPH.flatten(0, 1).index_select(0, source)
        x_SH = torch.empty(layout.total, width, dtype=self.dtype, device=layout.device)
        x_SH[text_place] = self._word_embeddings()[id_S]
        return x_SH.index_copy(0, prompt_place, prompt_SH.to(self.dtype)), layout

    def _check_length(self, longest: int) -> None:
        if self.max_length is not None and longest > self.max_length:
            raise UsageError(
                f"a row of {longest} positions (prompt and text) was asked of backbone {self.name}, which holds "
                f"{self.max_length}: lower max_input_tokens or the prompt length."
            )

    def _teacher_forced(
        self, batch: TokenBatch, prompts: PromptBatch | None, dropout: Dropout | None
    ) -> tuple[Tensor, Tensor, Layout]:
        """Decoder states [R, H], targets int64 [R] and the targets' layout."""
        x_SH, source = self._rows(batch, prompts)
        masks = Masks(dropout, self.device)
        memory_SH = self._encode(x_SH, source, masks)
        target_R, layout = pack(batch.target_BD, batch.target_lengths)
        id_R = target_R.roll(1).masked_fill(layout.position_S == 0, self.start_id)
        return self._decode(id_R, layout, Memory(memory_SH, source), masks), target_R, layout

    def example_losses(
        self, batch: TokenBatch, prompts: PromptBatch | None, dropout: Dropout | None = None
    ) -> ExampleLosses:
        hidden_RH, target_R, layout = self._pass(self._teacher_forced, batch, prompts, dropout)
        nll_R, log_z_sq_R = token_losses(hidden_RH, self._project, target_R)
        zero_B = torch.zeros(layout.rows, dtype=nll_R.dtype, device=layout.device)
        return ExampleLosses(
            nll_B=zero_B.index_add(0, layout.row_S, nll_R),
            log_z_sq_B=zero_B.index_add(0, layout.row_S, log_z_sq_R),
            tokens_B=layout.length_B,
        )

    def logits(self, batch: TokenBatch, prompts: PromptBatch | None) -> Tensor:
        hidden_RH, _, layout = self._pass(self._teacher_forced, batch, prompts, None)
        return layout.pad(self._project(hidden_RH).float())

    @torch.no_grad()
    def generate(self, batch: TokenBatch, prompts: PromptBatch | None, max_new_tokens: int) -> list[list[int]]:
        x_SH, source = self._rows(batch, prompts)
        memory = Memory(self._pass(self._encode, x_SH, source, Masks(None, self.device)), source)
        state = DecodeState([None] * self._decoder_depth, memory.padded_BLH, memory.mask)
        position, count = 0, batch.size

        def follow(id_R: Tensor, rows_R: Tensor) -> Tensor:
            nonlocal position, count, state
            if len(rows_R) < count:
                state = state.keep(rows_R)
            position, count = position + 1, len(rows_R)
            return self._project(self._pass(self._step, id_R, position, state)).argmax(-1)

        start_B = torch.full((batch.size,), self.start_id, dtype=torch.int64, device=self.device)
        first_B = self._project(self._pass(self._step, start_B, 0, state)).argmax(-1)
        return greedy_answers(self, first_B, follow, max_new_tokens)

    @torch.no_grad()
    def decoding(self, batch: TokenBatch, prompts: PromptBatch | None, max_new_tokens: int) -> Decoding:
        return _Stepping(self, batch, prompts)

    @torch.no_grad()
    def label_scores(
        self, batch: TokenBatch, prompts: PromptBatch | None, labels: Sequence[Sequence[TokenRow]]
    ) -> list[Tensor]:
        x_SH, source = self._rows(batch, prompts)
        memory_SH = self._pass(self._encode, x_SH, source, Masks(None, self.device))
        flat = [list(map(int, label)) for row in labels for label in row]
        owner = [b for b, row in enumerate(labels) for _ in row]
        scores: list[Tensor] = []
        for part in in_step(candidate_parts([source.lengths[b] for b in owner]), self.sharded):
            scores.append(self._candidate_scores(memory_SH, source, [owner[c] for c in part], [flat[c] for c in part]))
        found = torch.cat(scores)[: len(flat)] if flat else torch.zeros(0, device=self.device)
        return list(torch.split(found, [len(row) for row in labels]))

    def _candidate_scores(
        self, memory_SH: Tensor, source: Layout, owner: Sequence[int], answers: Sequence[Sequence[int]]
    ) -> Tensor:
        """float32 [C], the summed log-probability of each answer to the source row that owns it."""
        lengths = tuple(source.lengths[b] for b in owner)
        repeated = Layout(lengths, self.device)
        row_C = on_device(torch.tensor(list(owner), dtype=torch.int64), self.device)
        place_S = source.start_B[row_C][repeated.row_S] + repeated.position_S
        targets = TokenBatch.of([[] for _ in answers], answers, self.device)
        target_R, layout = pack(targets.target_BD, targets.target_lengths)
        id_R = target_R.roll(1).masked_fill(layout.position_S == 0, self.start_id)
        memory = Memory(memory_SH.index_select(0, place_S), repeated)
        hidden_RH = self._pass(self._decode, id_R, layout, memory, Masks(None, self.device))
        nll_R = token_losses(hidden_RH, partial(self._project, exact=True), target_R)[0]
        return -torch.zeros(layout.rows, dtype=nll_R.dtype, device=self.device).index_add(0, layout.row_S, nll_R)

    @torch.no_grad()
    def answer_states(self, batch: TokenBatch, prompts: PromptBatch | None) -> Tensor:
        x_SH, source = self._rows(batch, prompts)
        memory = Memory(self._pass(self._encode, x_SH, source, Masks(None, self.device)), source)
        state = DecodeState([None] * self._decoder_depth, memory.padded_BLH, memory.mask)
        id_B = torch.full((batch.size,), self.start_id, dtype=torch.int64, device=self.device)
        return self._pass(self._step, id_B, 0, state).float()

    @torch.no_grad()
    def encode_mean(self, batch: TokenBatch) -> Tensor:
        x_SH, layout = self._rows(batch, None)
        hidden_SH = self._pass(self._encode, x_SH, layout, Masks(None, self.device)).float()
        total_BH = hidden_SH.new_zeros(layout.rows, hidden_SH.shape[1]).index_add(0, layout.row_S, hidden_SH)
        return total_BH / layout.length_B.clamp(min=1)[:, None]

    def tokenize_inputs(self, texts: Sequence[str], max_tokens: int | None = None) -> list[list[int]]:
        return self._tokenize(texts, max_tokens, self._input_prefix(), self.end_id)

    def tokenize_targets(self, texts: Sequence[str], max_tokens: int | None = None) -> list[list[int]]:
        return self._tokenize(texts, max_tokens, [], self.end_id)

    def framing(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        return tuple(self._input_prefix()), (self.end_id,), (self.end_id,)

    def _input_prefix(self) -> list[int]:
        return []

    def _tokenize(
        self, texts: Sequence[str], max_tokens: int | None, prefix: list[int], end_id: int
    ) -> list[list[int]]:
        return tokenize(self.tokenizer, texts, max_tokens, prefix, [end_id])

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        return [str(self.tokenizer.decode(list(row), skip_special_tokens=True)).strip() for row in rows]


class _Stepping(Decoding):
    """`Seq2SeqBackbone.generate`, a token at a time."""

    def __init__(self, backbone: Seq2SeqBackbone, batch: TokenBatch, prompts: PromptBatch | None) -> None:
        x_SH, source = backbone._rows(batch, prompts)
        memory = Memory(backbone._encode(x_SH, source, Masks(None, backbone.device)), source)
        self._backbone, self._lengths = backbone, list(source.lengths)
        self._state = DecodeState([None] * backbone._decoder_depth, memory.padded_BLH, memory.mask)
        self._id_B = torch.full((batch.size,), backbone.start_id, dtype=torch.int64, device=backbone.device)
        self._position_B = torch.zeros_like(self._id_B)
        self.tokens = []
        self.advance()

    @torch.no_grad()
    def advance(self) -> None:
        hidden_BH = self._backbone._step(self._id_B, self._position_B, self._state)
        self._id_B = self._backbone._project(hidden_BH).argmax(-1)
        self._position_B = self._position_B + 1
        ends = self._backbone.end_ids
        self.tokens = [None if token in ends else token for token in self._id_B.tolist()]

    def keep(self, rows: Sequence[int]) -> None:
        index = torch.tensor(list(rows), device=self._id_B.device)
        self._id_B, self._position_B = self._id_B[index], self._position_B[index]
        self._lengths, self.tokens = [self._lengths[r] for r in rows], [self.tokens[r] for r in rows]
        self._state = self._state.keep(index).cut(max(self._lengths))

    def join(self, other: _Stepping) -> None:
        self._id_B = torch.cat([self._id_B, other._id_B])
        self._position_B = torch.cat([self._position_B, other._position_B])
        self._lengths, self.tokens = self._lengths + other._lengths, self.tokens + other.tokens
        self._state = self._state.joined(other._state)


def candidate_parts(lengths: Sequence[int]) -> list[range]:
    """Candidates that are scored together: those in a row whose sources have at most some thousand positions in all."""
    parts: list[range] = []
    begin, held = 0, 0
    for c, length in enumerate(lengths):
        if c > begin and held + length > _CANDIDATE_POSITIONS:
            parts.append(range(begin, c))
            begin, held = c, 0
        held += length
    return [*parts, range(begin, len(lengths))] if lengths else parts
