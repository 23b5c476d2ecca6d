"""SharPT, its ablations, and model tuning, plain and multi-task, as cells of a study."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.tuned_study import backbone, made, vars_of

from softprompt.analysis.read import collect, skill_relations
from softprompt.errors import UnknownNameError, UsageError
from softprompt.methods.sharpt import train
from softprompt.methods.sharpt.recipes import ABLATIONS
from softprompt.report.study import report_study
from softprompt.study.build import build_grid
from softprompt.study.grid import Grid, unresolved_facts
from softprompt.study.ledger import Ledger
from softprompt.study.plan import plan_study
from softprompt.study.recipes import sharpt_settings
from softprompt.study.run import RunProgress, facts_of, open_study, run_study
from softprompt.study.runner import PromptRunner
from softprompt.study.settings import SHARPT_ABLATIONS, Study, study_of

__all__ = ["backbone"]  # the fixture

ARMS = {"sharpt", "model_tuning", "multitask_model_tuning"}
ABLATED = {f"sharpt, {name}" for name in SHARPT_ABLATIONS}
HALF = 8


def everything(backbone: Path) -> Study:
    """Every arm and every strategy that tunes, checkpoints chosen on one half of validation."""
    return made(
        backbone,
        name="arms",
        protocol="halves",
        sources=["gen_sentiment_film", "gen_paraphrase_sentence"],
        seeds=[0],
        strategies={"best_of_top_k": [1], "weighted_average": [2], "multitask_mixture": [1]},
        methods=sorted(ARMS),
        sharpt={
            "recipe": "quick", "encoder": "backbone", "skills": 4, "prompt_length": 4, "source_steps": 3,
            "target_steps": 2, "ablations": list(SHARPT_ABLATIONS),
        },
        model_tuning={"recipe": "model-tuning-quick", "steps": 2, "source_steps": 3},
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("arms")
    summary = run_study(everything(backbone), folder)
    assert summary.complete, summary.failed
    return folder


def test_what_is_left_never_grows(backbone: Path, tmp_path: Path) -> None:
    """Spaces are trained one after the other within a pack, targets together; what is left counts both rightly."""
    settings = {
        "recipe": "quick", "encoder": "backbone", "skills": 4, "prompt_length": 4, "source_steps": 3, "target_steps": 2,
        "ablations": ["no-latent-space"],
    }  # fmt: skip
    study = made(backbone, sources=["gen_sentiment_film"], seeds=[0], methods=["sharpt"], sharpt=settings)
    told: list[RunProgress] = []
    assert run_study(study, tmp_path, observer=told.append).complete
    left = [progress.steps_left for progress in told]
    assert left == sorted(left, reverse=True)
    assert left[-1] == 0
    assert all(progress.rate >= 0 for progress in told)


def test_spaces_that_learned_alike_are_trained_once(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second study with other targets, or more of their rows, takes the trained space and measures its own relations."""
    sharpt = {
        "recipe": "quick", "encoder": "backbone", "skills": 4, "prompt_length": 4, "source_steps": 3,
        "source_eval_every": 2, "target_steps": 2,
    }  # fmt: skip
    settings: dict[str, Any] = {"sources": ["gen_sentiment_film"], "seeds": [0], "methods": ["sharpt"]}
    first = made(backbone, name="first", sharpt=sharpt, **settings)
    assert run_study(first, tmp_path).complete
    trained: list[Any] = []

    def never(*_: Any, seeds: Any, **__: Any) -> None:
        trained.append(seeds)
        raise UsageError("it trains")

    monkeypatch.setattr(train, "train_space", never)
    other = {"targets": ["gen_paraphrase_sentence"], **settings}
    second = made(backbone, name="second", sharpt={**sharpt, "target_steps": 3}, **other)
    assert run_study(second, tmp_path).complete
    assert not trained
    ledger = Ledger(tmp_path)
    one, two = (
        build_grid(study, PromptRunner().facts(study)).named("latent_space", "space.0") for study in (first, second)
    )
    files = [(ledger.path(*cell.id) / "space" / "space.safetensors").read_bytes() for cell in (one, two)]
    assert one.key != two.key
    assert files[0] == files[1]
    results = [dict(ledger.read(*cell.id).result) for cell in (one, two)]
    assert [found.pop("relations")["tasks"][-1] for found in results] == ["gen_sentiment_hotel", other["targets"][0]]
    assert results[0] == results[1]
    assert [look["step"] for look in results[0]["curve"]] == [2, 3]
    third = made(backbone, name="third", sharpt={**sharpt, "source_eval_every": 3}, **other)
    assert not run_study(third, tmp_path).complete
    assert trained.pop()  # other looks may choose another checkpoint
    for cell in (one, two):
        shutil.rmtree(ledger.path(*cell.id) / "space")  # as restored from kept lines
    other["targets"].append("gen_sentiment_hotel")
    assert not run_study(made(backbone, name="fourth", sharpt=sharpt, **other), tmp_path).complete
    assert trained  # its tensors are not at hand


def opened(folder: Path) -> tuple[Study, Ledger, Grid]:
    study, ledger, noted = open_study(folder)
    return study, ledger, build_grid(study, facts_of(study, noted))


@pytest.mark.slow
def test_every_arm_stands_in_the_tables(finished: Path, tmp_path: Path) -> None:
    study, ledger, noted = open_study(finished)
    facts = facts_of(study, noted)
    results = collect(study, ledger, facts)
    assert {s.strategy for s in results.strategies} == {*ARMS, *ABLATED, "weighted_average", "multitask_mixture"}
    found = skill_relations(study, ledger, facts)  # of the whole method, not of its ablations
    assert found is not None
    space = build_grid(study, facts).named("latent_space", "space.0")
    assert np.array_equal(found[1], ledger.read("latent_space", space.key).result["relations"]["cosine"])
    report = report_study(finished, tmp_path, figures=False)
    tables = {path.name: path.read_text().splitlines() for path in report.tables}
    for table, names in (
        ("methods.csv", ARMS),
        ("methods_cost.csv", {*ARMS, *ABLATED}),
        ("ablations.csv", {"sharpt", *ABLATED}),
        ("model_sizes.csv", {"prompt tuning", *ARMS}),
    ):
        for name in names:
            assert any(line.strip('"').startswith(name) for line in tables[table]), (table, name)
    assert not any("no-latent-space" in line for line in tables["methods.csv"])
    page = report.page.read_text()
    assert all(f'<th scope="row">{name}</th>' in page for name in (*ARMS, *ABLATED))
    assert "One size was measured" in page
    assert {"searches.csv", "luck.csv", "guard.csv", "beats_scratch.csv"} <= set(tables)
    for name in ("weighted_average", "oracle", "multitask_model_tuning"):
        assert any(line.strip('"').startswith(name) for line in tables["sharpt_tested.csv"]), name
    assert not any("pending" in line for line in tables["methods_cost.csv"])


@pytest.mark.slow
def test_costs_are_those_of_the_cells(finished: Path) -> None:
    study, ledger, noted = open_study(finished)
    facts = facts_of(study, noted)
    results, grid = collect(study, ledger, facts), build_grid(study, facts)
    by_name = {run.strategy: run for run in results.strategies}
    steps = {name: run.cost.steps for name, run in by_name.items()}
    assert steps["weighted_average"] == study.target.steps
    assert steps["multitask_mixture"] == study.target.steps + study.source.steps  # the mixture is the target's own
    assert (steps["sharpt"], steps["model_tuning"], steps["multitask_model_tuning"]) == (2, 2, 2)
    shared = {name: run.source_steps for name, run in by_name.items()}
    assert shared["weighted_average"] == results.source_steps == 2 * study.source.steps
    assert (shared["sharpt"], shared["sharpt, no-source-training"], shared["multitask_model_tuning"]) == (3, 0, 3)
    assert (shared["model_tuning"], shared["multitask_mixture"]) == (0, 0)
    (cell,) = grid.of_kind("model_tuning")
    record = ledger.read(*cell.id)
    curve, result = record.result["curve"], record.result
    share = len(curve) * HALF / (len(curve) * HALF + 2 * HALF)
    assert by_name["model_tuning"].cost.tokens == pytest.approx(3 * result["tokens"] + share * result["eval_tokens"])
    assert by_name["model_tuning"].tuned_parameters == result["tuned_parameters"]
    scratch = results.scratch("gen_sentiment_hotel")[0]
    embedding = results.embedding_costs["gen_sentiment_hotel", 0]
    assert embedding.steps == study.embedding.step
    assert embedding.tokens == pytest.approx(scratch.train_tokens * study.embedding.step / study.target.steps)
    assert results.prompt_parameters == 4 * results.embeddings["gen_sentiment_hotel", 0].shape[1]
    assert [point.step for point in scratch.curve] == [2, 4]


@pytest.mark.slow
def test_checkpoints_of_every_arm_are_chosen_on_the_selecting_half_alone(finished: Path) -> None:
    _, ledger, grid = opened(finished)
    kinds = {"baseline", "transfer", "weighted_average", "mixture_transfer", "latent_transfer", "model_tuning"}
    kinds.add("multitask_model_tuning")
    cells = [cell for cell in grid.of_kind("evaluation") if cell.spec["of"][0] in kinds]
    assert {cell.spec["of"][0] for cell in cells} == kinds
    for cell in cells:
        training, evaluation = ledger.read(*cell.spec["of"]), ledger.read("evaluation", cell.key).result
        # What chose the checkpoint is what half 0 says of it, and as many rows as that half has.
        assert training.result["best_score"] == pytest.approx(evaluation["halves"][0]), cell.name
        assert training.provenance["evidence"]["select_rows"] == HALF, cell.name
        assert len(evaluation["predictions"]) == 2 * HALF, cell.name


@pytest.mark.slow
def test_multitask_model_tuning_goes_on_from_the_sources_weights(finished: Path) -> None:
    study, ledger, grid = opened(finished)
    (union,) = grid.of_kind("multitask_tuning")
    (child,) = grid.of_kind("multitask_model_tuning")
    assert child.parents == (union.id,)
    tensors = ledger.tensors(*union.id)
    weights = {name: t for name, t in tensors.items() if name.startswith("weight.")}
    assert {t.dtype for t in weights.values()} == {torch.bfloat16}
    record = ledger.read(*union.id).result
    assert (record["steps"], record["watched"]) == (3, "gen_sentiment_film")
    alone = ledger.read("model_tuning", grid.of_kind("model_tuning")[0].key).result
    together = ledger.read(*child.id).result
    assert together["tuned_parameters"] == alone["tuned_parameters"] > 0
    assert [row["loss"] for row in together["curve"]] != [row["loss"] for row in alone["curve"]]
    assert not ledger.path(*child.id).joinpath("tensors.safetensors").exists()  # only its answers are kept
    assert not list((ledger.folder / "packs").glob("*"))
    # A target more starts from the same weights.
    more = made(**{**vars_of(study), "targets": ["gen_sentiment_hotel", "gen_sentiment_film"]})
    wider = build_grid(more, unresolved_facts(more))
    assert len(wider.of_kind("multitask_tuning")) == 1


@pytest.mark.slow
def test_tuned_parameters_of_sharpt_are_counted(finished: Path) -> None:
    _, ledger, grid = opened(finished)
    by_ablation = {c.spec.get("ablation"): ledger.read(*c.id).result for c in grid.of_kind("latent_space")}
    assert set(by_ablation) == {None, *SHARPT_ABLATIONS}
    cell = grid.named("latent_transfer", "sharpt>gen_sentiment_hotel.0")
    target, tensors = ledger.read(*cell.id).result, ledger.tensors(*cell.id)
    assert tensors["best.skills"].shape[0] == 4  # frozen on a target, tuned on the sources
    assert by_ablation[None]["tuned_parameters"] == target["tuned_parameters"] + tensors["best.skills"].numel()
    assert (by_ablation["no-source-training"]["steps"], by_ablation["no-source-training"]["tuned_parameters"]) == (0, 0)
    assert by_ablation["no-latent-space"]["tuned_parameters"] == target["tuned_parameters"]


def test_ablations_leave_the_cells_of_sharpt_alone(backbone: Path) -> None:
    study = everything(backbone)
    plain = study.plain()
    without = study_of({**plain, "sharpt": {**plain["sharpt"], "ablations": ()}, "methods": ("sharpt",)})
    few, all_ = build_grid(without, unresolved_facts(without)), build_grid(study, unresolved_facts(study))
    assert set(few.cells) < set(all_.cells)
    assert len({cell.key for cell in all_.of_kind("latent_space")}) == 1 + len(SHARPT_ABLATIONS)
    assert len({cell.key for cell in all_.of_kind("latent_transfer")}) == 1 + len(SHARPT_ABLATIONS)
    rows = {row.kind: row for row in plan_study(study).rows}
    assert rows["latent_space"].steps == 3 + 0 + 3 + 0
    assert (rows["multitask_tuning"].steps, rows["multitask_model_tuning"].steps) == (3, 2)


def test_bad_choices_are_refused(backbone: Path) -> None:
    assert set(SHARPT_ABLATIONS) == set(ABLATIONS) - {"none"}
    with pytest.raises(UnknownNameError, match="no-latent-space"):
        made(backbone, sharpt={"ablations": ["no-latent-spaces"]})
    with pytest.raises(UsageError, match="source_steps must not be negative"):
        made(backbone, model_tuning={"source_steps": -1})
    with pytest.raises(UnknownNameError, match="multitask_model_tuning"):
        made(backbone, methods=["multitask_model_tunin"])


def test_sharpt_is_validated_and_cut_as_the_studys_prompts_are(backbone: Path) -> None:
    recipe = sharpt_settings(everything(backbone))
    study = everything(backbone)
    assert (recipe.target.eval_every, recipe.target.max_input_tokens) == (
        study.target.eval_every, study.target.max_input_tokens,
    )  # fmt: skip
    assert (recipe.target.steps, recipe.source.steps, recipe.start.skill_count) == (2, 3, 4)
    slower = made(backbone, sharpt={"recipe": "quick", "learning_rate": 0.005})
    assert {sharpt_settings(slower).source.learning_rate, sharpt_settings(slower).target.learning_rate} == {0.005}
