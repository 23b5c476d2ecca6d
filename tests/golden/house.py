"""What the house delivers, from end to end, on tiny random models: a refactor changes nothing of it.

python -m tests.golden.house          prints how today's results differ from the stored ones
python -m tests.golden.house --write  stores today's

Five ways through the house: a study with every kind of cell, a transfer with every strategy, a quickstart, an adaptation of
a latent space, and the tunings of weights. Kept of each: scores, chosen steps, validation curves and delivered tensors.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.support import models
from tests.support.models import corpus, tiny_backbone
from tests.support.small_tasks import SETTINGS, WordEncoder, adapt, small_data

STORED = Path(__file__).with_name("house_parity.json")
TENSORS = Path(__file__).with_name("house_parity.safetensors")
MODEL = Path(__file__).with_name("house_model.safetensors")
"""A tiny T5 that answers yes and no: tuned a little on small tasks, so that scores are neither 0 nor 100."""

Facts = dict[str, Any]
Found = tuple[Facts, dict[str, torch.Tensor]]
TRAIN = SETTINGS.having(steps=12, eval_every=6, embedding_step=4, learning_rate=0.5, dropout=0.1)


@contextmanager
def fixed_words() -> Iterator[None]:
    """A tokenizer whose pieces are written down: the trained one of ``tests.support.models`` differs from process to process."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import Unigram

    words = sorted({word.strip(".") for text in corpus() for word in text.split()})
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0), (".", -4.0)]
    pieces += [(f"▁{word}", -5.0) for word in words] + [(letter, -8.0) for letter in "abcdefghijklmnopqrstuvwxyz"]
    tokenizer = Tokenizer(Unigram(pieces, 2))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    before, text = models._tokenizer_text, str(tokenizer.to_str())
    models._tokenizer_text = lambda kind: text
    try:
        yield
    finally:
        models._tokenizer_text = before


def _backbone() -> Any:
    from safetensors.torch import load_file

    from softprompt.backbones.load import wrap

    model, tokenizer = models.tiny_model("t5")
    model.load_state_dict({name: t.float() for name, t in load_file(MODEL).items()}, strict=False)
    return wrap(model, tokenizer, name="parity")


def _data(folder: Path) -> Path:
    """Three tasks in a user's own columns, each a folder of two files: does the text have the word?"""
    for t, word in enumerate(("film", "story", "actor")):
        task = folder / "data" / f"about_{word}"
        task.mkdir(parents=True)
        for split, rows in (("train", 24), ("validation", 20)):
            lines = [
                json.dumps({"text": text, "label": "yes" if word in text else "no"})
                for text in corpus(rows, seed=10 * t + len(split))
            ]
            (task / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "data"


def _told(result: Any) -> Facts:
    """Scores, choice and curve of one run."""
    curve = [[r["step"], r["loss"], r["score"]] for r in result["curve"]]
    best = {name: result[name] for name in ("status", "steps", "best_step", "best_score", "tokens", "eval_tokens")}
    return {**best, "scores": dict(result["scores"]), "curve": curve}


def study(folder: Path) -> Found:
    """Every kind of cell on a tiny T5, checkpoints chosen on one half of validation."""
    from softprompt.study.build import build_grid
    from softprompt.study.run import facts_of, open_study, run_study
    from softprompt.study.settings import study_of

    train = {
        "recipe": "quick", "steps": 12, "batch_size": 4, "prompt_length": 4, "eval_every": 6, "max_input_tokens": 24,
        "warmup_steps": 0, "eval_rows": 0, "learning_rate": 0.5,
    }  # fmt: skip
    values = {
        "name": "parity", "backbone": str(folder / "model"), "dtype": "float32", "protocol": "halves", "data": str(_data(folder)),
        "sources": ["about_film", "about_story"], "targets": ["about_actor"], "seeds": [0], "scratch_seeds": 1,
        "source": train, "target": train,
        "embedding": {"step": 2, "other_steps": [1]},
        "strategies": {
            "weighted_average": [2], "multitask_mixture": [1], "best_of_top_k": [1], "predictors": ["zero-shot-loss"],
            "race": True,
        },
        "methods": ["sharpt", "model_tuning", "multitask_model_tuning"],
        "sharpt": {
            "recipe": "quick", "encoder": "backbone", "skills": 4, "prompt_length": 4, "source_steps": 3,
            "target_steps": 2, "ablations": ["no-source-training", "no-latent-space"],
        },
        "model_tuning": {"recipe": "model-tuning-quick", "steps": 2, "source_steps": 3},
    }  # fmt: skip
    backbone = _backbone()
    backbone.hf_model.save_pretrained(folder / "model")
    backbone.tokenizer.save_pretrained(folder / "model")
    summary = run_study(study_of(values), folder / "ledger")
    if not summary.complete:
        raise AssertionError(summary.failed)
    opened, ledger, noted = open_study(folder / "ledger")
    facts: Facts = {}
    tensors: dict[str, torch.Tensor] = {}
    for cell in build_grid(opened, facts_of(opened, noted)).cells.values():
        record, name = ledger.read(cell.kind, cell.key), f"{cell.kind}/{cell.name}"
        told = dict(record.result)
        if "curve" in told and cell.kind != "latent_space":
            facts[name] = _told(told)
        elif cell.kind == "evaluation":
            facts[name] = {part: told[part] for part in ("score", "halves", "rows")}
        elif cell.kind == "prediction":
            facts[name] = told["values"]
        if (ledger.path(*cell.id) / "tensors.safetensors").exists() and cell.kind not in ("multitask_tuning",):
            found = ledger.tensors(*cell.id)
            tensors |= {f"{name}/{part}": found[part] for part in ("best", "prompt") if part in found}
    return facts, tensors


def _library(backbone: Any, folder: Path) -> Any:
    from softprompt.library.record import PromptRecord
    from softprompt.library.store import Library

    library = Library(folder / "library")
    draw = np.random.default_rng(4)
    for task in ("alpha", "beta", "gamma"):
        prompt = torch.tensor(draw.standard_normal((3, backbone.hidden_size)), dtype=torch.float32)
        library.add(
            PromptRecord(
                task=task, prompt=prompt, task_embedding=prompt * 0.5, backbone_name=backbone.name,
                backbone_fingerprint=backbone.fingerprint, backbone_kind=backbone.kind, embedding_step=4,
            )
        )  # fmt: skip
    return library


def _report(report: Any) -> Found:
    facts: Facts = {"delivered": report.delivered, "verdict": report.verdict, "ranking": report.ranking}
    for outcome in report.outcomes:
        plain = outcome.plain()
        kept = ("run", "sources", "runs", "select_score", "score", "spread", "cost", "versus_scratch", "step", "notes")
        facts[outcome.strategy] = {name: plain[name] for name in kept}
        facts[outcome.strategy]["curve"] = [[r["step"], r["loss"], r["score"]] for r in plain["curve"]]
    tensors = {f"{o.strategy}/prompt": o.prompt_PH for o in report.outcomes}
    return json.loads(json.dumps(facts)), {**tensors, "delivered": report.prompt_PH, "embedding": report.embedding_PH}


def transfer(folder: Path) -> Found:
    """Every strategy, a race among them, onto one target."""
    from softprompt.methods.method import Target, Work
    from softprompt.methods.spot.run import SPoT
    from softprompt.methods.spot.settings import TransferSettings

    backbone = _backbone()
    data = small_data(backbone, "birds", TRAIN, validation=24)
    others = {name: small_data(backbone, name, TRAIN) for name in ("alpha", "beta", "gamma")}
    settings = TransferSettings(
        train=TRAIN, k=2, average_k=3, mixture_k=2, embedding_runs=2, generic="beta@0", metric="per_token",
        strategies=("best_of_top_k", "weighted_average", "multitask_mixture", "generic", "oracle", "race"),
    )  # fmt: skip
    method = SPoT(
        _library(backbone, folder), settings, mixture_data=lambda names: {name: others[name] for name in names}
    )
    (report,) = method.run_all(Work(backbone=backbone), [Target(data=data)])
    return _report(report)


def quickstart(folder: Path) -> Found:
    """Two sources and a target from a folder of local files."""
    from softprompt.library.store import Library
    from softprompt.quickstart import QuickstartSettings
    from softprompt.quickstart import quickstart as run

    settings = QuickstartSettings(
        out=folder / "out", data=_data(folder), sources=("about_film", "about_story"), targets=("about_actor",),
        source_train=TRAIN, target_train=TRAIN, embedding_runs=1,
    )  # fmt: skip
    backbone = _backbone()
    result = run(backbone, settings)
    (report,) = result.reports
    facts, tensors = _report(report)
    facts["table"] = [{n: v for n, v in row.items() if n != "seconds"} for row in result.table]
    for entry in Library(folder / "out" / "library").list():
        tensors[f"library/{entry.task}"] = Library(folder / "out" / "library").load(entry.name, backbone)
    return json.loads(json.dumps(facts)), tensors


def adaptation(folder: Path) -> Found:
    """A latent space learned on two sources, its generator tuned on a target."""
    from softprompt.methods.sharpt.cache import CachedEncoder
    from softprompt.methods.sharpt.recipes import sharpt_recipe
    from softprompt.methods.sharpt.train import train_space

    backbone, encoder = _backbone(), CachedEncoder(WordEncoder())
    quick = sharpt_recipe("quick")
    recipe = replace(
        quick, source=SETTINGS, target=SETTINGS, start=replace(quick.start, skill_count=4), reference_rows=20
    )
    sources = [small_data(backbone, name) for name in ("animals", "fish")]
    (trained,) = train_space(backbone, encoder, sources, recipe, folder=folder / "space")
    (adapted,) = adapt(
        backbone, encoder, trained.space, [small_data(backbone, "birds")], recipe.target, folder=folder / "target"
    )
    facts = {"space": _told(trained.result.plain()), "target": _told(adapted.result.plain())}
    tensors = {f"space/{n}": t for n, t in trained.space.tensors.items()}
    tensors |= {f"target/{n}": t for n, t in adapted.space.tensors.items()}
    return json.loads(json.dumps(facts)), tensors


def weights(folder: Path) -> Found:
    """All weights, and LoRA's adapters."""
    from softprompt.training.settings import TuneSettings
    from softprompt.training.weights.lora import LoraSettings, tune_lora
    from softprompt.training.weights.tune import tune_model

    settings = TuneSettings(
        steps=12, batch_tokens=100, eval_every=6, eval_rows=0, max_input_tokens=32, max_target_tokens=8, learning_rate=0.1,
        dropout=0.0,
    )  # fmt: skip
    backbone = tiny_backbone("t5")
    run = small_data(backbone, "birds").run("birds", 0)
    made = {
        "model": tune_model(backbone, run, settings, folder / "model"),
        "lora": tune_lora(
            backbone, run, settings.having(optimizer="adamw"), LoraSettings(rank=2), folder / "lora"
        ),
    }  # fmt: skip
    tensors = {f"{kind}/{n}": t for kind, result in made.items() for n, t in sorted(result.best.items())[:4]}
    return json.loads(json.dumps({kind: _told(result.plain()) for kind, result in made.items()})), tensors


WAYS: dict[str, Callable[[Path], Found]] = {
    "study": study, "transfer": transfer, "quickstart": quickstart, "adaptation": adaptation, "weights": weights,
}  # fmt: skip


def differences(found: Any, stored: Any, place: str = "", close: float = 2e-3) -> list[str]:
    """Where two trees of plain JSON differ: numbers by more than ``close`` of themselves, all else at all."""
    if isinstance(found, dict) and isinstance(stored, dict):
        lost = [f"{place}/{name} is only on one side" for name in sorted(set(found) ^ set(stored))]
        return lost + [d for n in found if n in stored for d in differences(found[n], stored[n], f"{place}/{n}", close)]
    if isinstance(found, list) and isinstance(stored, list) and len(found) == len(stored):
        return [
            d for i, (a, b) in enumerate(zip(found, stored, strict=True)) for d in differences(a, b, f"{place}/{i}")
        ]
    if isinstance(found, float) and isinstance(stored, float):
        near = abs(found - stored) <= close * max(abs(stored), 1e-3)
        return [] if near else [f"{place}: {found!r}, stored {stored!r}"]
    return [] if found == stored else [f"{place}: {found!r}, stored {stored!r}"]


def apart(found: torch.Tensor, stored: torch.Tensor) -> float:
    """The distance of two tensors as a share of the length of the second."""
    if found.shape != stored.shape:
        return float("inf")
    return float((found.double() - stored.double()).norm() / stored.double().norm().clamp_min(1e-9))


def compare(way: str, folder: Path) -> list[str]:
    """What of one way differs from what is stored, in words."""
    from safetensors.torch import load_file

    with fixed_words():
        facts, tensors = WAYS[way](folder)
    stored = {n.removeprefix(f"{way}/"): t for n, t in load_file(TENSORS).items() if n.startswith(f"{way}/")}
    found = differences(facts, json.loads(STORED.read_text())[way], way)
    found += [f"{way}/{name} is only on one side" for name in sorted(set(tensors) ^ set(stored))]
    for name in sorted(set(tensors) & set(stored)):
        distance = apart(tensors[name], stored[name])
        if distance > 5e-3:
            found.append(f"{way}/{name} is {distance:.1e} of its length away")
    return found


def write() -> None:
    """Store today's results."""
    from safetensors.torch import save_file

    facts, tensors = {}, {}
    for way, run in WAYS.items():
        with fixed_words(), tempfile.TemporaryDirectory() as folder:
            facts[way], found = run(Path(folder))
        tensors |= {f"{way}/{name}": tensor.contiguous().clone() for name, tensor in found.items()}
    STORED.write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")
    save_file(tensors, TENSORS)


def main(arguments: list[str]) -> int:
    if STORED.exists():
        for way in WAYS:
            with tempfile.TemporaryDirectory() as folder:
                found = compare(way, Path(folder))
            print(f"{way}: {'as stored' if not found else f'{len(found)} differences'}", *found[:20], sep="\n  ")
    if "--write" in arguments:
        write()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
