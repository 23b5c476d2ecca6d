"""The interface of a frozen backbone. Backbones see tensors, token ids and text; never a prompt file or a task.

Letters: B rows, T input tokens, P prompt tokens, L = P + T, D target tokens, H width, V vocabulary, U unique prompts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor

from softprompt.batch import PromptBatch, TokenBatch, TokenRow
from softprompt.errors import one_line

Kind = Literal["t5", "encoder-decoder", "causal"]


def dtype_name(dtype: torch.dtype) -> str:
    """``float32`` for ``torch.float32``."""
    return str(dtype).removeprefix("torch.")


@dataclass(frozen=True, kw_only=True)
class ExampleLosses:
    """Losses of a batch, by row, float32.

    Attributes:
        nll_B: [B], cross-entropy summed over the row's target tokens, in nats.
        log_z_sq_B: [B], the squared log partition function summed over target tokens (z-loss before its weight).
        tokens_B: int64 [B], target tokens counted.
    """

    nll_B: Tensor
    log_z_sq_B: Tensor
    tokens_B: Tensor


@dataclass(frozen=True, kw_only=True)
class Dropout:
    """Dropout in the frozen backbone, its randomness keyed by row and not by place in the batch.

    Attributes:
        rate: probability of zeroing, in [0, 1).
        key_B: int64 [B], one key a row, made from (run seed, step, example); a site number is mixed in by the backbone.
    """

    rate: float
    key_B: Tensor

    def select(self, rows: Tensor) -> Dropout:
        """That of some rows, int64 [B'], places in the batch."""
        return Dropout(rate=self.rate, key_B=self.key_B[rows])


class Decoding(ABC):
    """Greedy decoding of some rows: they leave, and rows of another decoding join, between two tokens.

    Attributes:
        tokens: by row, the newest token; None where the row's answer has ended (such rows must leave before `advance`).
    """

    tokens: list[int | None]

    @abstractmethod
    def advance(self) -> None:
        """One more token of every row, into ``tokens``."""

    @abstractmethod
    def keep(self, rows: Sequence[int]) -> None:
        """These rows alone, in this order; at least one."""

    @abstractmethod
    def join(self, other: Self) -> None:
        """The other's rows behind these; both have rows. The other is not used any more."""


class Written(Decoding):
    """Answers that were generated whole: for backbones whose caches cannot be joined.

    Args:
        answers: token ids by row.
    """

    def __init__(self, answers: Sequence[Sequence[int]]) -> None:
        self._left: list[list[int | None]] = [[*answer, None] for answer in answers]
        self.tokens = []
        self.advance()

    def advance(self) -> None:
        self.tokens = [left.pop(0) for left in self._left]

    def keep(self, rows: Sequence[int]) -> None:
        self._left, self.tokens = [self._left[r] for r in rows], [self.tokens[r] for r in rows]

    def join(self, other: Written) -> None:
        self._left, self.tokens = self._left + other._left, self.tokens + other.tokens


class Backbone(ABC):
    """A frozen language model with the soft prompt in front of its (encoder's) input embeddings.

    Attributes:
        kind: family of the architecture.
        name: what the user asked for (hub id, folder or ``builtin``).
        hidden_size: H, width of the input embeddings and of a prompt's rows.
        vocab_size: V.
        fingerprint: hex digest over stored weights, canonical architecture and tokenizer.
        tokenizer: the Hugging Face tokenizer.
        max_length: the most positions P + T the backbone can hold; None where it has no limit.
        dtype: torch dtype in which it computes, and of the frozen weights where they are not quantised.
        precision: how the frozen weights are held: ``float32``, ``bfloat16``, ..., ``int8`` or ``int4``.
        device: where they are.
        sharded: whether its layers lie in shards on several processes: these then run the same number of forward passes.
        parameter_count: number of stored parameters, tied ones counted once.
        activation_bytes: what a training holds for one position, roughly.
    """

    kind: Kind
    name: str
    hidden_size: int
    vocab_size: int
    fingerprint: str
    tokenizer: Any
    max_length: int | None
    dtype: torch.dtype
    precision: str
    device: torch.device
    sharded: bool = False
    checkpointing: bool
    parameter_count: int
    activation_bytes: int

    def __repr__(self) -> str:
        return one_line(
            f"<Backbone {self.name}: {self.parameter_count:,} parameters, {self.precision} on {self.device}>"
        )

    @abstractmethod
    def tokenize_inputs(self, texts: Sequence[str], max_tokens: int | None = None) -> list[list[int]]:
        """Token ids of input texts, cut to ``max_tokens`` (special tokens included), with the model's end token."""

    @abstractmethod
    def tokenize_targets(self, texts: Sequence[str], max_tokens: int | None = None) -> list[list[int]]:
        """Token ids of target texts, ending with the end-of-sequence id the decoder learns to emit."""

    @abstractmethod
    def framing(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Ids that `tokenize_inputs` puts before and behind a text, and those that `tokenize_targets` puts behind one."""

    @abstractmethod
    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Texts of generated ids, special tokens left out, spaces trimmed."""

    @abstractmethod
    def embedding_table(self) -> Tensor:
        """float32 [V, H], the input embeddings in the scale in which prompts stand beside them. Detached."""

    @abstractmethod
    def example_losses(
        self, batch: TokenBatch, prompts: PromptBatch | None, dropout: Dropout | None = None
    ) -> ExampleLosses:
        """Losses by row; gradients flow to ``prompts.unique_UPH`` alone. ``aux_loss_B`` is not added here."""

    @abstractmethod
    def logits(self, batch: TokenBatch, prompts: PromptBatch | None) -> Tensor:
        """float32 [B, D, V], teacher-forced logits of the targets; rows past a target's length are undefined."""

    @abstractmethod
    def generate(self, batch: TokenBatch, prompts: PromptBatch | None, max_new_tokens: int) -> list[list[int]]:
        """Greedy continuations (ids, end token left out), at most ``max_new_tokens`` long. The encoder runs once."""

    def decoding(self, batch: TokenBatch, prompts: PromptBatch | None, max_new_tokens: int) -> Decoding:
        """`generate`, a token at a time, so that rows join and leave; its first tokens are there at once.

        Args:
            max_new_tokens: the most that any of these rows will be asked for; the caller stops at each row's own.
        """
        return Written(self.generate(batch, prompts, max_new_tokens))

    @abstractmethod
    def label_scores(
        self, batch: TokenBatch, prompts: PromptBatch | None, labels: Sequence[Sequence[TokenRow]]
    ) -> list[Tensor]:
        """How probable each of a row's candidate answers is: by row, float32 [C_b], summed log-probabilities in nats.

        All candidates of a row share its prompt and text, which pass the layers once; there is no decoding loop. Logits
        are computed in float32 from the last hidden states (float64 for a float64 backbone).

        Args:
            batch: B rows; targets are ignored.
            labels: by row, its candidates as token ids that end with the end id (``tokenize_targets``), any number.
        """

    @abstractmethod
    def answer_states(self, batch: TokenBatch, prompts: PromptBatch | None) -> Tensor:
        """float32 [B, H'], the last hidden state that the first token of each row's answer is predicted from; targets are ignored."""

    @abstractmethod
    def encode_mean(self, batch: TokenBatch) -> Tensor:
        """float32 [B, H'], the frozen backbone's own mean-pooled encoding of the inputs, without a prompt."""

    @abstractmethod
    def weights_digest(self) -> str:
        """sha256 over all weights in memory, for the promise that nothing but prompts changes."""

    @abstractmethod
    def shard(self, device: torch.device) -> None:
        """Put the layers in shards on all processes and the rest on the device; see ``sharding.shard``."""

    @property
    @abstractmethod
    def hf_model(self) -> Any:
        """The live Hugging Face module (for ``generate`` with beams, Trainer, export)."""
