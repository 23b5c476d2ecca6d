"""``softprompt ladder``: every method on a ladder of model sizes, score against parameters (SPoT Figure 1)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softprompt.cli import options as o
from softprompt.cli.app import app, command
from softprompt.cli.baselines import Rank, Shots
from softprompt.cli.output import Answer, lines
from softprompt.cli.study import watching
from softprompt.errors import SoftpromptError

if TYPE_CHECKING:
    from softprompt.study.settings import Study


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
    out: Annotated[Path, typer.Option("--out", help="Ledgers, one a backbone, table and figure.")] = Path(
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
    rank: Rank = 8,
    shots: Shots = 16,
    train_rows: o.TrainRows = None,
    validation_rows: o.ValidationRows = None,
    figures: o.Figures = True,
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    checkpointing: o.Checkpointing = False,
) -> Answer:
    """Compare methods over model sizes: score against parameters."""
    from softprompt.study.ladder import ladder_methods, ladder_studies, rungs
    from softprompt.study.run import run_study

    mixed = () if sources is None else o.open_mixture(sources, data)[0].tasks
    o.open_tasks(o.words(task, "--task"), data)
    recipes = {"prompt": recipe, "tune": tune_recipe, "lora": lora_recipe, "sharpt": sharpt_recipe}
    made = _study(
        recipes, {"prompt": steps, "tune": tune_steps, "source": source_steps}, prompt_length, set_,
        name="ladder", title="Methods over model sizes", dtype=dtype, data=str(data or ""),
        methods=ladder_methods(o.words(methods, "--methods"), mixed), targets=o.words(task, "--task"),
        sources=("sources",) if mixed else (), mixtures={"sources": mixed} if mixed else {},
        seeds=tuple(o.numbers(seeds, "--seeds")), train_rows=train_rows or 0, validation_rows=validation_rows or 0,
        rank=rank, shots=shots,
    )  # fmt: skip
    o.quiet_transformers()
    studies, failed = ladder_studies(made, rungs(o.words(backbones, "--backbones")), out), {}
    for ledger, study in studies.items():
        with watching() as observer:
            summary = run_study(
                study, ledger, runner_options={"device": device, "checkpointing": checkpointing}, observer=observer
            )
        if summary.failed:
            failed[study.backbone] = list(summary.failed)
    return _compared(list(studies), out, figures, failed)


def _study(
    recipes: Mapping[str, str], steps: Mapping[str, int | None], prompt_length: int | None, set_: list[str] | None,
    *, rank: int, shots: int, **given: Any,
) -> Study:  # fmt: skip
    """The study that is run on every backbone, from the flags."""
    from softprompt.study.settings import (
        DesignChoice,
        EmbeddingSettings,
        LoraChoice,
        ModelTuningChoice,
        SharPTChoice,
        StrategySettings,
        Study,
    )
    from softprompt.training.weights.settings import tune_recipe

    prompt = o.train_settings(recipes["prompt"], set_, steps=steps["prompt"], prompt_length=prompt_length)
    tune, source = steps["tune"] or 0, steps["source"] or 0
    for name in (recipes["tune"], recipes["lora"]):
        tune_recipe(name)  # an unknown name is refused before anything is loaded
    return Study(
        source=prompt.having(steps=source or prompt.steps),
        target=prompt,
        embedding=EmbeddingSettings(step=min(prompt.steps, source or prompt.steps, prompt.embedding_step or 1)),
        strategies=StrategySettings(best_of_top_k=(1,)),
        sharpt=SharPTChoice(
            recipe=recipes["sharpt"], prompt_length=prompt_length or 0, source_steps=source, target_steps=steps["prompt"] or 0
        ),
        model_tuning=ModelTuningChoice(recipe=recipes["tune"], steps=tune, source_steps=source),
        lora=LoraChoice(recipe=recipes["lora"], steps=tune, rank=rank),
        prompt_design=DesignChoice(shots=shots),
        **given,
    )  # fmt: skip


def _compared(ledgers: list[Path], out: Path, figures: bool, failed: Mapping[str, list[str]]) -> Answer:
    """The table and the figure of what is finished."""
    from softprompt.analysis.sizes import size_series, size_table, sized_studies
    from softprompt.report.figures import save, score_against_size
    from softprompt.report.page import write_table
    from softprompt.study.ladder import LADDER_METHODS

    names = {shown: name for name, shown in LADDER_METHODS.items()}
    studies = sized_studies(ledgers)
    series = size_series(studies, names)
    if not series:
        raise SoftpromptError(f"no method of the ladder is finished: {_why(failed)}")
    table = size_table(studies, names, "ladder")
    files = write_table(table, out)
    if figures:
        files += [save(score_against_size(series), out / f"ladder.{kind}") for kind in ("png", "svg")]
    left_out = [f"left out on {backbone}: {'; '.join(why)}" for backbone, why in failed.items()]
    told = lines(table.to_text(), "", *left_out, *(f"written: {path}" for path in files))
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    return Answer(data={"rows": rows, "ledgers": ledgers, "failed": failed, "files": files}, show=told)


def _why(failed: Mapping[str, list[str]]) -> str:
    return "; ".join(f"{backbone}: {'; '.join(why)}" for backbone, why in failed.items())
