"""Soft prompts as LoRA adapters on the embedding of tokens: what vLLM and SGLang serve as they are, many in one batch.

A decoder-only model reads a prompt [P, H] where it reads P reserved ids whose embeddings are the prompt's rows. That is a
low-rank change of the embedding table: ``lora_embedding_A`` [R, V] picks out the reserved ids (rows of a unit matrix) and
``lora_embedding_B`` [H, R] holds the prompt minus the table's own rows. R is P, or the next rank that vLLM takes, filled
with zeros. The tokenizer of the export puts the ids in front of every text (`softprompt.library.formats.reserved`), so that a
client asks for ``model="NAME"`` and knows nothing of it.

All prompts of an export share the reserved ids, and an engine has one tokenizer for all adapters, so they share a length:
prompts of several lengths become one export each. A shorter prompt cannot be filled up: whatever stood in the rest would be
attended to.

Letters: P prompt tokens, R rank, H width, V rows of the embedding table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from softprompt import artifacts
from softprompt.backbones.base import Backbone
from softprompt.errors import CorruptArtifactError, IncompatibleBackboneError, UsageError, wrong_fields
from softprompt.library.formats.reserved import Reserved, reserve, same_ids, with_prompt
from softprompt.library.formats.serving import adapter_card, export_card, ray_config, serve_script
from softprompt.library.record import ADAPTER_CONFIG, ADAPTER_MODEL, check_prompt
from softprompt.library.store import StoredPrompt

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values of vLLM's ``--max-lora-rank``."""
RECORD = "export.json"
FORMAT = "softprompt-lora-export/1"
_SAMPLES = ("a", "One day, two people met.", "Review: fine\nSentiment:", "caf\u00e9 \u4f60\u597d  3.14\n\n- x")


class ExportRecord(BaseModel):
    """What ``export.json`` keeps, so that further prompts can be added: the reserved ids are those of all of them."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    format: str
    backbone_name: str
    backbone_fingerprint: str
    model: str
    prompt_length: int
    rank: int
    ids: list[int]
    marks: list[str]
    rare: list[str]
    prompts: list[str]

    @property
    def reserved(self) -> Reserved:
        return Reserved(ids=tuple(self.ids), marks=tuple(self.marks), rare=tuple(self.rare))


@dataclass(frozen=True, kw_only=True)
class Exported:
    """One folder of an export.

    Attributes:
        folder: holds ``adapters``, ``tokenizer``, ``serve.sh``, ``ray_serve.yaml``, ``README.md`` and ``export.json``.
        prompts: all names it holds now.
        added: those of this call.
        prompt_length: P of all of them.
        rank: R.
        reserved: ids that stand for the prompt.
        rare: ordinary tokens among them.
    """

    folder: Path
    prompts: tuple[str, ...]
    added: tuple[str, ...]
    prompt_length: int
    rank: int
    reserved: tuple[int, ...]
    rare: tuple[str, ...]


def export_lora(
    backbone: Backbone, prompts: Sequence[StoredPrompt], out: Path, *, model: str, replace: bool = False
) -> list[Exported]:
    """Write prompts as adapters, with a tokenizer and what starts an engine.

    Args:
        backbone: the prompts' own, decoder-only.
        prompts: of one library. With several lengths each length gets a folder ``length-P`` of its own under ``out``.
        out: made where it is missing; prompts are added to an export that is there.
        model: what an engine loads: a folder or hub id with the backbone's weights.
        replace: whether adapters of the same names are replaced.

    Raises:
        UsageError: an architecture that vLLM does not adapt, a prompt too long, names that are taken or an engine cannot
            read, too few ids to reserve, or another export's folder.
        IncompatibleBackboneError: a prompt of another backbone.
    """
    check_engine(backbone)
    if not prompts:
        raise UsageError("no prompt was named, so there is nothing to export.")
    for prompt in prompts:
        prompt.check_backbone(backbone)
        if not set("=,").isdisjoint(prompt.name):
            raise UsageError(
                f"prompt {prompt.name!r} has '=' or ',' in its name, which engines read otherwise: rename it."
            )
    lengths = sorted({prompt.manifest.prompt_length for prompt in prompts})
    if len(lengths) == 1:
        return [_export(backbone, prompts, out, model, replace)]
    if (out / RECORD).exists():
        raise UsageError(
            f"{out} holds an export of one prompt length and {', '.join(map(str, lengths))} tokens were asked for: an engine "
            "has one tokenizer for all its adapters, so name another folder."
        )
    groups = [[prompt for prompt in prompts if prompt.manifest.prompt_length == length] for length in lengths]
    return [
        _export(backbone, group, out / f"length-{length}", model, replace)
        for length, group in zip(lengths, groups, strict=True)
    ]


def check_engine(backbone: Backbone) -> None:
    """Refuse a backbone whose embedding engines do not adapt, with the way out.

    Raises:
        UsageError: not decoder-only, not in the list read from vLLM, or its embedding does more than look up rows.
    """
    if backbone.kind != "causal":
        raise UsageError(
            f"engines serve decoder-only models and {backbone.name} is of kind {backbone.kind}: use 'softprompt serve'."
        )
    known = json.loads((Path(__file__).parent / "engines.json").read_text())
    names = list(getattr(backbone.hf_model.config, "architectures", None) or [type(backbone.hf_model).__name__])
    if not set(names) & set(known["architectures"]):
        raise UsageError(
            f"vLLM {known['vllm']} takes no adapter on the embedding of {', '.join(names)} ({backbone.name}): send the prompt "
            "with each request instead (--format vllm and prompt_embeds, a server started with --enable-prompt-embeds), or "
            "use 'softprompt serve'."
        )
    ids = torch.arange(min(8, backbone.vocab_size))
    table_VH = backbone.hf_model.get_input_embeddings().weight
    if not torch.equal(backbone.embedding_table()[ids], table_VH[ids.to(table_VH.device)].float().cpu()):
        raise UsageError(
            f"the embedding of {backbone.name} scales its rows, which an adapter on it would too: serve the prompt through "
            "prompt_embeds (--format vllm)."
        )


def lora_tensors(prompt_PH: Tensor, rows_PH: Tensor, ids: Sequence[int], rows: int, rank: int) -> tuple[Tensor, Tensor]:
    """The two matrices of an adapter, ``A`` [R, V] and ``B`` [H, R], float32: row ids[p] of the table becomes prompt row p.

    Args:
        prompt_PH: float [P, H].
        rows_PH: float [P, H], the table's own rows at the reserved ids.
        ids: P token ids.
        rows: V.
        rank: R, at least P.
    """
    length, width = prompt_PH.shape
    a_RV = torch.zeros(rank, rows)
    a_RV[torch.arange(length), torch.tensor(ids)] = 1.0
    b_HR = torch.zeros(width, rank)
    b_HR[:, :length] = (prompt_PH.double() - rows_PH.double()).T
    return a_RV, b_HR


def rank_of(length: int) -> int:
    """The smallest rank of `RANKS` that holds a prompt.

    Raises:
        UsageError: the prompt is longer than all of them.
    """
    for rank in RANKS:
        if rank >= length:
            return rank
    raise UsageError(
        f"a prompt of {length} tokens needs an adapter of rank {length}, and vLLM takes at most {RANKS[-1]}: serve it through "
        "prompt_embeds (--format vllm)."
    )


def _export(backbone: Backbone, prompts: Sequence[StoredPrompt], out: Path, model: str, replace: bool) -> Exported:
    record = _record(backbone, prompts, out, model)
    names = [prompt.name for prompt in prompts]
    taken = [name for name in names if name in record.prompts]
    if taken and not replace:
        raise UsageError(f"{out} holds {', '.join(taken)} already: add --replace, or name others.")
    if not record.prompts:
        _write_tokenizer(backbone, record.reserved, prompts, out / "tokenizer")
    for prompt in prompts:
        _write_adapter(backbone, prompt, record, out / "adapters" / prompt.name)
    record = record.model_copy(update={"prompts": sorted({*record.prompts, *names})})
    _write_around(record, out)
    return Exported(
        folder=out,
        prompts=tuple(record.prompts),
        added=tuple(names),
        prompt_length=record.prompt_length,
        rank=record.rank,
        reserved=tuple(record.ids),
        rare=tuple(record.rare),
    )


def _record(backbone: Backbone, prompts: Sequence[StoredPrompt], out: Path, model: str) -> ExportRecord:
    """The record of the export that is there, or of a new one."""
    length = prompts[0].manifest.prompt_length
    path = out / RECORD
    if not path.exists():
        if out.exists() and any(out.iterdir()):
            raise UsageError(f"{out} is not empty and holds no export: name another folder.")
        reserved = reserve(
            backbone.tokenizer, backbone.vocab_size, length, key=backbone.fingerprint, protected=_words(prompts)
        )
        return ExportRecord(
            format=FORMAT, backbone_name=backbone.name, backbone_fingerprint=backbone.fingerprint, model=model,
            prompt_length=length, rank=rank_of(length), prompts=[],
            **{key: list(value) for key, value in asdict(reserved).items()},
        )  # fmt: skip
    try:
        found = ExportRecord.model_validate(artifacts.read_json(path))
    except ValidationError as error:
        raise CorruptArtifactError(f"{path}: {wrong_fields(error)}; export into another folder.") from error
    if found.backbone_fingerprint != backbone.fingerprint:
        raise IncompatibleBackboneError(
            f"{out} holds prompts of {found.backbone_name} ({found.backbone_fingerprint[:12]}), and these are of "
            f"{backbone.name} ({backbone.fingerprint[:12]}): export them into another folder."
        )
    if found.prompt_length != length:
        raise UsageError(
            f"{out} holds prompts of {found.prompt_length} tokens and these have {length}: an engine has one tokenizer for "
            "all its adapters, so export them into another folder."
        )
    return found


def _words(prompts: Sequence[StoredPrompt]) -> list[str]:
    """What prompts read and write in every text: labels and templates."""
    found: list[str] = []
    for prompt in prompts:
        wording: Mapping[str, Any] = prompt.manifest.wording or {}
        for value in (wording.get("template"), wording.get("instruction")):
            found += [value] if isinstance(value, str) else []
        for words in (wording.get("labels"), wording.get("answers")):
            found += [form for word in words or [] for form in (str(word), f" {word}")]
    return found


def _write_tokenizer(backbone: Backbone, reserved: Reserved, prompts: Sequence[StoredPrompt], folder: Path) -> None:
    """The tokenizer, after it was read back and compared with the backbone's."""
    from transformers import PreTrainedTokenizerFast

    made = with_prompt(backbone.tokenizer, reserved)
    with artifacts.new_folder(folder) as place:
        made.save_pretrained(place)
        config = json.loads((place / "tokenizer_config.json").read_text())
        # A class of its own would rebuild what stands around texts when it is loaded; this one takes the file as it is.
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        (place / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")
        # Engines look for the kind of model beside a tokenizer.
        backbone.hf_model.config.save_pretrained(place)
        texts = [*_SAMPLES, *_words(prompts)]
        wrong = same_ids(
            PreTrainedTokenizerFast.from_pretrained(place), reserved, texts, backbone.tokenize_inputs(texts)
        )
        if wrong is not None:
            raise UsageError(
                f"the exported tokenizer reads {wrong!r} otherwise than {backbone.name} does, so nothing was exported: serve "
                "prompts through prompt_embeds (--format vllm)."
            )


def _write_adapter(backbone: Backbone, prompt: StoredPrompt, record: ExportRecord, folder: Path) -> None:
    prompt_PH = prompt.prompt()
    check_prompt(prompt_PH, f"prompt {prompt.name!r}")
    model = backbone.hf_model
    module = next(name for name, part in model.named_modules() if part is model.get_input_embeddings())
    rows_PH = model.get_input_embeddings().weight.detach()[record.ids].cpu().float()
    a_RV, b_HR = lora_tensors(prompt_PH, rows_PH, record.ids, backbone.vocab_size, record.rank)
    stem = f"base_model.model.{module}.lora_embedding"
    files = {
        ADAPTER_CONFIG: artifacts.json_bytes(lora_config(record.model, module.rpartition(".")[2], record.rank)),
        ADAPTER_MODEL: artifacts.tensor_bytes({f"{stem}_A": a_RV, f"{stem}_B": b_HR}),
        "README.md": adapter_card(prompt.manifest, record.backbone_name).encode(),
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    artifacts.write_folder(folder, files, replace=True)


def lora_config(model: str, module: str, rank: int) -> dict[str, Any]:
    """PEFT's ``adapter_config.json`` of an adapter on one embedding module."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": model,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "target_modules": [module],
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "modules_to_save": None,
        "use_rslora": False,
        "use_dora": False,
    }


def _write_around(record: ExportRecord, out: Path) -> None:
    """The files beside adapters and tokenizer; the record last, since with it the export counts."""
    artifacts.write_bytes(out / "serve.sh", serve_script(record.model, record.rank, len(record.prompts)).encode())
    (out / "serve.sh").chmod(0o755)
    artifacts.write_bytes(out / "ray_serve.yaml", ray_config(record.model, record.rank, len(record.prompts)).encode())
    text = export_card(record.backbone_name, record.prompt_length, record.prompts, record.rare)
    artifacts.write_bytes(out / "README.md", text.encode())
    artifacts.write_json(out / RECORD, record.model_dump())
