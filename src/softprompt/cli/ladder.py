"""``softprompt ladder``: every method on a ladder of model sizes, score against parameters (SPoT Figure 1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from softprompt.cli import opening
from softprompt.cli import options as o
from softprompt.cli.app import app, command
from softprompt.cli.baselines import Rank, Shots
from softprompt.cli.flags import Flags, among, flag
from softprompt.cli.output import Answer, lines
from softprompt.cli.study import watching
from softprompt.errors import SoftpromptError

if TYPE_CHECKING:
    from softprompt.study.settings import Study


STAGES = "Recipes and steps"


@dataclass(frozen=True, kw_only=True)
class LadderFlags(Flags):
    """Recipes and steps of the methods besides prompt tuning, and steps on the sources."""

    tune_recipe: Annotated[str, flag("--tune-recipe", "Of model tuning.", STAGES)] = "model-tuning-quick"
    lora_recipe: Annotated[str, flag("--lora-recipe", "Of LoRA.", STAGES)] = "lora-quick"
    sharpt_recipe: Annotated[str, flag("--sharpt-recipe", "Of SharPT.", STAGES)] = "quick"
    tune_steps: Annotated[int | None, flag("--tune-steps", "Of model tuning and LoRA on a target.", STAGES)] = None
    source_steps: Annotated[int | None, flag("--source-steps", "On the sources, of every method.", STAGES)] = None
    rank: Rank = 8
    shots: Shots = 16


@command(
    app, "ladder", "softprompt ladder --backbones builtin --task my.csv",
    "softprompt ladder --backbones t5-lm-adapted --task cb,rte --methods spot,model-tuning --sources glue --data DIR",
)  # fmt: skip
def ladder(
    *,
    backbones: Annotated[
        str,
        flag(
            "--backbones",
            "Ids or folders, commas between, or t5-lm-adapted, t5-1.1, sharpt-sizes.",
            complete=among(o.BACKBONES),
            show_default=False,
        ),
    ],
    task: o.TaskNames,
    methods: Annotated[
        str, flag("--methods", "prompt-tuning, spot, sharpt, model-tuning, multitask-tuning, lora, prompt-design.")
    ] = "prompt-tuning,model-tuning,lora,prompt-design",
    sources: Annotated[
        str | None,
        flag(
            "--sources",
            "What spot, sharpt and multitask-tuning learn from: tasks or a mixture.",
            complete=o.mixture_completion,
        ),
    ] = None,
    data: o.Data = None,
    out: Annotated[Path, flag("--out", "Ledgers, one a backbone, table and figure.")] = Path("runs/ladder"),
    seeds: o.Seeds = "1,2,3",
    training_: o.TrainingFlags,
    stages: LadderFlags,
    limits: o.RowLimitFlags,
    figures: o.Figures = True,
    device: o.DeviceFlags,
    checkpointing: o.Checkpointing = False,
) -> Answer:
    """Compare methods over model sizes: score against parameters."""
    from softprompt.study.ladder import ladder_methods, ladder_studies, rungs
    from softprompt.study.run import run_study

    mixed = () if sources is None else opening.open_mixture(sources, data)[0].tasks
    targets = opening.words(task, "--task")
    opening.open_tasks(targets, data)
    made = _study(
        training_, stages, name="ladder", title="Methods over model sizes", dtype=device.dtype,
        data=str(data or ""), methods=ladder_methods(opening.words(methods, "--methods"), mixed), targets=targets,
        sources=("sources",) if mixed else (), mixtures={"sources": mixed} if mixed else {},
        seeds=opening.numbers(seeds, "--seeds"), train_rows=limits.train_rows or 0,
        validation_rows=limits.validation_rows or 0,
    )  # fmt: skip
    opening.quiet_transformers()
    studies = ladder_studies(made, rungs(opening.words(backbones, "--backbones")), out)
    failed, options = {}, {"device": device.device, "checkpointing": checkpointing}
    for ledger, study in studies.items():
        with watching() as observer:
            summary = run_study(study, ledger, runner_options=options, observer=observer)
        if summary.failed:
            failed[study.backbone] = list(summary.failed)
    return _compared(list(studies), out, figures, failed)


def _study(training: o.TrainingFlags, stages: LadderFlags, **given: Any) -> Study:
    """The study that is run on every backbone, from the flags."""
    from softprompt.study import settings as of
    from softprompt.training.recipes import tune_recipe

    prompt, asked = training.settings(), training.asked()
    tune, source = stages.tune_steps or 0, stages.source_steps or 0
    for name in (stages.tune_recipe, stages.lora_recipe):
        tune_recipe(name)  # an unknown name is refused before anything is loaded
    embedding = min(prompt.steps, source or prompt.steps, prompt.embedding_step or 1)
    return of.Study(
        source=prompt.having(steps=source or prompt.steps),
        target=prompt,
        embedding=of.EmbeddingSettings(step=embedding),
        strategies=of.StrategySettings(best_of_top_k=(1,)),
        sharpt=of.SharPTChoice(
            recipe=stages.sharpt_recipe,
            prompt_length=asked.get("prompt_length", 0),
            source_steps=source,
            target_steps=asked.get("steps", 0),
        ),
        model_tuning=of.ModelTuningChoice(recipe=stages.tune_recipe, steps=tune, source_steps=source),
        lora=of.LoraChoice(recipe=stages.lora_recipe, steps=tune, rank=stages.rank),
        prompt_design=of.DesignChoice(shots=stages.shots),
        **given,
    )


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
    after = [("study", "report", ledger) for ledger in ledgers[:2]]
    return Answer(data={"rows": rows, "ledgers": ledgers, "failed": failed, "files": files}, show=told, next=after)


def _why(failed: Mapping[str, list[str]]) -> str:
    return "; ".join(f"{backbone}: {'; '.join(why)}" for backbone, why in failed.items())
