"""``import softprompt as sp``: what it shows, that its signatures stay, that its docstrings' examples run."""

from __future__ import annotations

import doctest
import inspect
import json
import runpy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tests.support.models import tiny_backbone, tiny_t5, tiny_tokenizer
from tests.support.small_tasks import FILMS, films_task

import softprompt as sp
from softprompt.errors import IncompatibleBackboneError, UsageError
from softprompt.inference.predict import Prediction
from softprompt.library.places import prompt_at, split_place
from softprompt.tuned import Score, TunedPrompt

QUICK = {
    "steps": 4, "batch_size": 4, "prompt_length": 3, "eval_every": 2, "embedding_step": 2, "max_target_tokens": 4,
    "learning_rate": 0.05, "progress": False,
}  # fmt: skip
SIGNATURES = {
    "Library": "(self, place: 'str | Path', *, filesystem: 'Any' = None) -> 'None'",
    "Library.add": "(self, record: 'PromptRecord', *, replace: 'bool' = False) -> 'StoredPrompt'",
    "Library.get": "(self, name: 'str') -> 'StoredPrompt'",
    "Library.list": "(self, *, task: 'str | None' = None, tag: 'str | None' = None, backbone: 'BackboneIdentity | None' = None, verified: 'bool | None' = None) -> 'builtins.list[Entry]'",
    "Library.load": "(self, name: 'str', backbone: 'BackboneIdentity') -> 'Tensor'",
    "Library.names": "(self) -> 'builtins.list[str]'",
    "Library.remove": "(self, name: 'str') -> 'None'",
    "Task.from_rows": "(data: 'Any', *, text: 'str | Sequence[str] | None' = None, label: 'str | None' = None, validation: 'Any' = None, name: 'str' = 'rows', kind: 'str | None' = None, labels: 'Sequence[str] | None' = None) -> 'Task'",
    "TunedPrompt.predict": "(self, texts: 'str | Sequence[Input]', *, progress: 'bool' = True) -> 'list[Prediction]'",
    "TunedPrompt.push_to_hub": "(self, repo_id: 'str', *, private: 'bool' = True, message: 'str' = '', api: 'Any' = None) -> 'str'",
    "TunedPrompt.to_peft": "(self, folder: 'str | Path', *, replace: 'bool' = False) -> 'Path'",
    "adapt": "(backbone: 'Backbone', space: 'Space | str | Path', task: 'Task', *, seed: 'int' = 0, recipe: 'str' = 'quick', cache: 'Path | None' = None, progress: 'bool' = True, **changes: 'Any') -> 'AdaptedPrompt'",
    "evaluate": "(backbone: 'Backbone', prompt: 'Promptlike', task: 'Task', *, split: 'str' = 'validation', max_rows: 'int | None' = None, progress: 'bool' = True) -> 'Score'",
    "load_backbone": "(name: 'str | Path | tuple[Any, Any]' = 'builtin', *, dtype: 'str' = 'auto', device: 'str' = 'auto', revision: 'str | None' = None, sharded: 'bool' = False, progress: 'bool' = True) -> 'Backbone'",
    "load_task": "(name: 'str', data: 'str | Path | None' = None, *, prefix: 'bool' = True, skip_bad: 'int' = 0, text: 'str | Sequence[str] | None' = None, label: 'str | None' = None, kind: 'str | None' = None, progress: 'bool' = True) -> 'Task'",
    "predict": "(backbone: 'Backbone', prompt: 'Promptlike', texts: 'str | Sequence[Input]', *, progress: 'bool' = True) -> 'list[Prediction]'",
    "search": "(backbone: 'Backbone', library: 'Library', task: 'Task', *, recipe: 'str' = 'quick', seeds: 'Sequence[int]' = (1, 2, 3), metric: 'Metric' = 'average', top_k: 'int' = 10, progress: 'bool' = True, **changes: 'Any') -> 'list[Match]'",
    "transfer": "(backbone: 'Backbone', library: 'Library', task: 'Task', *, recipe: 'str' = 'quick', strategies: 'Sequence[str]' = ('best_of_top_k', 'weighted_average'), k: 'int' = 3, seed: 'int' = 1, folder: 'Path | None' = None, resume: 'bool' = False, space: 'Space | str | Path | None' = None, observe: 'PhaseObserver | None' = None, command: 'str' = '', progress: 'bool' = True, **changes: 'Any') -> 'TargetReport'",
    "tune": "(backbone: 'Backbone', task: 'Task', *, seed: 'int' = 1, recipe: 'str' = 'quick', progress: 'bool' = True, **changes: 'Any') -> 'TunedPrompt'",
}


def signatures() -> dict[str, str]:
    """The public calls, as Python prints them; a change here is a change for everybody who calls them."""
    found = {name: getattr(sp, name) for name in sp.__all__ if inspect.isfunction(getattr(sp, name))}
    methods = {
        "Task.from_rows": sp.Task.from_rows,
        "Library": sp.Library.__init__,
        **{f"Library.{name}": getattr(sp.Library, name) for name in ("add", "get", "list", "load", "names", "remove")},
        **{f"TunedPrompt.{name}": getattr(TunedPrompt, name) for name in ("predict", "push_to_hub", "to_peft")},
    }
    return {name: str(inspect.signature(value)) for name, value in sorted({**found, **methods}.items())}


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone("t5")


@pytest.fixture(scope="module")
def decoder():
    return tiny_backbone("llama")


@pytest.fixture(scope="module")
def task():
    return films_task()


@pytest.fixture(scope="module")
def prompt(backbone, task):
    return sp.tune(backbone, task, **QUICK)


def test_the_root_shows_its_verbs_and_nothing_else():
    assert set(dir(sp)) == {
        "Library", "SoftpromptError", "Task", "adapt", "evaluate", "load_backbone", "load_task", "predict", "search",
        "transfer", "tune", "__version__",
    }  # fmt: skip
    assert all(getattr(sp, name) is not None for name in dir(sp))
    with pytest.raises(AttributeError, match="nothing_here"):
        getattr(sp, "nothing_here")  # noqa: B009


def test_public_signatures_stay():
    assert signatures() == SIGNATURES


def test_every_verb_has_types_and_says_what_its_parameters_are():
    for name in sp.__all__:
        verb = getattr(sp, name)
        if not inspect.isfunction(verb):
            continue
        for parameter in inspect.signature(verb).parameters.values():
            assert parameter.annotation is not inspect.Parameter.empty, f"{name}: {parameter.name} has no type"
            assert f"{parameter.name}: " in verb.__doc__, f"{name} does not say what {parameter.name} is"


def test_the_reference_page_is_what_the_docstrings_say(repo):
    """docs/python.md is written by scripts/python_reference.py; run it where this fails."""
    script = runpy.run_path(str(repo / "scripts" / "python_reference.py"), run_name="script")
    assert (repo / "docs" / "python.md").read_text(encoding="utf-8") == script["page"](), (
        "run: python scripts/python_reference.py"
    )
    named = {name for _, things in script["objects"]() for name, _ in things}
    assert {f"sp.{name}" for name in sp.__all__ if name != "Task"} <= named


def test_docstring_examples_run(decoder, tmp_path, monkeypatch):
    """In one namespace, in the order a user meets them; on a tiny backbone with a short recipe."""
    from softprompt.methods.sharpt import recipes as sharpt
    from softprompt.training import recipes

    short = recipes.quick().having(
        steps=4, embedding_step=2, eval_every=2, eval_rows=4, batch_size=4, prompt_length=3, warmup_steps=1
    )
    monkeypatch.setitem(recipes.RECIPES, "quick", lambda: short)
    found = replace(sharpt.quick(), source=short, target=short.having(embedding_step=0)).having(skill_count=4)
    monkeypatch.setitem(sharpt.RECIPES, "quick", lambda: found)
    monkeypatch.setattr(sp, "load_backbone", lambda: decoder)
    monkeypatch.chdir(tmp_path)
    make_space(decoder, found, tmp_path / "space")
    names = {"sp": sp}
    from softprompt.backbones.load import load_backbone
    from softprompt.tasks.catalog import load_task
    from softprompt.tuned import TunedPrompt

    documented = [
        load_backbone, load_task, sp.Task.from_rows, sp.tune, sp.predict, TunedPrompt.to_peft, sp.Library, sp.evaluate,
        sp.search, sp.transfer, sp.adapt,
    ]  # fmt: skip
    for verb in documented:
        test = doctest.DocTestParser().get_doctest(inspect.getdoc(verb), names, verb.__qualname__, None, 0)
        assert test.examples, f"{verb.__qualname__} has no example"
        told = []
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
        runner.run(test, out=told.append, clear_globs=False)
        assert not told, "".join(told)
        names = test.globs


def make_space(backbone, recipe, folder):
    from softprompt.methods.sharpt.cache import CachedEncoder
    from softprompt.methods.sharpt.encoders import load_encoder
    from softprompt.methods.sharpt.train import untrained_space
    from softprompt.training.data import task_data

    rows = [{"text": f"the {word} likes a {other}", "label": "good" if other == "tree" else "bad"}
            for word in ("cat", "dog", "bird", "fish") for other in ("house", "tree", "stone")]  # fmt: skip
    source = sp.Task.from_rows(rows, text="text", label="label", name="source")
    encoder = CachedEncoder(load_encoder("backbone", backbone))
    untrained_space(backbone, encoder, [task_data(backbone, source, recipe.source)], recipe).save(folder)


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_prediction_and_evaluation_are_of_the_same_answers(kind, task, request):
    backbone = request.getfixturevalue({"t5": "backbone", "llama": "decoder"}[kind])
    prompt = sp.tune(backbone, task, **QUICK)
    texts = [row["text"] for row in FILMS[:4]]
    answers = prompt.predict(texts, progress=False)
    score = sp.evaluate(backbone, prompt, task, progress=False)
    assert isinstance(score, Score)
    assert [answer.output for answer in answers] == list(score.predictions)
    right = sum(answer.label == row["label"] for answer, row in zip(answers, FILMS[:4], strict=True))
    assert score.score == pytest.approx(25.0 * right)
    assert (score.rows, score.majority) == (4, 50.0)
    for answer in answers:
        assert set(answer.probabilities) == {"bad", "good"}
        assert sum(answer.probabilities.values()) == pytest.approx(1.0, abs=1e-5)
        if kind == "llama":  # there the most probable label is the answer
            assert answer.label == max(answer.probabilities, key=answer.probabilities.get)


def test_probabilities_are_the_softmax_of_the_labels_scores(decoder, task):
    from softprompt.batch import TokenBatch
    from softprompt.prompts.stack import PromptStack

    prompt = sp.tune(decoder, task, **QUICK)
    answer, other = prompt.predict(["a great film", "a poor story with a dog near the river"], progress=False)
    worded = prompt.wording["template"].format(text="a great film") if prompt.wording["template"] else "a great film"
    labels = decoder.tokenize_targets(list(prompt.wording["answers"] or prompt.wording["labels"]))
    batch = TokenBatch.of(decoder.tokenize_inputs([worded]), device=decoder.device)
    stack = PromptStack.of([prompt.prompt])
    with torch.no_grad():
        (scores,) = decoder.label_scores(batch, stack.prompts(_rows()), [labels])
    expected = dict(zip(prompt.wording["labels"], scores.softmax(0).tolist(), strict=True))
    assert answer.probabilities == pytest.approx(expected, abs=1e-4)
    assert other.probabilities != answer.probabilities


def test_two_prompts_of_one_name_are_two_prompts(decoder, task):
    """Keys and values of prompts are cached: what they are cached by must not be the name."""
    first, other = (sp.tune(decoder, task, **{**QUICK, "learning_rate": rate}) for rate in (0.05, 0.5))
    assert first.library_name == other.library_name
    before = first.predict("a great film", progress=False)[0].probabilities
    assert other.predict("a great film", progress=False)[0].probabilities != before
    assert first.predict("a great film", progress=False)[0].probabilities == before


def _rows():
    from softprompt.batch import Rows

    return Rows(run_B=torch.zeros(1, dtype=torch.long), inputs=["x"], keys=["x"])


def test_a_prompt_goes_to_peft_and_into_a_library_and_is_found_in_its_run(backbone, prompt, tmp_path):
    folder = prompt.to_peft(tmp_path / "adapter")
    assert json.loads((folder / "adapter_config.json").read_text())["peft_type"] == "PROMPT_TUNING"
    with pytest.raises(UsageError, match="adapter"):
        prompt.to_peft(tmp_path / "adapter")
    stored = sp.Library(tmp_path / "run" / "library").add(prompt)
    here = [answer.probabilities for answer in prompt.predict(["a great film"], progress=False)]
    for place in (stored, tmp_path / "run", str(tmp_path / "run" / "library"), tmp_path / "run/library/films@1"):
        again = sp.predict(backbone, place, ["a great film"], progress=False)
        assert [answer.probabilities for answer in again] == here
    with pytest.raises(IncompatibleBackboneError, match="backbone"):
        sp.predict(tiny_backbone("gpt2"), prompt, ["a great film"], progress=False)
    with pytest.raises(UsageError, match="there is no prompt at"):
        sp.predict(backbone, tmp_path / "gone", ["a great film"], progress=False)
    with pytest.raises(UsageError, match="got a int"):
        sp.predict(backbone, 3, ["a great film"], progress=False)
    assert split_place("hf://someone/prompts") == ("hf://someone/prompts", None)
    sp.Library(tmp_path / "run" / "library").add(sp.tune(backbone, films_task("more"), **QUICK))
    with pytest.raises(UsageError, match="holds 2 prompts"):
        prompt_at(tmp_path / "run")


def test_a_prompt_is_pushed_with_its_card(prompt):
    class Hub:
        """Takes what is uploaded and answers with a commit."""

        def create_repo(self, repo_id, **given):
            assert (repo_id, given["private"]) == ("someone/films", True)

        def repo_info(self, repo_id):
            return SimpleNamespace(sha="before")

        def create_commit(self, repo_id, *, operations, **given):
            files.update(operation.path_in_repo for operation in operations)
            return SimpleNamespace(oid="c0ffee")

    files: set[str] = set()
    assert prompt.push_to_hub("someone/films", api=Hub()) == "c0ffee"
    assert {"README.md", "manifest.json", "adapter_model.safetensors"} <= files


def test_short_runs_keep_their_last_prompt_as_task_embedding(backbone, task):
    found = sp.tune(backbone, task, **{**QUICK, "embedding_step": 50})
    assert found.embedding_step == 4
    assert torch.isfinite(found.task_embedding).all()
    none = sp.tune(backbone, task, **{**QUICK, "embedding_step": 0})
    assert none.task_embedding is None


def test_a_model_in_memory_is_a_backbone(task):
    model, tokenizer = tiny_t5(), tiny_tokenizer("t5")
    held = sp.load_backbone((model, tokenizer))
    assert held.fingerprint == sp.load_backbone((tiny_t5(), tokenizer)).fingerprint
    assert held.fingerprint != sp.load_backbone((tiny_t5(seed=1), tokenizer)).fingerprint
    assert sp.tune(held, task, **QUICK).prompt.shape == (3, held.hidden_size)
    with pytest.raises(UsageError, match="pair"):
        sp.load_backbone((tokenizer, model))
    with pytest.raises(UsageError, match="stays as it is"):
        sp.load_backbone((model, tokenizer), dtype="float32")


def test_what_is_shown_fits_a_line(backbone, task, prompt, tmp_path):
    library = sp.Library(tmp_path / "library")
    stored = library.add(prompt)
    matches = sp.search(backbone, library, films_task("other"), **QUICK)
    report = sp.transfer(backbone, library, films_task("other"), k=1, **QUICK)
    score = sp.evaluate(backbone, prompt, task, progress=False)
    (entry,), rows = library.list(), task.split("validation")
    many = Prediction(output="a\nlong answer " * 9, label=None, probabilities={f"label {n}": 0.05 for n in range(20)})
    mixed = sp.load_task("+".join(name for name in ("gen_sentiment_film", "gen_sentiment_hotel", "gen_topic_review")))
    shown = [backbone, task, prompt, library, stored, entry, matches[0], report, *report.outcomes, report.prompt, score,
             rows, rows.examples[0], *prompt.predict(["a film"], progress=False), many, mixed]  # fmt: skip
    for thing in shown:
        assert len(repr(thing)) <= 80, repr(thing)
        assert "\n" not in repr(thing)
        assert "tensor" not in repr(thing)
        assert repr(thing).startswith("<")
        assert repr(thing).endswith(">")
    assert repr(Prediction(output="good", label="good", probabilities={"bad": 0.1, "good": 0.9})) == (
        "<Prediction 'good': good 0.90, bad 0.10>"
    )


def test_bars_are_shown_and_can_be_switched_off(backbone, prompt, capsys, monkeypatch):
    monkeypatch.setattr("softprompt.waits.DELAY", 0)
    prompt.predict(["a great film"])
    assert "answering rows" in capsys.readouterr().err
    prompt.predict(["a great film"], progress=False)
    assert capsys.readouterr().err == ""


def test_the_similarity_has_one_default(repo):
    """Every call, setting and flag that ranks by similarity ranks by the same one where nothing is said."""
    from softprompt.cli import quickstart as asked_quickstart
    from softprompt.cli import searching
    from softprompt.library.metric import DEFAULT_METRIC
    from softprompt.library.search import search
    from softprompt.methods.spot.settings import TransferSettings
    from softprompt.quickstart import QuickstartSettings

    found = {
        *(inspect.signature(call).parameters["metric"].default for call in (sp.search, search)),
        *(settings.__dataclass_fields__["metric"].default for settings in (TransferSettings, QuickstartSettings)),
        *(inspect.signature(inspect.unwrap(command)).parameters["metric"].default
          for command in (searching.search, asked_quickstart.quickstart)),
    }  # fmt: skip
    assert found == {DEFAULT_METRIC}
    assert f"`{DEFAULT_METRIC}` (the default)" in (repo / "docs" / "ranking.md").read_text(encoding="utf-8")
