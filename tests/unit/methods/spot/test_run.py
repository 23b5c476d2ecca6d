"""Transfer end to end on a tiny backbone: phases, strategies, reports, resume."""

from dataclasses import replace

import pytest
import torch
from tests.support.models import tiny_backbone
from tests.support.small_tasks import small_data, small_sharpt
from tests.support.words import StopAt, WordTask, examples

from softprompt.api import delivered_record, task_embeddings
from softprompt.errors import IncompatibleBackboneError, Interrupted, UnknownNameError, UsageError
from softprompt.library.record import PromptRecord
from softprompt.library.store import Library
from softprompt.methods.deliver import verdict_of
from softprompt.methods.method import TRAINING_FACTOR, Result, Target, Work
from softprompt.methods.sharpt.method import SharPT
from softprompt.methods.sharpt.space import load_space
from softprompt.methods.spot import outcomes
from softprompt.methods.spot.checks import at_library_step
from softprompt.methods.spot.run import SPoT
from softprompt.methods.spot.settings import TransferSettings
from softprompt.methods.spot.written import save_adapted
from softprompt.tasks.encoded import encode_split
from softprompt.tasks.example import Split
from softprompt.training.data import TaskData
from softprompt.training.settings import TrainSettings

TRAIN = TrainSettings(
    steps=4, batch_size=4, prompt_length=3, optimizer="adam", learning_rate=0.05, eval_every=2, embedding_step=2,
    max_target_tokens=4, dropout=0.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone("t5")


@pytest.fixture(scope="module")
def data(backbone):
    def encoded(name, count, seed):
        return encode_split(
            Split.of(name, examples(count, seed)), backbone, max_input_tokens=None, max_target_tokens=None
        )

    return TaskData(task=WordTask(), train=encoded("train", 30, 1), validation=encoded("validation", 24, 2))


@pytest.fixture
def library(backbone, tmp_path):
    library = Library(tmp_path / "library")
    generator = torch.Generator().manual_seed(0)
    for task in ("alpha", "beta", "gamma", "word"):
        prompt = torch.randn(3, backbone.hidden_size, generator=generator)
        library.add(
            PromptRecord(
                task=task,
                prompt=prompt,
                task_embedding=prompt * 0.5,
                backbone_name=backbone.name,
                backbone_fingerprint=backbone.fingerprint,
                backbone_kind=backbone.kind,
                embedding_step=2,
            )
        )
    return library


def transfer_targets(
    backbone, library, targets, settings, *, source_tasks=None, mixture_data=None, sharpt=None, **work
):
    method = SPoT(library, settings, source_tasks=source_tasks, mixture_data=mixture_data, sharpt=sharpt)
    return method.run_all(Work(backbone=backbone, **work), [Target(data=data) for data in targets])


def settings(*strategies, **changes):
    return TransferSettings(
        train=TRAIN, strategies=strategies, k=2, average_k=3, mixture_k=2, embedding_runs=2, **changes
    )


def test_all_strategies(backbone, library, data):
    chosen = settings(
        "best_of_top_k", "weighted_average", "multitask_mixture", "generic", "oracle", "race", generic="beta@0"
    )
    asked = []

    def rows(names):
        asked.append(names)
        return dict.fromkeys(names, data)

    before = backbone.weights_digest()
    (report,) = transfer_targets(backbone, library, [data], chosen, mixture_data=rows)
    first, second = (row["task"] for row in report.ranking[:2])
    assert asked == [sorted([first, second])], "only the tasks of the mixture are read"
    assert backbone.weights_digest() == before
    assert [o.strategy for o in report.outcomes] == ["scratch", *chosen.strategies]
    # The target's own prompt is never a source.
    assert sorted(row["name"] for row in report.ranking) == ["alpha@0", "beta@0", "gamma@0"]
    assert report.outcome("oracle").runs == 3
    assert report.outcome("race").runs == 4  # three sources and scratch
    assert report.outcome("best_of_top_k").runs == 2
    assert report.outcome("generic").sources == (("beta@0", 1.0),)
    assert report.outcome("multitask_mixture").cost > report.outcome("generic").cost
    assert report.outcome("race").cost < 4 / 3 * report.outcome("oracle").cost
    assert report.prompt_PH.shape == (3, backbone.hidden_size)
    assert report.facts["select_rows"] + report.facts["report_rows"] == 24


@pytest.fixture(scope="module")
def sharpt(backbone):
    return small_sharpt(backbone, TRAIN.having(embedding_step=0))


@pytest.fixture(scope="module")
def birds(backbone):
    return small_data(backbone, "birds", TRAIN, train=20, validation=24)


def test_sharpt_is_judged_beside_the_others(backbone, library, birds, sharpt, tmp_path):
    chosen = settings("best_of_top_k", "sharpt")
    (report,) = transfer_targets(backbone, library, [birds], chosen, sharpt=sharpt, folder=tmp_path)
    assert [o.strategy for o in report.outcomes] == ["scratch", "best_of_top_k", "sharpt"]
    found, scratch = report.outcome("sharpt"), report.outcome("scratch")
    assert found.sources == ((sharpt.space.name, 1.0),)
    assert [r.seed for r in found.results] == [r.seed for r in scratch.results], "as many tries as from scratch"
    for one in found.results:
        assert one.evidence["report_rows"] == report.facts["report_rows"] == len(one.predictions)
        assert one.encoder_tokens > 0
    frozen = sum(TRAINING_FACTOR * r.tokens + r.eval_tokens for r in found.results)
    assert found.cost == frozen + sum(r.encoder_tokens for r in found.results), "the encoder's pass is in the cost"
    generator = [tensor for name, tensor in found.tensors.items() if name != "skills"]
    assert found.tuned == sum(tensor.numel() for tensor in generator) < sum(t.numel() for t in found.tensors.values())
    assert found.versus_scratch["rows"] == report.facts["report_rows"]
    assert report.facts["space"] == sharpt.space.name
    (again,) = transfer_targets(backbone, library, [birds], chosen, sharpt=sharpt, folder=tmp_path, resume=True)
    assert [o.score for o in again.outcomes] == [o.score for o in report.outcomes]
    (without,) = transfer_targets(backbone, library, [birds], settings("best_of_top_k"))
    assert without.outcome("best_of_top_k").score == report.outcome("best_of_top_k").score


def test_where_sharpt_is_delivered_its_generator_is(backbone, library, birds, sharpt, tmp_path, monkeypatch):
    monkeypatch.setattr(outcomes, "verdict_of", lambda found: (found[-1].strategy, "delivered."))
    (report,) = transfer_targets(backbone, library, [birds], settings("sharpt"), sharpt=sharpt)
    assert (report.delivered, report.prompt_PH) == ("sharpt", None)
    assert report.adapted.result is report.outcome("sharpt").chosen
    kept = load_space(save_adapted(tmp_path, report))
    assert kept.tensors.keys() == report.adapted.space.tensors.keys()
    for name, tensor in report.adapted.result.best.items():
        assert torch.equal(kept.tensors[name], tensor), name
    with pytest.raises(UsageError, match="sharpt is delivered, a generator of prompts and no prompt"):
        delivered_record(backbone, report, TRAIN, seed=1)
    (plain,) = transfer_targets(backbone, library, [birds], settings("best_of_top_k"))
    assert save_adapted(tmp_path, plain) is None


def test_sharpt_is_refused_before_anything_is_trained(backbone, library, birds, sharpt):
    trained = []

    def refused(asked, method, error, words, on=backbone):
        with pytest.raises(error, match=words):
            transfer_targets(
                on, library, [birds], asked, sharpt=method, observe=lambda phase, runs: trained.append(phase)
            )

    refused(settings("sharpt"), None, UsageError, "none was given: name its folder")
    refused(settings("best_of_top_k"), sharpt, UsageError, "the strategies are best_of_top_k: add sharpt to them")
    short = SharPT(sharpt.space, sharpt.encoder, sharpt.settings.having(prompt_length=2))
    refused(settings("sharpt"), short, UsageError, "makes 3 tokens; set prompt_length to 3")
    elsewhere = replace(sharpt.space, backbone={**sharpt.space.backbone, "fingerprint": "another"})
    moved = SharPT(elsewhere, sharpt.encoder, sharpt.settings)
    for training in ({"data": {"birds/train": "x"}}, {"data": {"birds/train": "x", "fish/train": "y"}}):
        own = SharPT(replace(sharpt.space, training=training), sharpt.encoder, sharpt.settings)
        refused(settings("sharpt"), own, UsageError, "target birds among them, which is no transfer")
    adapted = SharPT(replace(sharpt.space, kind="prompt"), sharpt.encoder, sharpt.settings)
    refused(settings("sharpt"), adapted, UsageError, "takes the latent space it came from")
    refused(settings("sharpt"), moved, IncompatibleBackboneError, "do not move between backbones")
    assert trained == []


def test_runs_of_sharpt_that_end_in_nan_are_told(backbone, library, birds, sharpt):
    wild = SharPT(sharpt.space, sharpt.encoder, sharpt.settings.having(learning_rate=1e30))
    (report,) = transfer_targets(backbone, library, [birds], settings("best_of_top_k", "sharpt"), sharpt=wild)
    assert "met loss nan" in report.refused["sharpt"]
    assert [o.strategy for o in report.outcomes] == ["scratch", "best_of_top_k"]


@pytest.mark.slow
def test_a_race_says_what_it_took_and_resumes_to_the_same(backbone, library, data, tmp_path):
    chosen = settings("race", race_rows=6)
    (whole,) = transfer_targets(backbone, library, [data], chosen)
    found = whole.outcome("race")
    # Four runs of four steps: three leave after the first, by six of the twelve selecting rows.
    assert found.notes[0].startswith("4 runs, 1 after step 1; 7 steps in all, ")
    assert found.notes[0].endswith(" % of the cost of 3 whole runs.")
    assert [(row["step"], row.get("rows")) for row in found.curve] == [(1, 6), (2, None), (4, None)]
    for stop in (1, 3):
        folder = tmp_path / f"runs-{stop}"
        with pytest.raises(Interrupted):
            transfer_targets(
                backbone, library, [data], chosen, folder=folder,
                observe=lambda phase, runs, stop=stop: StopAt(stop) if phase == "race" else None,
            )  # fmt: skip
        (again,) = transfer_targets(backbone, library, [data], chosen, folder=folder, resume=True)
        assert torch.equal(again.outcome("race").prompt_PH, found.prompt_PH)
        assert again.outcome("race").cost == found.cost


@pytest.mark.slow
def test_many_targets_at_once_equal_one(backbone, library, data):
    class Other(WordTask):
        name = "other"

    twin = TaskData(task=Other(), train=data.train, validation=data.validation)
    (alone,) = transfer_targets(backbone, library, [data], settings("best_of_top_k"))
    both = transfer_targets(backbone, library, [data, twin], settings("best_of_top_k"))
    assert [r.target for r in both] == ["word", "other"]
    torch.testing.assert_close(alone.prompt_PH, both[0].prompt_PH, rtol=2e-3, atol=2e-4)


def test_a_run_from_scratch_that_starts_as_the_embedding_does_gives_it(backbone, library, data):
    """Without labels both start from sampled vocabulary; with labels the run from scratch starts from these."""

    class Free(WordTask):
        labels = None

    runs = []
    chosen = replace(settings("weighted_average"), train=TRAIN.having(embedding_step=2))
    free = TaskData(task=Free(), train=data.train, validation=data.validation)
    for task in (free, data):
        seen = []
        (report,) = transfer_targets(backbone, library, [task], chosen, observe=lambda *of, seen=seen: seen.append(of))
        runs.append(dict(seen)["first"])
        alone = task_embeddings(backbone, task, chosen.train, seeds=chosen.embedding_seeds)
        torch.testing.assert_close(report.embedding_PH, alone[0], rtol=1e-4, atol=1e-6)
        assert report.facts["embedding_cost"] > 0
        # A ranking strategy pays for the embeddings, whoever made them.
        assert report.outcome("weighted_average").cost > report.facts["embedding_cost"]
    assert (chosen.scratch_seeds, chosen.embedding_seeds) == (range(1, 2), range(1, 3))
    assert runs == [2, 3], "one more for the seed that no run from scratch has; one for each where they start apart"


def test_a_run_that_may_end_before_the_step_is_no_embedding(backbone, library, data):
    class Free(WordTask):
        labels = None

    free = TaskData(task=Free(), train=data.train, validation=data.validation)
    for train, first in ((TRAIN.having(patience=1, eval_every=1), 3), (TRAIN.having(steps=1), 1)):
        seen = []
        chosen = replace(settings("weighted_average"), train=train)
        transfer_targets(backbone, library, [free], chosen, observe=lambda *of, seen=seen: seen.append(of))
        assert dict(seen)["first"] == first
        assert dict(seen).get("embeddings", 2) == 2


def test_the_embedding_step_is_the_librarys_unless_asked(backbone, library):
    usual = TRAIN.having(embedding_step=4)
    assert at_library_step(usual, library, backbone, ()).embedding_step == 2
    assert at_library_step(usual, library, None, ()).embedding_step == 2
    assert at_library_step(usual, library, backbone, {"embedding_step": 4}).embedding_step == 4
    assert at_library_step(usual, library, tiny_backbone("gpt2"), ()).embedding_step == 4, "no prompt of this one"
    start = torch.ones(3, backbone.hidden_size)
    library.add(
        PromptRecord(
            task="delta", prompt=start, task_embedding=start, backbone_name=backbone.name,
            backbone_fingerprint=backbone.fingerprint, backbone_kind=backbone.kind, embedding_step=3,
        )
    )  # fmt: skip
    assert at_library_step(usual, library, backbone, ()).embedding_step == 4, "several steps say nothing"


def test_a_stopped_transfer_resumes_to_the_same(backbone, library, data, tmp_path):
    chosen = settings("best_of_top_k")
    (whole,) = transfer_targets(backbone, library, [data], chosen)

    def stop_in_second(phase, runs):
        return StopAt(3) if phase == "transfer" else None

    folder = tmp_path / "runs"
    with pytest.raises(Interrupted):
        transfer_targets(backbone, library, [data], chosen, folder=folder, observe=stop_in_second)
    (resumed,) = transfer_targets(backbone, library, [data], chosen, folder=folder, resume=True)
    assert torch.equal(whole.prompt_PH, resumed.prompt_PH)
    for one, other in zip(whole.outcomes, resumed.outcomes, strict=True):
        assert (one.score, one.cost, one.curve) == (other.score, other.cost, other.curve)


def test_an_empty_library_is_refused(backbone, data, tmp_path):
    with pytest.raises(UsageError, match="no source prompt"):
        transfer_targets(backbone, Library(tmp_path / "empty"), [data], settings("best_of_top_k"))


@pytest.mark.slow
def test_target_runs_shorter_than_the_embedding_step_are_ranked_all_the_same(backbone, library, data):
    short = settings("best_of_top_k", "weighted_average")
    short = replace(short, train=TRAIN.having(steps=2, embedding_step=4))
    report = transfer_targets(backbone, library, [data], short)[0]
    assert {o.strategy for o in report.outcomes} == {"scratch", "best_of_top_k", "weighted_average"}
    # The embeddings are those of step 4, as a longer training takes them, and the target runs still end at step 2.
    longer = transfer_targets(backbone, library, [data], replace(short, train=TRAIN.having(steps=4, embedding_step=4)))[
        0
    ]
    assert torch.equal(report.embedding_PH, longer.embedding_PH)
    assert report.ranking == longer.ranking
    assert max(point["step"] for o in report.outcomes for point in o.curve) == 2


def test_nothing_is_trained_where_nothing_can_be_ranked(backbone, library, data):
    def told(*_):
        pytest.fail("a phase was begun")

    none = replace(settings("best_of_top_k"), train=TRAIN.having(embedding_step=0))
    with pytest.raises(UsageError, match="embedding_step above 0"):
        transfer_targets(backbone, library, [data], none, observe=told)
    with pytest.raises(UsageError, match="holds only its own prompts"):
        transfer_targets(backbone, library, [data], settings("weighted_average"), source_tasks=["word"], observe=told)


def test_a_mixture_needs_its_tasks(backbone, library, data):
    with pytest.raises(UsageError, match="training rows of"):
        transfer_targets(backbone, library, [data], settings("multitask_mixture"))


def test_a_generic_source_is_looked_up_before_anything_is_trained(backbone, library, data):
    seen = []

    def asked(name):
        chosen = settings("generic", generic=name)
        transfer_targets(backbone, library, [data], chosen, observe=lambda phase, runs: seen.append(phase))

    with pytest.raises(UnknownNameError, match="did you mean beta@0"):
        asked("bet@0")
    with pytest.raises(UsageError, match="tuned on target 'word' itself"):
        asked("word@0")
    assert seen == []


def test_what_a_library_holds_instead_is_said(backbone, library, data, tmp_path):
    with pytest.raises(UsageError, match="it has none at all"):
        transfer_targets(backbone, Library(tmp_path / "empty"), [data], settings("race"))
    other = tiny_backbone("t5", width=8, layers=1)
    with pytest.raises(UsageError, match=rf"it has {len(library)} of {backbone.name}"):
        transfer_targets(other, library, [data], settings("race"))


def outcome(strategy, select, score, low=None, high=None):
    versus = None
    if low is not None:
        gain = (low + high) / 2
        versus = {
            "gain": gain,
            "low": low,
            "high": high,
            "level": 0.9,
            "rows": 50,
            "better": low > 0,
            "worse": high < 0,
        }
    return Result(
        strategy=strategy, run="r", sources=(), runs=1, select_score=select, score=score, spread=None, cost=1,
        seconds=0.0, versus_scratch=versus, prompt_PH=torch.zeros(1, 1),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("low", "high", "delivered", "said"),
    [
        (1.0, 5.0, "race", "better beyond noise"),
        (-1.0, 5.0, "scratch", "not beyond noise"),
        (-9.0, -1.0, "scratch", "hurts"),
    ],
)
def test_the_guard_delivers_only_what_holds_on_held_out_rows(low, high, delivered, said):
    found, sentence = verdict_of([outcome("scratch", 60.0, 60.0), outcome("race", 70.0, 64.0, low, high)])
    assert found == delivered
    assert said in sentence


def test_the_choice_is_made_on_the_selecting_half():
    better_there = outcome("race", 80.0, 50.0, 1.0, 2.0)
    better_here = outcome("oracle", 70.0, 90.0, 20.0, 30.0)
    assert verdict_of([outcome("scratch", 60.0, 60.0), better_there, better_here])[0] == "race"


def test_a_predictor_ranks_and_random_choice_stands_beside_it(backbone, library, data):
    chosen = settings("best_of_top_k", "random", predictor="label-loss")
    (report,) = transfer_targets(backbone, library, [data], chosen)
    predicted = report.facts["predicted"]
    assert set(predicted) == {"alpha@0", "beta@0", "gamma@0"}
    assert list(predicted.values()) == sorted(predicted.values(), reverse=True)
    best, random = report.outcome("best_of_top_k"), report.outcome("random")
    assert best.runs == random.runs == 2
    tried = {r.name.removeprefix("word-best_of_top_k-") for r in best.results}
    assert tried == set(list(predicted)[:2])
    with pytest.raises(UnknownNameError, match="label-loss"):
        settings("best_of_top_k", predictor="label-los")


def test_a_predictor_that_cannot_tell_prompts_apart_is_refused(backbone, library, data, tmp_path):
    same = Library(tmp_path / "same")
    for task in ("alpha", "beta"):
        record = PromptRecord(
            task=task, prompt=torch.ones(3, backbone.hidden_size), task_embedding=None, backbone_name=backbone.name,
            backbone_fingerprint=backbone.fingerprint, backbone_kind=backbone.kind, embedding_step=2,
        )  # fmt: skip
        same.add(record)
    with pytest.raises(UsageError, match="gives all 2 source prompts one value"):
        transfer_targets(backbone, same, [data], settings("best_of_top_k", predictor="label-loss"))


def test_as_a_method_it_gives_the_delivered_strategy(backbone, library, data):
    method = SPoT(library, settings("best_of_top_k"))
    (report,) = method.run_all(Work(backbone=backbone), [Target(data=data)])
    found = method.run(Work(backbone=backbone), Target(data=data), [1])
    assert found.strategy == report.delivered
    assert torch.equal(found.tensors["prompt"], report.prompt_PH)
    assert found.chosen.predictions
    assert method.plain()["library"] == library.location
