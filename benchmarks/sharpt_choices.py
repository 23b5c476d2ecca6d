"""Measure what the SharPT paper leaves open: K, the start and units of E, metric, mixing, residual, ablations.

    python benchmarks/sharpt_choices.py --data DATA --out runs/sharpt_choices.jsonl          # run what is missing
    python benchmarks/sharpt_choices.py --out runs/sharpt_choices.jsonl --summary            # print the table

One JSON line a variant and seed; what the file holds is not run again, so the script can be stopped at any time. All
variants share sources, targets, seeds, steps and rows; plain prompt tuning at the targets' steps stands beside them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from softprompt import artifacts
from softprompt.backbones.load import load_backbone
from softprompt.methods.method import Target, Work
from softprompt.methods.sharpt.cache import CachedEncoder
from softprompt.methods.sharpt.encoders import load_encoder
from softprompt.methods.sharpt.method import SharPT
from softprompt.methods.sharpt.recipes import UNTRAINED, SharPTRecipe, sharpt_recipe
from softprompt.methods.sharpt.relations import Relations, relations, task_encodings
from softprompt.methods.sharpt.space import Space
from softprompt.methods.sharpt.start import StartSettings
from softprompt.methods.sharpt.train import train_space, tuned_share, untrained_space
from softprompt.methods.sharpt.union import reference_encodings
from softprompt.methods.sharpt.use import skill_use
from softprompt.prompts.init import default_init, initial_prompts
from softprompt.prompts.latent import PreparedRows
from softprompt.prompts.stack import PromptStack
from softprompt.report.skills import relations_heatmap
from softprompt.tasks.catalog import load_task
from softprompt.training.data import TaskData, task_data
from softprompt.training.loop import train_prompts
from softprompt.training.optim import gradient_norm_N, make_optimizer

RELATION_ROWS = 400  # rows of a task whose skill use represents it

Change = Callable[[SharPTRecipe], SharPTRecipe]


def _start(**changes: Any) -> Change:
    return lambda recipe: replace(recipe, start=replace(recipe.start, **changes))


def _latent(**changes: Any) -> Change:
    return lambda recipe: replace(recipe, latent=replace(recipe.latent, **changes))


VARIANTS: Mapping[str, Change] = {
    "default": lambda recipe: recipe,
    "with-task-names": lambda recipe: replace(recipe, named=True),
    "k-8": _start(skill_count=8),
    "k-128": _start(skill_count=128),
    "k-512": _start(skill_count=512),
    "start-sampled": _start(skill_init="sampled"),
    "start-normal": _start(skill_init="normal"),
    "step-0.3": _start(skill_step=0.3),  # the paper's rate in plain units
    "prompt-units": _start(skill_step=1.12),  # E in the units of a prompt of the embedded backbone: collapses
    "no-entropy-into-skills": _latent(skill_gradient=False),
    "top-4": _latent(top_n=4),
    "soft": lambda recipe: replace(recipe, latent=replace(recipe.latent, top_n=recipe.start.skill_count)),
    "residual": _start(task_prompt=True),
    "not-balanced": _start(balanced=False),
    "paper-start": lambda recipe: replace(
        recipe,
        start=StartSettings(skill_count=recipe.start.skill_count, skill_init="normal", generator_init="linear",
                            standardise=False, balanced=False, skill_step=0.03),
    ),
    "no-latent-space": lambda recipe: recipe.ablated("no-latent-space"),
    "no-source-training": lambda recipe: recipe.ablated("no-source-training"),
    "generator-only": lambda recipe: recipe.ablated("generator-only"),
}  # fmt: skip


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument(
        "--data", help="folder with tasks/<name>/{train,validation}.*; generated tasks or the hub otherwise"
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, appended to")
    parser.add_argument("--summary", action="store_true", help="print the table of what --out holds and stop")
    parser.add_argument(
        "--figure", type=Path, help="draw the default's source-to-target relations that --out holds, and stop"
    )
    parser.add_argument("--variants", help="commas between; all where not given")
    parser.add_argument("--sources", default="mnli,qqp,qnli,sst2,squad,multirc,winogrande,race")
    parser.add_argument("--targets", default="cb,rte,cr,mrpc,copa,wic")
    parser.add_argument("--spaces-only", action="store_true", help="train the spaces and adapt them to no target")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--recipe", default="quick")
    parser.add_argument("--backbone", default="builtin")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument(
        "--encoder", default="backbone", help="one of sharpt.encoders; a variant of its own in the file"
    )
    parser.add_argument("--codebook-only", action="store_true", help="tune E by equation 4 alone: seconds a variant")
    parser.add_argument("--cache", type=Path, help="folder of instance encodings")
    parser.add_argument("--runs", type=Path, help="folder of source trainings; one that was stopped goes on")
    parser.add_argument("--batch-size", type=int, help="rows a step of source training")
    parser.add_argument("--source-steps", type=int)
    parser.add_argument("--target-steps", type=int)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--skill-count", type=int)
    parser.add_argument("--train-rows", type=int, default=4000)
    parser.add_argument("--validation-rows", type=int, default=400)
    return parser.parse_args()


def recipe_of(options: argparse.Namespace) -> SharPTRecipe:
    recipe = sharpt_recipe(options.recipe)
    source, target = recipe.source, recipe.target
    if options.source_steps:
        source = source.having(steps=options.source_steps, eval_every=options.source_steps)
    if options.batch_size:
        source = source.having(batch_size=options.batch_size)
    if options.target_steps:
        target = target.having(steps=options.target_steps, eval_every=max(1, options.target_steps // 2))
    if options.learning_rate:
        source, target = (s.having(learning_rate=options.learning_rate) for s in (source, target))
    recipe = replace(recipe, source=source, target=target)
    return recipe if options.skill_count is None else _start(skill_count=options.skill_count)(recipe)


class Bench:
    """Everything the variants share, and the file they go to."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.recipe = recipe_of(options)
        self.seeds = [int(s) for s in options.seeds.split(",")]
        self.backbone = load_backbone(options.backbone, dtype=options.dtype)
        self.encoder = CachedEncoder(load_encoder(options.encoder, self.backbone), options.cache)
        self.sources = [self.data(name, self.recipe.source) for name in options.sources.split(",")]
        self.targets = [self.data(name, self.recipe.target) for name in options.targets.split(",")]
        shared = {
            "backbone": self.backbone.fingerprint,
            "encoder": self.encoder.fingerprint,
            "data": [d.train.fingerprint for d in (*self.sources, *self.targets)],
            "validation": [d.validation.fingerprint for d in self.targets],
            "recipe": asdict(self.recipe),
        }
        self.setting = artifacts.sha256_bytes(artifacts.json_bytes(shared))[:16]

    def data(self, name: str, settings: Any) -> TaskData:
        return task_data(
            self.backbone, load_task(name, self.options.data), settings, train_rows=self.options.train_rows,
            validation_rows=self.options.validation_rows,
        )  # fmt: skip

    def done(self) -> set[tuple[str, int]]:
        if not self.options.out.exists():
            return set()
        records = artifacts.read_json_lines(self.options.out)
        alone = self.options.codebook_only
        same = [r for r in records if r["setting"] == self.setting and r.get("codebook_only", False) == alone]
        return {(r["variant"], r["seed"]) for r in same}

    def write(self, variant: str, seed: int, scores: Mapping[str, float], started: float, **more: Any) -> None:
        record = {
            "variant": variant, "seed": seed, "score": float(np.mean(list(scores.values()))) if scores else None, "scores": dict(scores),
            "seconds": round(time.perf_counter() - started, 1), "setting": self.setting, "backbone": self.options.backbone,
            "encoder": self.options.encoder, "sources": self.options.sources, "targets": self.options.targets,
            "source_steps": self.recipe.source.steps, "source_batch": self.recipe.source.batch_size, "target_steps": self.recipe.target.steps,
            "train_rows": self.options.train_rows, "validation_rows": self.options.validation_rows, **more,
        }  # fmt: skip
        artifacts.append_json_line(self.options.out, record, durable=True)
        use = more.get("skill_use") or {}
        print(f"{variant} seed {seed}: score {record['score']}, skills {use} ({record['seconds']} s)", flush=True)

    def prompt_tuning(self, seed: int) -> None:
        """The same targets and steps without SharPT: one prompt each, from class labels."""
        started = time.perf_counter()
        settings = self.recipe.target
        starts = [
            initial_prompts(
                self.backbone, default_init("scratch", labels=t.task.labels), settings.prompt_length, [seed]
            )[0]
            for t in self.targets
        ]
        runs = [target.run(target.task.name, seed) for target in self.targets]
        found = train_prompts(self.backbone, PromptStack.of(starts, tuned=True), runs, settings)
        self.write("prompt-tuning", seed, {r.name: r.scores["score"] for r in found}, started)

    def variant(self, name: str, seed: int) -> None:
        started = time.perf_counter()
        recipe = VARIANTS[name](self.recipe)
        more: dict[str, Any] = {}
        folder = self.options.runs and self.options.runs / f"{self.setting}-{name}-{seed}"
        if name in UNTRAINED:
            space = untrained_space(self.backbone, self.encoder, self.sources, recipe, seed=seed)
        else:
            (trained,) = train_space(
                self.backbone, self.encoder, self.sources, recipe, seeds=[seed],
                folder=folder and folder / "sources", resume=folder is not None,
            )  # fmt: skip
            space = trained.space
            more = {"source_scores": trained.result.scores, "source_seconds": round(time.perf_counter() - started, 1)}
            if trained.use is not None:
                more["skill_use"] = trained.use.plain()
                more["skill_use_by_step"] = {r["step"]: r["used"] for r in trained.history}
        if space.skill_count > 1:
            more["relations"] = self.relations(space)
        scores = {}
        if not self.options.spaces_only:
            place = Work(backbone=self.backbone, folder=folder and folder / "targets", resume=folder is not None)
            targets = [Target(data=data) for data in self.targets]
            adapted = SharPT(space, self.encoder, recipe.target).adapt(place, targets, [seed])
            scores = {a.task: a.result.scores["score"] for a in adapted}
            more["cost"] = {
                "tokens": sum(a.result.tokens for a in adapted),
                "eval_tokens": sum(a.result.eval_tokens for a in adapted),
                "encoder_tokens": sum(a.result.encoder_tokens for a in adapted),
            }
        self.write(name, seed, scores, started, tuned=tuned_share(space, self.backbone), **more)

    def codebook(self, name: str, seed: int) -> None:
        """E tuned by equation 4 alone, no backbone in the loop: which choices keep skills in use, in seconds."""
        started = time.perf_counter()
        recipe = VARIANTS[name](self.recipe)
        prompts = untrained_space(self.backbone, self.encoder, self.sources, recipe, seed=seed).prompter(
            self.backbone, self.encoder, tuned=True
        )
        prompts.codebook_loss = True
        task_names = prompts.task_names
        rows_Sm = reference_encodings(self.encoder, self.sources, recipe.reference_rows, task_names)
        own_Sm, rng = prompts.standardise(rows_Sm), np.random.default_rng(seed)
        tuned = {"skills": prompts.tensors["skills"].requires_grad_(True)}
        settings = recipe.source.resolved(self.backbone).having(steps=self.options.source_steps or 400)
        optimizer, before = make_optimizer(tuned, settings), skill_use(prompts, rows_Sm)
        for step in range(settings.steps):
            picked = torch.from_numpy(rng.choice(len(own_Sm), settings.batch_size, replace=False))
            tuned["skills"].grad = None
            batch = prompts(PreparedRows(run_B=torch.zeros(len(picked), dtype=torch.int64), encoding_Bm=own_Sm[picked]))
            batch.aux_loss_B.mean().backward()
            optimizer.step(step, gradient_norm_N(tuned))
        space = Space.of(prompts, self.backbone, name=name, kind="space")
        self.write(
            name, seed, {}, started, codebook_only=True, skills=recipe.start.skill_count,
            skill_use_at_start=before.plain(), skill_use=skill_use(prompts, rows_Sm).plain(),
            relations=self.relations(space),
        )  # fmt: skip

    def relations(self, space: Space) -> dict[str, Any]:
        """Skill use of every task, related: sources with sources, and sources with targets (Figure 3)."""
        prompts = space.prompter(self.backbone, self.encoder)
        sources, targets = (
            {d.task.name: task_encodings(self.encoder, space, d.task, d.train.examples[:RELATION_ROWS]) for d in part}
            for part in (self.sources, self.targets)
        )
        among = relations(prompts, sources, sources).plain()["cosine"]
        figure = relations(prompts, sources, targets).plain()["cosine"]
        return {
            "sources": list(sources),
            "targets": list(targets),
            "among_sources": [[round(value, 3) for value in row] for row in among],
            "source_to_target": [[round(value, 3) for value in row] for row in figure],
        }


def figure(records: Path, path: Path) -> None:
    """SharPT Figure 3 of the default variant, E tuned by equation 4 alone where there is such a line."""
    lines = [r for r in artifacts.read_json_lines(records) if r["variant"] == "default" and "relations" in r]
    found = max(lines, key=lambda r: bool(r.get("codebook_only")))["relations"]
    tasks = [*found["sources"], *found["targets"]]
    relations_heatmap(
        Relations(
            sources=tuple(found["sources"]), targets=tuple(found["targets"]),
            cosine_AB=torch.tensor(found["source_to_target"], dtype=torch.float64), use={}, rows={},
            categories={name: load_task(name).category.replace("_", " ") for name in tasks},
        ),
        path,
    )  # fmt: skip


def summary(path: Path) -> None:
    records = artifacts.read_json_lines(path)
    groups = dict.fromkeys((r["setting"], r.get("codebook_only", False)) for r in records)
    for setting, alone in groups:
        own = [r for r in records if (r["setting"], r.get("codebook_only", False)) == (setting, alone)]
        first = own[0]
        print(f"\n{'equation 4 alone, ' if alone else ''}{first['backbone']}, encoder {first['encoder']}, sources {first['sources']}, targets {first['targets']}, "
              f"{first['source_steps']} + {first['target_steps']} steps [{setting}]")  # fmt: skip
        base = _by_seed(own, "default")
        print(
            f"{'variant':26}{'mean':>7}{'sd':>7}{'vs default':>12}{'used':>7}{'perpl.':>8}{'between':>9}{'seconds':>9}"
        )
        for variant in dict.fromkeys(r["variant"] for r in own):
            mine = [r for r in own if r["variant"] == variant]
            scores = _by_seed(own, variant)
            paired = [scores[s] - base[s] for s in scores if s in base]
            use = [r["skill_use"] for r in mine if "skill_use" in r]
            print(
                f"{variant:26}{_mean(scores.values()):7.2f}{_deviation(list(scores.values())):7.2f}"
                f"{(np.mean(paired) if paired else float('nan')):+12.2f}"
                f"{(np.mean([u['used'] for u in use]) if use else float('nan')):7.0f}"
                f"{(np.mean([u['perplexity'] for u in use]) if use else float('nan')):8.1f}"
                f"{(np.mean([_between(r) for r in mine if 'relations' in r]) if use else float('nan')):9.2f}"
                f"{np.mean([r['seconds'] for r in mine]):9.0f}"
            )


def _between(record: Mapping[str, Any]) -> float:
    """Mean cosine of skill use between two different source tasks."""
    cosine = np.array(record["relations"]["among_sources"])
    return float(cosine[~np.eye(len(cosine), dtype=bool)].mean())


def _by_seed(records: Sequence[Mapping[str, Any]], variant: str) -> dict[int, float]:
    return {r["seed"]: r["score"] for r in records if r["variant"] == variant and r["score"] is not None}


def _mean(values: Iterable[float]) -> float:
    own = list(values)
    return float(np.mean(own)) if own else float("nan")


def _deviation(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def main() -> None:
    options = arguments()
    if options.figure:
        figure(options.out, options.figure)
        return
    if options.summary:
        summary(options.out)
        return
    names = options.variants.split(",") if options.variants else ["prompt-tuning", *VARIANTS]
    unknown = [name for name in names if name not in VARIANTS and name != "prompt-tuning"]
    if unknown:
        raise SystemExit(f"unknown variant {unknown[0]!r}; known: prompt-tuning, {', '.join(VARIANTS)}")
    bench = Bench(options)
    done = bench.done()
    for seed in bench.seeds:  # all variants at one seed first: a table early, more certainty later
        for name in names:
            if (name, seed) in done:
                continue
            if options.codebook_only:
                bench.codebook(name, seed)
            elif name == "prompt-tuning":
                bench.prompt_tuning(seed)
            else:
                bench.variant(name, seed)


if __name__ == "__main__":
    main()
