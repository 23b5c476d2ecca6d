"""Mixed batches answer as single requests do, whatever the prompt, its length, or the neighbours."""

import pytest
import torch
from tests.models import corpus, tiny_backbone

from softprompt.errors import UnknownNameError, UsageError
from softprompt.inference.engine import Engine, Request, from_library
from softprompt.library.manifest import PromptRecord
from softprompt.library.store import Library


@pytest.fixture(scope="module", params=["t5", "encdec", "llama"])
def backbone(request):
    return tiny_backbone(request.param)


@pytest.fixture
def library(backbone, tmp_path):
    library = Library(tmp_path / "library")
    generator = torch.Generator().manual_seed(0)
    for task, length in (("alpha", 3), ("beta", 6), ("gamma", 1)):
        library.add(
            PromptRecord(
                task=task,
                prompt=torch.randn(length, backbone.hidden_size, generator=generator),
                backbone_name=backbone.name,
                backbone_fingerprint=backbone.fingerprint,
                backbone_kind=backbone.kind,
            )
        )
    return library


def requests():
    names = ["alpha@0", "beta@0", None, "gamma@0", "alpha@0", None, "beta@0"]
    return [
        Request(prompt=name, text=text, max_new_tokens=2 + i % 3)
        for i, (name, text) in enumerate(zip(names, corpus(len(names), 5), strict=True))
    ]


def test_mixed_answers_equal_single_ones(backbone, library):
    engine = Engine(backbone, from_library(library, backbone), batch_tokens=60)
    together = engine.answer(requests())
    for request, answer in zip(requests(), together, strict=True):
        assert engine.answer([request]) == [answer]
        assert answer.prompt == request.prompt


def test_an_unknown_prompt_offers_names(backbone, library):
    engine = Engine(backbone, from_library(library, backbone))
    with pytest.raises(UnknownNameError, match="alpha@0"):
        engine.answer([Request(prompt="alpa@0", text="a film")])


def test_too_long_a_text_is_refused(library, backbone):
    if backbone.max_length is None:
        pytest.skip("relative positions have no limit")
    engine = Engine(backbone, from_library(library, backbone))
    with pytest.raises(UsageError, match="shorten the text"):
        engine.answer([Request(prompt="beta@0", text="film " * 500)])


def test_the_least_recently_used_prompt_leaves(backbone, library):
    engine = Engine(backbone, from_library(library, backbone), kept=2)
    first = engine.prompter("alpha@0")
    engine.prompter("beta@0")
    assert engine.prompter("alpha@0") is first
    engine.prompter("gamma@0")
    assert engine.prompter("alpha@0") is first


def test_http(backbone, library):
    pytest.importorskip("fastapi")
    testclient = pytest.importorskip("fastapi.testclient")
    from softprompt.inference.http import make_app

    engine = Engine(backbone, from_library(library, backbone))
    app = make_app(engine, lambda: [entry.name for entry in library.list()], wait_ms=1.0)
    with testclient.TestClient(app) as client:
        asked = {"prompt": "alpha@0", "inputs": corpus(3, 5), "max_new_tokens": 3}
        found = client.post("/v1/predict", json=asked).json()
        expected = engine.answer([Request(prompt="alpha@0", text=t, max_new_tokens=3) for t in corpus(3, 5)])
        assert found["outputs"] == [answer.text for answer in expected]
        assert client.get("/v1/prompts").json()["prompts"] == ["alpha@0", "beta@0", "gamma@0"]
        assert client.get("/healthz").json()["fingerprint"] == backbone.fingerprint
        refused = client.post("/v1/predict", json={"prompt": "alfa@0", "inputs": ["x"]})
        assert refused.status_code == 400
        assert "alpha@0" in refused.json()["error"]
        for bad in ({"inputs": []}, {"inputs": ["x"], "temperature": 1}, {"inputs": ["x"], "max_new_tokens": "3"}):
            assert client.post("/v1/predict", json=bad).status_code == 400
        assert "softprompt_answers_total 3" in client.get("/metrics").text


def test_requests_are_texts_or_rows() -> None:
    from softprompt.inference.http import requests_of

    body = {"prompt": "p", "inputs": ["a text", {"premise": "x", "hypothesis": "y"}], "as_is": False}
    assert [request.text for request in requests_of(body)] == body["inputs"]
    assert requests_of({"inputs": ["worded"], "as_is": True})[0].as_is
    for wrong in (
        {"inputs": [1]},
        {"inputs": []},
        {"inputs": ["a"], "as_is": "yes"},
        {"inputs": ["a"], "worded": True},
    ):
        with pytest.raises(UsageError):
            requests_of(wrong)
