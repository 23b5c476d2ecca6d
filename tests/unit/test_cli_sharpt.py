"""``softprompt sharpt`` and ``serve --sharpt`` on a tiny random backbone: what a user does, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.cli import call, make_tasks
from tests.support.models import save_bert, save_tiny
from transformers import AutoModel

from softprompt.artifacts import read_json
from softprompt.backbones.load import load_backbone
from softprompt.library.record import PromptRecord
from softprompt.library.store import Library
from softprompt.methods.sharpt.recipes import SharPTRecipe, sharpt_recipe

HERE = ("--data", "data", "--backbone", "t5", "--dtype", "float32")
QUICK = ("--steps", "2", "--set", "eval_every=2", "--set", "batch_size=2")
TRAIN = ("sharpt", "train", *HERE, *QUICK, "--prompt-length", "2", "--encoder", "backbone", "--cache", "encodings")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two tiny backbones and two tasks."""
    root = tmp_path_factory.mktemp("sharpt")
    save_tiny("t5", root / "t5", width=16, layers=1)
    save_tiny("t5", root / "other", width=16, layers=1, seed=1)
    make_tasks(root / "data", "films", "stories")
    broken = AutoModel.from_pretrained(save_bert(root / "broken"))
    torch.nn.init.constant_(broken.embeddings.LayerNorm.weight, float("nan"))
    broken.save_pretrained(root / "broken")
    return root


@pytest.fixture(autouse=True)
def _here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


@pytest.fixture(scope="module")
def adapted(place: Path) -> Path:
    """A space from a mixture of sources, and prompts adapted from it to two tasks with two seeds."""
    from softprompt.cli import app

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert app.run([*TRAIN, "--mixture", "films,stories", "--skills", "3", "--out", "space"]) == 0
        asked = [
            "sharpt",
            "adapt",
            "--space",
            "space/space",
            "--task",
            "films,stories",
            "--seeds",
            "0,1",
            *HERE,
            *QUICK,
        ]
        assert app.run([*asked, "--out", "adapted", "--checkpointing"]) == 0
    return place / "adapted"


def manifest(folder: Path) -> dict[str, Any]:
    """What a space's manifest says, its seal taken off."""
    found: dict[str, Any] = read_json(folder / "manifest.json")
    return found


def test_the_counts_stand_beside_the_papers(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = (*TRAIN, "--sources", "films,stories", "--skills", "3", "--out", "counted")
    code, out, err = call(capsys, *asked, "--json")
    assert code == 0, err
    answer = json.loads(out)
    found = answer["parameters"]
    assert answer["spaces"][0]["steps"] == 2
    assert answer["spaces"][0]["seconds"] > 0
    h = m = 16
    generator = 2 * h + h * m + h + h * h + h
    assert (found["target"]["tuned"], found["source"]["tuned"]) == (generator, generator + 3 * m)
    code, out, err = call(capsys, *asked, "--resume")
    assert code == 0, err
    assert (
        f"{generator:,} on a target ({found['target']['percent']:.2f} % of t5); the paper says about 0.1 to 0.3 %"
        in out
    )
    assert list(Path("encodings").rglob("*.safetensors"))


def test_what_the_paper_leaves_open_can_be_chosen(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    choices = ("temperature=0.5", "top_n=2", "skill-init=sampled", "named=true", "source_checkpoint=best")
    flags = [word for choice in choices for word in ("--space-set", choice)]
    code, _, err = call(capsys, *TRAIN, "--sources", "films", "--skills", "3", *flags, "--out", "chosen")
    assert code == 0, err
    story = manifest(place / "chosen" / "space")
    recipe = story["training"]["recipe"]
    assert (story["settings"]["temperature"], story["settings"]["top_n"]) == (0.5, 2)
    assert (recipe["start"]["skill_init"], recipe["start"]["skill_count"]) == ("sampled", 3)
    assert (recipe["named"], recipe["source_checkpoint"]) == (True, "best")


def test_choices_are_flat_and_each_reaches_its_part() -> None:
    recipe = sharpt_recipe("quick")
    assert recipe.having() == recipe
    assert not {"source", "target", "latent", "start"} & set(recipe.choices)
    changed = recipe.having(**sharpt_recipe("paper").choices)
    assert isinstance(changed, SharPTRecipe)
    assert changed.choices == sharpt_recipe("paper").choices
    assert (changed.source, changed.target) == (recipe.source, recipe.target)


def test_predict_and_eval_take_adapted_prompts(adapted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = "adapted/films-seed0,adapted/films-seed1"
    code, out, err = call(capsys, "sharpt", "eval", "--prompt", prompts, "--task", "films", *HERE, "--json")
    assert code == 0, err
    scores = {row["prompt"]: row["score"] for row in json.loads(out)["results"]}
    told = {
        f"adapted/films-seed{s}": manifest(adapted / f"films-seed{s}")["training"]["scores"]["score"] for s in (0, 1)
    }
    assert scores == told
    asked = ("sharpt", "predict", "--prompt", "adapted/films-seed0", "--backbone", "t5", "--dtype", "float32")
    code, out, err = call(capsys, *asked, "good film", "bad film", "--json")
    assert code == 0, err
    assert [pair["input"] for pair in json.loads(out)["predictions"]] == ["good film", "bad film"]


def test_serve_answers_with_generated_prompts(
    adapted: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    testclient = pytest.importorskip("fastapi.testclient")
    uvicorn = pytest.importorskip("uvicorn")
    seen: dict[str, Any] = {}

    def ask(self: Any, sockets: Any) -> None:
        for listener in sockets:
            listener.close()
        with testclient.TestClient(self.config.app, base_url="http://127.0.0.1") as client:
            seen["names"] = [model["id"] for model in client.get("/v1/models").json()["data"][:-1]]
            for name in ("films-seed0", "stories-seed1"):
                body = {"model": name, "prompt": ["good film", "bad music"]}
                found = client.post("/v1/completions", json=body).json()["choices"]
                seen[name] = [choice["text"] for choice in found]
            mixed = {"model": "films@1", "prompt": ["good film"], "max_tokens": 4}
            assert client.post("/v1/completions", json=mixed).status_code == 200
            missing = client.post("/v1/completions", json={"model": "films-sed0", "prompt": "x"})
            seen["missing"] = missing.json()["error"]["message"]

    monkeypatch.setattr(uvicorn.Server, "run", ask)
    backbone = load_backbone("t5", dtype="float32")
    record = PromptRecord(
        task="films", prompt=torch.randn(3, 16), backbone_name="t5", backbone_fingerprint=backbone.fingerprint,
        backbone_kind="t5", seed=1,
    )  # fmt: skip
    Library("library").add(record)
    served = ("serve", "--sharpt", "adapted/films-seed0,adapted/stories-seed1", "--library", "library", "--port", "0")
    code, _, err = call(capsys, *served, "--backbone", "t5", "--dtype", "float32")
    assert code == 0, err
    assert seen["names"] == ["films@1", "films-seed0", "stories-seed1"]
    assert "films-sed0" in seen["missing"]
    for name in seen["names"][1:]:
        asked = ("sharpt", "predict", "--prompt", f"adapted/{name}", "--max-new-tokens", "4", "--backbone", "t5")
        code, out, err = call(capsys, *asked, "--dtype", "float32", "good film", "bad music", "--json")
        assert code == 0, err
        assert seen[name] == [pair["output"] for pair in json.loads(out)["predictions"]]


@pytest.mark.parametrize(
    ("given", "exit_code", "message"),
    [
        ((), 2, "Missing option '--sources'"),
        (("--mixture", "films=0.5,stories=0.5"), 2, "plain union"),
        (("--mixture", "sharpt_source"), 2, "did you mean sharpt_sources"),
        (("--sources", "films", "--skills", "99"), 2, "99 skills were asked for with a k-means start"),
        (("--sources", "films", "--space-set", "temprature=2"), 2, "did you mean temperature"),
        (("--sources", "films", "--space-set", "top_n=many"), 2, "top_n takes a whole number"),
        (("--sources", "films", "--space-set", "skill_count=2", "--skills", "3"), 2, "set twice"),
        (("--sources", "films", "--skills", "3", "--space-set", "top_n=9"), 2, "more than the 3 skills"),
        (("--sources", "films", "--encoder", "hf:gone#sum"), 2, "choose mean, cls or pooler"),
        (("--sources", "films", "--encoder", "hf:gone"), 1, "instance encoder 'gone' could not be loaded"),
        (("--sources", "films", "--encoder", "hf:broken"), 2, "gave NaN or infinity for 'films/train/"),
    ],
)
def test_wrong_spaces(given: tuple[str, ...], exit_code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, *TRAIN, *given, "--out", "wrong", "--json")
    assert (code, out) == (exit_code, "")
    assert message in err
    assert not Path("wrong/space").exists()


def test_wrong_adaptations(adapted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("sharpt", "adapt", "--space", "space/space", "--out", "wrong-adapt", *QUICK)
    code, _, err = call(capsys, *asked, "--task", "films", *HERE, "--train-rows", "1")
    assert code == 2
    assert "target task 'films' has 1 training row, all of the class '" in err
    assert "give rows of at least two of its classes (negative, positive)" in err
    code, _, err = call(
        capsys, *asked, "--task", "films", "--data", "data", "--backbone", "other", "--dtype", "float32"
    )
    assert code == 4
    assert "load t5 or train a space again" in err
    code, _, err = call(capsys, *asked, "--task", "films", *HERE, "--sharded")
    assert code == 2
    assert "start it with torchrun" in err
    story = manifest(Path("space/space"))
    for name, change, message in (
        ("gone", {"name": "hf:gone"}, "needs its instance encoder 'hf:gone', which could not be loaded"),
        ("swapped", {"fingerprint": "0" * 64}, "use backbone or train a space again"),
    ):
        folder = Path(f"space-{name}")
        folder.mkdir()
        (folder / "space.safetensors").write_bytes(Path("space/space/space.safetensors").read_bytes())
        (folder / "manifest.json").write_text(json.dumps({**story, "encoder": {**story["encoder"], **change}}))
        code, _, err = call(capsys, "sharpt", "adapt", "--space", str(folder), "--task", "films", *HERE, *QUICK)
        assert code == 4
        assert message in err
    code, _, err = call(capsys, "serve", "--backbone", "t5")
    assert code == 2
    assert "give --library, --sharpt" in err


def test_two_prompts_of_one_name_are_refused(adapted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shutil

    shutil.copytree("adapted/films-seed0", "again/films-seed0")
    code, _, err = call(
        capsys, "serve", "--sharpt", "adapted/films-seed0,again/films-seed0", "--port", "0", "--backbone", "t5"
    )
    assert code == 2
    assert "adapted/films-seed0 and again/films-seed0 are both called 'films-seed0'" in err


def test_skills_of_a_short_training_are_told(adapted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two steps, where use is measured every hundred: the start and the end stand in the table all the same."""
    for folder in ("space", "space/space"):
        code, out, err = call(capsys, "sharpt", "skills", folder, "--json")
        assert code == 0, err
        history = json.loads(out)["history"]
        assert [record["step"] for record in history] == [0, 2]
        told = manifest(Path("space/space"))["training"]["skill_use"]
        assert {name: history[-1][name] for name in told} == told
    code, out, err = call(capsys, "sharpt", "skills", "adapted/films-seed0")
    assert code == 2
    assert "holds no measurement of skill use" in err


def test_transfer_judges_a_space_beside_prompts(
    adapted: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("--library", "judged", *HERE, *QUICK, "--prompt-length", "2", "--set", "embedding_step=2")
    assert call(capsys, "train", "films", "--out", "judged-run", *asked)[0] == 0
    assert call(capsys, *TRAIN, "--sources", "films", "--skills", "3", "--out", "elsewhere")[0] == 0
    onto = ("transfer", "stories", "--strategies", "best_of_top_k,sharpt", "--k", "2", *asked)
    code, _, err = call(capsys, *onto)
    assert code == 2
    assert "strategy sharpt adapts a latent space, and none was given: name its folder with --space" in err
    code, _, err = call(capsys, *onto, "--space", "nowhere")
    assert (code, "nowhere" in err) == (2, True)
    code, _, err = call(capsys, "transfer", "stories", *asked, "--space", "elsewhere/space")
    assert (code, "add sharpt to them" in err) == (2, True)
    code, _, err = call(capsys, *onto, "--space", "space/space")
    assert (code, "learned on films, stories, target stories among them, which is no transfer" in err) == (2, True)
    code, out, err = call(capsys, *onto, "--space", "elsewhere/space", "--out", "onto", "--json")
    assert code == 0, err
    (target,) = json.loads(out)["targets"]
    assert [(o["strategy"], o["runs"]) for o in target["outcomes"]] == [
        ("scratch", 2),
        ("best_of_top_k", 1),
        ("sharpt", 2),
    ]

    monkeypatch.setattr("softprompt.methods.spot.outcomes.verdict_of", lambda found: ("sharpt", "delivered."))
    asked = (*onto, "--space", "elsewhere/space", "--out", "onto", "--resume", "--keep")
    code, out, err = call(capsys, *asked)
    assert code == 0, err
    (told,) = [line for line in out.splitlines() if line.startswith("generator for stories: ")]
    folder = told.split(": ")[1].split(";")[0]
    assert told.endswith("a library keeps prompts alone, so it is not added")
    assert Library("judged").names() == ["films@1"]
    assert f"softprompt sharpt predict --prompt {folder} TEXT" in err
    code, out, err = call(capsys, "sharpt", "predict", "a story", "--prompt", folder, *HERE[2:])
    assert code == 0, err
    assert out.strip()


def test_relations_draw_a_nested_figure(adapted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    asked = ("sharpt", "relations", "--space", "space/space", "--sources", "films,stories", "--targets", "films")
    code, out, err = call(capsys, *asked, *HERE, "--cache", "encodings", "--figure", "relations.svg", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["cosine"][0][0] == pytest.approx(1.0)
    assert set(found["categories"]) == {"films", "stories"}
    assert "<svg" in Path("relations.svg").read_text()
