"""Methods of a ladder that learn from source tasks first: learned once a backbone and seed, used by every target."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.models import save_tiny
from tests.unit.methods.sharpt.small_tasks import SETTINGS, small_task

from softprompt.analysis.tables import Cell
from softprompt.backbones.load import load_backbone
from softprompt.baselines.ladder import Climb, climb
from softprompt.errors import UnknownNameError, UsageError
from softprompt.methods.sharpt.recipes import sharpt_recipe
from softprompt.report.ladder import ladder_table, report_ladder
from softprompt.study.ladder import METHODS, LadderSettings, ladder_methods
from softprompt.tasks.mixture import Mixture
from softprompt.training.loop import Observer
from softprompt.training.weights.settings import TuneSettings

PROMPT = SETTINGS.having(steps=2, eval_every=2)
TUNE = TuneSettings(steps=2, batch_tokens=60, eval_every=2, eval_rows=0, max_input_tokens=32, max_target_tokens=8)


def settings(**changes: Any) -> LadderSettings:
    from dataclasses import replace

    quick = sharpt_recipe("quick")
    sources = [small_task("birds"), small_task("fish")]
    made = LadderSettings(
        prompt=PROMPT,
        source=PROMPT.having(steps=3),
        tune=TUNE,
        tune_source=TUNE.having(steps=3),
        lora_tune=TUNE,
        sharpt=replace(
            quick, source=PROMPT.having(steps=3), target=PROMPT, start=replace(quick.start, skill_count=3),
            watch_every=2,
        ),
        encoder="backbone",
        mixture=Mixture(name="animals", tasks=("birds", "fish")),
        sources=sources,
    )  # fmt: skip
    return replace(made, **changes)


@pytest.fixture(scope="module")
def climbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Climb]:
    root = tmp_path_factory.mktemp("ladder")
    folder = str(save_tiny("t5", root / "tiny"))
    methods = ladder_methods(("spot", "sharpt", "multitask-tuning"), settings())
    tasks = [small_task("animals"), small_task("cats")]
    return root, climb([folder], tasks, methods, root / "out", load=load_backbone, seeds=[0])


def test_sources_are_learned_once_and_their_cost_is_apart(climbed: tuple[Path, Climb]) -> None:
    root, found = climbed
    assert not found.failed
    assert [(r["method"], r["task"], r["steps"]) for r in found.records] == [
        (method, task, 2) for task in ("animals", "cats") for method in ("spot", "sharpt", "multitask-tuning")
    ]
    stages = sorted(
        path.name
        for path in (root / "out").glob("tiny-*/*-0")
        if "animals" not in path.name and "cats" not in path.name
    )
    assert stages == ["multitask-source-0", "sharpt-space-0", "spot-source-0"]
    for record in found.records:
        source = record["details"]["source_training"]
        assert source["steps"] == 3
        assert source["data"] == {name: small_task(name).split("train").fingerprint for name in ("birds", "fish")}
        assert record["settings"]["sources"]["tasks"] == ["birds", "fish"]
    tuned = {r["method"]: r["tuned_parameters"] for r in found.records}
    width = load_backbone(found.records[0]["backbone"]).hidden_size
    assert tuned["spot"] == 3 * width
    assert tuned["multitask-tuning"] == found.records[0]["parameters"]
    # From a skill through H x m and H x H maps to P prompt tokens; the skills themselves are shared.
    assert tuned["sharpt"] > tuned["spot"]


def test_a_later_call_does_not_learn_the_sources_again(climbed: tuple[Path, Climb]) -> None:
    """Each stage is a run directory: a new process finds it finished."""
    root, found = climbed
    steps: list[int] = []

    @contextmanager
    def watch(words: str) -> Iterator[Observer]:
        yield lambda progress: steps.append(progress.steps)

    methods = ladder_methods(("spot", "multitask-tuning"), settings())
    folder, tasks = found.records[0]["backbone"], [small_task("dogs")]
    more = climb([folder], tasks, methods, root / "out", load=load_backbone, seeds=[0], watch=watch)
    assert [r["task"] for r in more.records[-2:]] == ["dogs", "dogs"]
    assert steps == [2, 2, 2, 2]  # two steps of each target; not one of the three on the sources


def test_what_is_learned_from_the_sources_matters(climbed: tuple[Path, Climb], tmp_path: Path) -> None:
    """The target's run starts from the source prompt: other sources, another prompt."""
    from softprompt import artifacts

    root, found = climbed
    other = settings(mixture=Mixture(name="fish", tasks=("fish",)), sources=[small_task("fish")])
    again = climb(
        [found.records[0]["backbone"]], [small_task("animals")], ladder_methods(("spot", "prompt-tuning"), other),
        tmp_path / "out", load=load_backbone, seeds=[0],
    )  # fmt: skip
    assert len(again.records) == 2

    def prompt(folder: Path, method: str) -> Any:
        (file,) = folder.glob(f"tiny-*/{method}-animals-0/results/*.safetensors")
        return artifacts.read_tensors(file)["final.prompt"]

    prompts = [
        prompt(root / "out", "spot"),
        prompt(tmp_path / "out", "spot"),
        prompt(tmp_path / "out", "prompt-tuning"),
    ]
    assert not any(bool((prompts[i] == prompts[j]).all()) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_the_table_shows_costs_and_what_is_missing(climbed: tuple[Path, Climb], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    _, found = climbed
    first = found.records[0]
    more = [{**first, "method": "late", "tuned_parameters": 0}]
    table, files = report_ladder([*found.records, *more], tmp_path)
    assert [path.name for path in files] == ["ladder.csv", "ladder.tex", "ladder.png", "ladder.svg"]
    assert files[2].read_bytes().startswith(b"\x89PNG")
    rows = {str(row[0]): row for row in table.rows}
    score = rows["spot"][3]
    assert isinstance(score, Cell)
    own = [r["score"] for r in found.records if r["method"] == "spot"]
    assert score.value == pytest.approx(sum(own) / 2)
    assert rows["spot"][5] == f"{first['parameters'] / first['tuned_parameters']:,.0f}"
    late = rows["late"][3]  # it lacks one of the two tasks
    assert isinstance(late, Cell)
    assert (late.text(), rows["late"][5]) == ("pending", "none tuned")
    wide = ladder_table([*found.records, {**first, "backbone": "large", "parameters": 10**9}])
    assert [row[1] for row in wide.rows if row[0] == "sharpt"] == [first["backbone"], "large"]
    with pytest.raises(UsageError, match="nothing to report"):
        report_ladder([], tmp_path)


def test_methods_are_checked_before_anything_runs() -> None:
    assert set(ladder_methods(METHODS, settings())) == set(METHODS)
    with pytest.raises(UnknownNameError, match="did you mean prompt-tuning"):
        ladder_methods(["prompt-tunning"], settings())
    with pytest.raises(UsageError, match="spot learns from source tasks first: name them with --sources"):
        ladder_methods(["spot"], settings(mixture=None))
