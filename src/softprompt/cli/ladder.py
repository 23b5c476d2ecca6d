"""``softprompt ladder``: every method on a ladder of model sizes, score against parameters (SPoT Figure 1)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softprompt.cli import options as o
from softprompt.cli.app import app, command
from softprompt.cli.baselines import Rank, Shots
from softprompt.cli.output import Answer, first_process, lines
from softprompt.cli.progress import say, training
from softprompt.errors import SoftpromptError

if TYPE_CHECKING:
    from softprompt.backbones.base import Backbone
    from softprompt.study.ladder import LadderSettings


@command(app, "ladder")
def ladder(
    backbones: Annotated[
        str,
        typer.Option(
            "--backbones",
            help="Ids or folders, commas between, or t5-lm-adapted, t5-1.1, sharpt-sizes.",
            show_default=False,
        ),
    ],
    task: o.TaskNames,
    methods: Annotated[
        str,
        typer.Option(
            "--methods", help="prompt-tuning, spot, sharpt, model-tuning, multitask-tuning, lora, prompt-design."
        ),
    ] = "prompt-tuning,model-tuning,lora,prompt-design",
    sources: Annotated[
        str | None,
        typer.Option("--sources", help="What spot, sharpt and multitask-tuning learn from: tasks or a mixture."),
    ] = None,
    data: o.Data = None,
    out: Annotated[Path, typer.Option("--out", help="Records, run directories, table and figure.")] = Path(
        "runs/ladder"
    ),
    seeds: o.Seeds = "1,2,3",
    recipe: o.Recipe = "quick",
    tune_recipe: Annotated[str, typer.Option("--tune-recipe", help="Of model tuning.")] = "model-tuning-quick",
    lora_recipe: Annotated[str, typer.Option("--lora-recipe", help="Of LoRA.")] = "lora-quick",
    sharpt_recipe: Annotated[str, typer.Option("--sharpt-recipe", help="Of SharPT.")] = "quick",
    steps: Annotated[int | None, typer.Option("--steps", help="Of prompts on a target task.")] = None,
    tune_steps: Annotated[
        int | None, typer.Option("--tune-steps", help="Of model tuning and LoRA on a target.")
    ] = None,
    source_steps: Annotated[int | None, typer.Option("--source-steps", help="On the sources, of every method.")] = None,
    prompt_length: o.PromptLength = None,
    set_: o.Set = None,
    tune_set: Annotated[
        list[str] | None, typer.Option("--tune-set", metavar="NAME=VALUE", help="As --set, of model tuning and LoRA.")
    ] = None,
    rank: Rank = 8,
    shots: Shots = 16,
    train_rows: o.TrainRows = None,
    validation_rows: o.ValidationRows = None,
    figures: o.Figures = True,
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    sharded: o.Sharded = False,
    checkpointing: o.Checkpointing = False,
) -> Answer:
    """Compare methods over model sizes: score against parameters."""
    from softprompt.baselines.ladder import climb
    from softprompt.report.ladder import report_ladder
    from softprompt.study.ladder import ladder_methods

    recipes = {"prompt": recipe, "tune": tune_recipe, "lora": lora_recipe, "sharpt": sharpt_recipe}
    counts = {"prompt": steps, "tune": tune_steps, "source": source_steps}
    settings = _settings(recipes, counts, prompt_length, set_, tune_set, rank, shots, sources, data)
    chosen = ladder_methods(o.words(methods, "--methods"), settings)
    tasks = o.open_tasks(o.words(task, "--task"), data)

    def load(name: str) -> Backbone:
        return o.open_backbone(name, dtype, device, sharded=sharded, checkpointing=checkpointing)

    found = climb(
        _rungs(backbones), tasks, chosen, out, load=load,
        seeds=o.numbers(seeds, "--seeds"), train_rows=train_rows, validation_rows=validation_rows,
        command=o.command_line(), tell=_tell, watch=training,
    )  # fmt: skip
    if not found.records:
        raise SoftpromptError(f"no cell of the ladder could be made: {_why(found.failed)}")
    if not first_process():
        return Answer(data={})
    made, files = report_ladder(found.records, out, figures=figures)
    left_out = [f"left out: {cell}: {why}" for cell, why in found.failed.items()]
    told = lines(
        made.to_text(), "", *left_out, *(f"written: {path}" for path in files), f"records: {out / 'ladder.jsonl'}"
    )
    rows = [dict(zip(made.columns, row, strict=True)) for row in made.rows]
    return Answer(data={"rows": rows, "records": found.records, "failed": found.failed, "files": files}, show=told)


def _rungs(text: str) -> tuple[str, ...]:
    """Backbones, ladders of the papers by name replaced by theirs."""
    from softprompt.baselines.ladder import T5_LADDER

    names = [rung for word in o.words(text, "--backbones") for rung in T5_LADDER.get(word, (word,))]
    return tuple(dict.fromkeys(names))


def _settings(
    recipes: Mapping[str, str], steps: Mapping[str, int | None], prompt_length: int | None, set_: list[str] | None,
    tune_set: list[str] | None, rank: int, shots: int, sources: str | None, data: Path | None,
) -> LadderSettings:  # fmt: skip
    """Every method's settings from the flags."""
    from dataclasses import replace

    from softprompt.methods.few_shot import DesignSettings
    from softprompt.methods.sharpt.recipes import sharpt_recipe
    from softprompt.study.ladder import LadderSettings
    from softprompt.training.weights.lora import LoraSettings
    from softprompt.training.weights.settings import tune_recipe

    prompt = o.train_settings(recipes["prompt"], set_, steps=steps["prompt"], prompt_length=prompt_length)
    tune = o.changed_settings(tune_recipe(recipes["tune"]), tune_set, steps=steps["tune"])
    space = sharpt_recipe(recipes["sharpt"])
    length = prompt_length or space.source.prompt_length
    space_source = o.changed_settings(space.source, set_, steps=steps["source"], prompt_length=length)
    space_target = o.changed_settings(space.target, set_, steps=steps["prompt"], prompt_length=length)
    mixture, tasks = (None, []) if sources is None else o.open_mixture(sources, data)
    return LadderSettings(
        prompt=prompt,
        source=prompt if steps["source"] is None else prompt.having(steps=steps["source"]),
        tune=tune,
        tune_source=tune.having(steps=tune.steps if steps["source"] is None else steps["source"], patience=0),
        lora_tune=o.changed_settings(tune_recipe(recipes["lora"]), tune_set, steps=steps["tune"]),
        lora=LoraSettings(rank=rank),
        design=DesignSettings(shots=shots, fit=True),
        sharpt=replace(space, source=space_source, target=space_target),
        mixture=mixture,
        sources=tasks,
    )


def _tell(record: Mapping[str, Any]) -> None:
    say(
        f"{record['method']} on {record['backbone']}, {record['task']}, seed {record['seed']}: "
        f"score {record['score']:.1f}, {record['seconds']:.1f} s"
    )


def _why(failed: Mapping[str, str]) -> str:
    return "; ".join(f"{cell}: {why}" for cell, why in failed.items())
