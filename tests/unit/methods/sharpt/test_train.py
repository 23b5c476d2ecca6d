"""Source and target training on the one trainer."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.models import CAUSAL_KINDS, save_bert, tiny_backbone
from tests.support.small_tasks import RECIPE, SETTINGS, ListSource, WordEncoder, adapt, small_data, sources

from softprompt.batch import Rows, TokenBatch
from softprompt.errors import IncompatibleBackboneError, UnknownNameError, UsageError
from softprompt.inference.evaluate import EvalJob, evaluate
from softprompt.methods.method import forward_tokens
from softprompt.methods.sharpt.cache import CachedEncoder
from softprompt.methods.sharpt.encoders import BackboneEncoder, HFEncoder, weights_digest
from softprompt.methods.sharpt.recipes import (
    RECIPES,
    UNTRAINED,
    sharpt_recipe,
)
from softprompt.methods.sharpt.start import StartSettings
from softprompt.methods.sharpt.train import (
    TrainedSpace,
    skill_history,
    train_space,
    tuned_share,
    untrained_space,
)
from softprompt.methods.sharpt.union import drawn_rows, names_of, reference_encodings, union_of
from softprompt.prompts.latent import GENERATOR, LatentSettings
from softprompt.study import settings
from softprompt.tasks.catalog import declared, make
from softprompt.tasks.mixture import load_mixture
from softprompt.training.loop import Progress, train_prompts


def trained(folder: Path | None = None, **changes: Any) -> tuple[Any, CachedEncoder, list[TrainedSpace]]:
    backbone, encoder = tiny_backbone("t5"), CachedEncoder(WordEncoder())
    recipe = dataclasses.replace(RECIPE, **changes.pop("recipe", {}))
    return backbone, encoder, train_space(backbone, encoder, sources(backbone), recipe, folder=folder, **changes)


def test_source_training_changes_space_and_generator_alone() -> None:
    backbone, encoder = tiny_backbone("t5"), CachedEncoder(WordEncoder())
    before = backbone.weights_digest()
    start = untrained_space(backbone, encoder, sources(backbone), RECIPE)
    (made,) = train_space(backbone, encoder, sources(backbone), RECIPE)
    assert backbone.weights_digest() == before
    for name in ("skills", *GENERATOR):
        assert not torch.equal(made.space.tensors[name], start.tensors[name]), name
    assert made.space.kind == "space"
    assert set(made.result.scores) == {"animals", "birds", "score"}
    assert made.result.scores["score"] == pytest.approx(
        (made.result.scores["animals"] + made.result.scores["birds"]) / 2
    )
    assert [r["step"] for r in made.history] == [0, 4, 6]
    assert made.use is not None
    assert sum(made.use.counts) == 30


def test_seeds_train_together_as_they_would_alone() -> None:
    _, _, both = trained(seeds=[0, 1])
    _, _, (alone,) = trained(seeds=[1])
    assert [m.space.name for m in both] == ["space-seed0", "space-seed1"]
    for name, tensor in alone.space.tensors.items():
        torch.testing.assert_close(both[1].space.tensors[name], tensor, rtol=1e-4, atol=1e-4)


def test_targets_tune_the_generator_and_leave_skills_bit_identical() -> None:
    backbone, encoder, (made,) = trained()
    targets = [small_data(backbone, "fish"), small_data(backbone, "trees")]
    before = backbone.weights_digest()
    adapted = adapt(backbone, encoder, made.space, targets, SETTINGS, seeds=[0, 1])
    assert [(a.task, a.seed) for a in adapted] == [("fish", 0), ("fish", 1), ("trees", 0), ("trees", 1)]
    assert backbone.weights_digest() == before
    for a in adapted:
        assert a.space.kind == "prompt"
        assert torch.equal(a.space.tensors["skills"], made.space.tensors["skills"])
        if a.result.best_step:
            assert not torch.equal(a.space.tensors["w2"], made.space.tensors["w2"])
        job = EvalJob(run=0, task=targets[0].task, split=targets[0].validation)
        if a.task == "fish":
            (again,) = evaluate(backbone, a.space.prompter(backbone, encoder), [job])
            assert again.scores == a.result.scores


def test_resume_is_bit_exact(tmp_path: Path) -> None:
    """Stopped in the middle (with skill use logged) and resumed, against never stopped."""

    class StopError(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.step == 4:
            raise StopError

    _, _, (whole,) = trained(tmp_path / "whole")
    with pytest.raises(StopError):
        trained(tmp_path / "part", observer=stop)
    assert (tmp_path / "part" / "checkpoints").is_dir()
    _, _, (resumed,) = trained(tmp_path / "part", resume=True)
    for name, tensor in whole.space.tensors.items():
        assert torch.equal(resumed.space.tensors[name], tensor), name
    assert skill_history(tmp_path / "part") == skill_history(tmp_path / "whole")
    assert list(resumed.history) == list(whole.history)


def test_adapting_resumes_bit_for_bit(tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.step == 4:
            raise StopError

    backbone, encoder, (made,) = trained()
    targets = [small_data(backbone, "fish")]
    whole = adapt(backbone, encoder, made.space, targets, SETTINGS, seeds=[0, 1], folder=tmp_path / "whole")
    with pytest.raises(StopError):
        adapt(backbone, encoder, made.space, targets, SETTINGS, seeds=[0, 1], folder=tmp_path / "part", observer=stop)
    resumed = adapt(
        backbone, encoder, made.space, targets, SETTINGS, seeds=[0, 1], folder=tmp_path / "part", resume=True
    )
    for one, other in zip(whole, resumed, strict=True):
        assert all(torch.equal(one.result.final[name], other.result.final[name]) for name in GENERATOR)
        assert all(torch.equal(tensor, other.space.tensors[name]) for name, tensor in one.space.tensors.items())
    other_space = untrained_space(backbone, encoder, sources(backbone), RECIPE, seed=5)
    with pytest.raises(UsageError, match="already holds another run"):
        adapt(backbone, encoder, other_space, targets, SETTINGS, seeds=[0, 1], folder=tmp_path / "part", resume=True)


def test_a_second_model_and_the_backbone_stay_bit_identical(tmp_path: Path) -> None:
    backbone, inner = tiny_backbone("t5"), HFEncoder(save_bert(tmp_path / "bert"), pooling="pooler")
    before = backbone.weights_digest(), weights_digest(inner._model)
    encoder = CachedEncoder(inner)
    (made,) = train_space(backbone, encoder, sources(backbone), RECIPE)
    adapt(backbone, encoder, made.space, [small_data(backbone, "fish")], SETTINGS)
    assert (backbone.weights_digest(), weights_digest(inner._model)) == before
    assert not any(p.requires_grad or p.grad is not None for p in inner._model.parameters())


def test_the_best_source_checkpoint_can_be_taken() -> None:
    _, _, (made,) = trained(recipe={"source_checkpoint": "best"})
    expected = made.result.best
    assert torch.equal(made.space.tensors["w2"], expected["w2"])


@pytest.mark.slow
def test_ablations_and_variants_train() -> None:
    backbone, encoder = tiny_backbone("t5"), CachedEncoder(WordEncoder())
    target = small_data(backbone, "fish")
    bare = RECIPE.ablated("no-latent-space")
    (direct,) = train_space(backbone, encoder, sources(backbone), bare)
    assert direct.use is None
    assert "skills" not in direct.space.tensors
    start = untrained_space(backbone, encoder, sources(backbone), RECIPE.ablated("no-source-training"))
    assert start.training["steps"] == 0
    variants = [direct.space, start]
    for latent in (LatentSettings(top_n=2), LatentSettings(skill_gradient=False)):
        (made,) = train_space(backbone, encoder, sources(backbone), dataclasses.replace(RECIPE, latent=latent))
        variants.append(made.space)
    residual = dataclasses.replace(RECIPE, start=StartSettings(skill_count=4, task_prompt=True))
    variants.append(train_space(backbone, encoder, sources(backbone), residual)[0].space)
    for space in variants:
        (adapted,) = adapt(backbone, encoder, space, [target], SETTINGS)
        assert adapted.result.status == "done"
        if "skills" in space.tensors:
            assert torch.equal(adapted.space.tensors["skills"], space.tensors["skills"])


def test_tuned_share_counts_parameters() -> None:
    backbone, _, (made,) = trained()
    h, m, p, k = backbone.hidden_size, 5, 3, 4
    share = tuned_share(made.space, backbone)
    assert share["target"] == p * h + h * m + h + h * h + h
    assert share["source"] == share["target"] + k * m
    assert share["target_percent"] == pytest.approx(100 * share["target"] / backbone.parameter_count)


def test_the_reference_sample_is_part_of_the_union() -> None:
    backbone, encoder = tiny_backbone("t5"), CachedEncoder(WordEncoder())
    data = sources(backbone)
    every = torch.cat([encoder.precompute(d.train.examples) for d in data])
    assert torch.equal(reference_encodings(encoder, data, 1000), every)
    some = reference_encodings(encoder, data, 7)
    assert some.shape == (7, 5)
    assert all((every == row).all(1).any() for row in some)


def test_bad_requests_are_refused() -> None:
    backbone, encoder, (made,) = trained()
    with pytest.raises(UsageError, match="all of the class 'yes'"):
        adapt(backbone, encoder, made.space, [small_data(backbone, "fish", one_class=True)], SETTINGS)
    with pytest.raises(UsageError, match="prompt_length 9 was asked for"):
        adapt(backbone, encoder, made.space, [small_data(backbone, "fish")], SETTINGS.having(prompt_length=9))
    with pytest.raises(UsageError, match="no target"):
        adapt(backbone, encoder, made.space, [], SETTINGS)
    with pytest.raises(UsageError, match="no source"):
        train_space(backbone, encoder, [], RECIPE)
    with pytest.raises(IncompatibleBackboneError):
        adapt(tiny_backbone("t5", seed=1), encoder, made.space, [small_data(backbone, "fish")], SETTINGS)
    with pytest.raises(UsageError, match="one generator makes both"):
        dataclasses.replace(RECIPE, target=SETTINGS.having(prompt_length=9))
    with pytest.raises(UnknownNameError, match="paper"):
        sharpt_recipe("papr")
    with pytest.raises(UnknownNameError, match="no-latent-space"):
        RECIPE.ablated("no-latent")  # type: ignore[arg-type]


def test_recipes_say_what_the_paper_says() -> None:
    paper = sharpt_recipe("paper")
    assert (paper.source.steps, paper.target.steps, paper.source.prompt_length) == (80_000, 100_000, 64)
    assert (paper.source.optimizer, paper.source.learning_rate, paper.source.warmup_steps) == ("adam", 0.3, 4000)
    assert paper.source.eval_every == paper.target.eval_every == 500
    assert (paper.latent.top_n, paper.latent.codebook_weight) == (1, 1.0)
    assert set(RECIPES) == {"paper", "balanced", "quick"}
    names = ("sharpt_sources", "spot_targets", "sharpt_cross_category_sources", "sharpt_cross_category_targets")
    assert [len(load_mixture(name).tasks) for name in names] == [15, 10, 9, 5]


def test_encodings_leave_the_tasks_name_out() -> None:
    """The small tasks' texts begin with their names; an encoder that hears of them is caught."""
    heard: set[str] = set()

    class Listening(WordEncoder):
        def encode(self, texts):  # type: ignore[no-untyped-def]
            heard.update(text.split()[0] for text in texts)
            return super().encode(texts)

    backbone = tiny_backbone("t5")
    encoder = CachedEncoder(Listening())
    (made,) = train_space(backbone, encoder, sources(backbone), RECIPE)
    assert made.space.task_names == ("animals", "birds")
    (adapted,) = adapt(backbone, encoder, made.space, [small_data(backbone, "fish")], SETTINGS)
    assert adapted.space.task_names == ("animals", "birds", "fish")
    assert heard <= {"cat", "dog"}
    named = dataclasses.replace(RECIPE, named=True)
    (with_names,) = train_space(backbone, encoder, sources(backbone), named)
    assert with_names.space.task_names == ()
    assert {"animals", "birds"} <= heard
    (again,) = adapt(backbone, encoder, with_names.space, [small_data(backbone, "fish")], SETTINGS)
    assert again.space.task_names == ()
    assert "fish" in heard


def test_names_are_those_the_forms_write() -> None:
    source = ListSource({})
    found = names_of(make(declared(name), source) for name in ("rte", "anli", "squad"))
    assert {"rte", "anli", "anli_r2", "squad"} <= set(found)
    assert names_of([small_data(tiny_backbone("t5"), "fish").task]) == ("fish",)


def test_only_rows_that_are_drawn_are_encoded_and_their_tokens_are_counted() -> None:
    backbone, inner = tiny_backbone("t5"), WordEncoder()
    encoder = CachedEncoder(inner)
    target = small_data(backbone, "fish", train=400)
    space = untrained_space(backbone, encoder, sources(backbone), RECIPE)
    inner.calls = 0
    (made,) = adapt(backbone, encoder, space, [target], SETTINGS)
    assert inner.calls <= SETTINGS.steps * SETTINGS.batch_size + len(target.validation)
    run = target.run("fish", 0)
    rows = [*drawn_rows(run, SETTINGS), *target.validation.examples]
    assert made.result.encoder_tokens == sum(len(row.inputs.split()) - 1 for row in rows)  # without the name
    assert forward_tokens([made.result]) == (
        2 * made.result.tokens + made.result.eval_tokens + made.result.encoder_tokens
    )


def test_drawn_rows_are_those_a_training_sees() -> None:
    backbone = tiny_backbone("t5")
    run = small_data(backbone, "fish", train=400).run("fish", 3)
    seen: set[str] = set()

    class Seeing(WordEncoder):
        def encode(self, texts):  # type: ignore[no-untyped-def]
            seen.update(texts)
            return super().encode(texts)

    prompts = untrained_space(backbone, CachedEncoder(WordEncoder()), sources(backbone), RECIPE)
    prompter = prompts.prompter(backbone, Seeing(), tuned=True, task_names=())
    train_prompts(backbone, prompter, [dataclasses.replace(run, validated=False)], SETTINGS)
    assert seen == {example.inputs for example in drawn_rows(run, SETTINGS)}
    assert len(drawn_rows(run, SETTINGS.having(steps=1000))) == 400


def test_the_control_tunes_as_many_numbers_with_nothing_of_the_sources() -> None:
    backbone, encoder, (made,) = trained()
    control = untrained_space(backbone, encoder, sources(backbone), RECIPE.ablated("generator-only"))
    assert control.skill_count == 1
    assert tuned_share(control, backbone)["target"] == tuned_share(made.space, backbone)["target"]
    other = [small_data(backbone, "trees", train=30), small_data(backbone, "houses")]
    again = untrained_space(backbone, encoder, other, RECIPE.ablated("generator-only"))
    prompts = [space.prompter(backbone, encoder) for space in (control, again)]
    rows = Rows(run_B=torch.zeros(2, dtype=torch.int64), inputs=["fish cat red", "fish dog green"])
    one, two = (prompter.prompts(rows) for prompter in prompts)
    assert one.which_B.tolist() == [0, 0]
    torch.testing.assert_close(one.unique_UPH, two.unique_UPH)


@pytest.mark.parametrize("kind", CAUSAL_KINDS)
def test_decoders_are_adapted_too(kind: str) -> None:
    backbone = tiny_backbone(kind)
    encoder = CachedEncoder(BackboneEncoder(backbone))
    before = backbone.weights_digest()
    recipe = dataclasses.replace(RECIPE, start=StartSettings(skill_count=3))
    (made,) = train_space(backbone, encoder, sources(backbone), recipe)
    assert made.space.tensors["skills"].shape == (3, encoder.width)
    (adapted,) = adapt(backbone, encoder, made.space, [small_data(backbone, "fish")], SETTINGS)
    assert adapted.result.status == "done"
    assert torch.equal(adapted.space.tensors["skills"], made.space.tensors["skills"])
    assert backbone.weights_digest() == before


def test_studies_name_the_same_untrained_ablations() -> None:
    assert settings.SHARPT_UNTRAINED == UNTRAINED


@pytest.mark.parametrize("scoring", ["auto", "labels"])
def test_on_decoders_rows_of_the_union_are_answered_by_their_own_tasks_labels(scoring: Any) -> None:
    backbone = tiny_backbone("llama")
    own = sources(backbone)
    own[1] = dataclasses.replace(own[1], task=dataclasses.replace(own[1].task, labels=("no", "film")))
    union, validation = union_of(backbone, own, SETTINGS)
    assert union.scored_by_label
    (together,) = evaluate(backbone, None, [EvalJob(run=0, task=union, split=validation, scoring=scoring)])
    expected = []
    for part in own:
        (alone,) = evaluate(backbone, None, [EvalJob(run=0, task=part.task, split=part.validation, scoring="labels")])
        assert set(alone.predictions) <= set(part.task.labels or ())
        expected += alone.predictions
        assert alone.label_loss is not None
        ids = backbone.tokenize_targets(list(part.task.labels or ()))
        batch = TokenBatch.of([part.validation.inputs(i).tolist() for i in range(len(part.validation))])
        logs = torch.stack(backbone.label_scores(batch, None, [ids] * batch.size)).log_softmax(-1)
        gold = [
            (part.task.labels or ()).index(e.targets)
            for e in part.validation.examples
            if e.targets in (part.task.labels or ())
        ]
        if len(gold) == batch.size:
            assert alone.label_loss == pytest.approx(-float(logs[range(batch.size), gold].mean()), abs=1e-4)
    assert together.predictions == expected
    assert together.label_loss is not None
    (made,) = train_space(backbone, CachedEncoder(WordEncoder()), sources(backbone), RECIPE)
    assert set(made.result.predictions) <= {"yes", "no"}
