"""The server's shape, limits and reloading, over its ASGI application."""

import asyncio
import json
import threading
import time
from pathlib import Path

import pytest
import torch
from tests.support.models import corpus, tiny_backbone

from softprompt.inference.catalogue import Catalogue
from softprompt.inference.engine import Engine, Request
from softprompt.inference.guard import Limits, hosts_of
from softprompt.inference.predict import predict
from softprompt.library.manifest import PromptRecord
from softprompt.library.store import Library
from softprompt.prompts.stack import PromptStack
from softprompt.tasks.wording import Wording

testclient = pytest.importorskip("fastapi.testclient")
from softprompt.inference.http import make_app  # noqa: E402

SENTIMENT = Wording(
    task="films", form="template", template="review: {text}", columns=("text",), label_column="label",
    labels=("neg", "pos"), answers=("bad film", "good"), metrics=("accuracy",),
)  # fmt: skip


def add(library, backbone, task, *, seed=0, length=4, wording=None, replace=False):
    generator = torch.Generator().manual_seed(seed + 10 * length)
    early = torch.randn(length, backbone.hidden_size, generator=generator)
    library.add(
        PromptRecord(
            task=task, prompt=early + 0.1, task_embedding=early, backbone_name=backbone.name,
            backbone_fingerprint=backbone.fingerprint, backbone_kind=backbone.kind, scores={"score": 50.0 + length},
            wording=wording.record() if wording else None, steps=9, embedding_step=3, name=f"{task}@0",
        ),
        replace=replace,
    )  # fmt: skip


@pytest.fixture(scope="module", params=["t5", "llama"])
def backbone(request):
    return tiny_backbone(request.param)


@pytest.fixture
def library(backbone, tmp_path):
    library = Library(tmp_path / "library")
    add(library, backbone, "films", wording=SENTIMENT)
    add(library, backbone, "plain", length=6)
    return library


def app_of(library, backbone, **how):
    catalogue = Catalogue(backbone, library)
    engine = Engine(backbone, catalogue.resolve, version=catalogue.version)
    return make_app(engine, catalogue, **how)


@pytest.fixture
def client(library, backbone):
    with testclient.TestClient(app_of(library, backbone)) as client:
        yield client


def ask(client, path="/v1/completions", **body):
    return client.post(path, json=body)


def test_models_say_what_they_are(client, backbone):
    films, plain, bare = client.get("/v1/models").json()["data"]
    assert (films["id"], films["task"], films["labels"]) == ("films@0", "films", ["neg", "pos"])
    assert films["scores"] == {"score": 54.0}
    assert plain["labels"] is None
    assert (bare["id"], bare["task"]) == (backbone.name, None)


def test_answers_equal_those_of_predict(client, library, backbone):
    texts = corpus(5, 3)
    for name, most in (("films@0", 64), ("plain@0", 7)):
        stored = library.get(name)
        prompter = PromptStack.of([stored.prompt().float()], keys=[name])
        wanted = predict(backbone, prompter, texts, stored.manifest, max_new_tokens=most).rows
        found = ask(client, model=name, prompt=texts, max_tokens=most).json()["choices"]
        assert [c["text"] for c in found] == [row.output for row in wanted]
        assert [c["label"] for c in found] == [row.label for row in wanted]


def test_rows_and_raw_texts_are_taken(client):
    worded = ask(client, model="films@0", prompt="a good film").json()["choices"][0]
    row = ask(client, model="films@0", prompt={"text": "a good film"}).json()["choices"][0]
    raw = ask(client, model="films@0", prompt="review: a good film", raw=True).json()["choices"][0]
    assert worded["text"] == row["text"] == raw["text"]
    assert ask(client, model="films@0", prompt={"title": "x"}).json()["error"]["code"] == "unusable"
    assert ask(client, model="plain@0", prompt={"text": "x"}).status_code == 400


def test_a_stream_is_the_whole_answer_in_pieces(client):
    body = {"model": "plain@0", "prompt": "three good films", "max_tokens": 9}
    whole = client.post("/v1/completions", json=body).json()["choices"][0]
    with client.stream("POST", "/v1/completions", json={**body, "stream": True}) as reply:
        lines = [line.removeprefix("data: ") for line in reply.iter_lines() if line]
    assert lines.pop() == "[DONE]"
    choices = [json.loads(line)["choices"][0] for line in lines]
    assert "".join(c["text"] for c in choices) == whole["text"]
    assert choices[-1]["finish_reason"] == whole["finish_reason"]


def test_classify_gives_the_labels_probabilities(client, library, backbone):
    found = ask(client, "/v1/classify", model="films@0", input=corpus(3, 4)).json()["data"]
    engine = Engine(backbone, Catalogue(backbone, library).resolve)
    rows = [engine.prepare(Request(prompt="films@0", text=text)) for text in corpus(3, 4)]
    for one, scores in zip(found, engine.label_scores(rows), strict=True):
        assert list(one["probabilities"].values()) == pytest.approx(scores.softmax(0).tolist(), abs=1e-5)
        assert one["label"] == max(one["probabilities"], key=one["probabilities"].get)
    assert ask(client, "/v1/classify", model="plain@0", input="x").json()["error"]["code"] == "no_labels"


def test_search_ranks_by_loss_on_the_rows(client):
    rows = [{"text": text, "label": label} for text, label in zip(corpus(6, 8), ("good", "poor") * 3, strict=True)]
    found = ask(client, "/v1/search", rows=rows).json()
    assert found["rows"] == 6
    assert sorted(one["model"] for one in found["data"]) == ["films@0", "plain@0"]
    assert found["data"][0]["loss"] <= found["data"][1]["loss"]
    assert ask(client, "/v1/search", rows=[{"text": "a"}, {"text": "b"}]).status_code == 400


def test_chat_is_one_turn_for_a_prompt(client):
    turn = {"role": "user", "content": "a good film"}
    chat = ask(client, "/v1/chat/completions", model="films@0", messages=[turn]).json()["choices"][0]
    plain = ask(client, model="films@0", prompt="a good film").json()["choices"][0]
    assert chat["message"] == {"role": "assistant", "content": plain["text"]}
    for wrong, code in (
        ({"messages": [turn, turn]}, "not_one_turn"),
        ({"messages": [turn], "raw": True}, "no_chat_template"),
    ):
        assert ask(client, "/v1/chat/completions", model="films@0", **wrong).json()["error"]["code"] == code


def test_changes_of_the_library_are_seen_at_once(client, library, backbone):
    before = ask(client, "/v1/classify", model="films@0", input="a film").json()["data"]
    add(library, backbone, "films", seed=77, length=5, wording=SENTIMENT, replace=True)
    after = ask(client, "/v1/classify", model="films@0", input="a film").json()["data"]
    assert before != after
    assert ask(client, model="late@0", prompt="x").status_code == 404
    add(library, backbone, "late")
    assert ask(client, model="late@0", prompt="x").status_code == 200
    library.remove("late@0")
    assert ask(client, model="late@0", prompt="x").json()["error"]["code"] == "model_not_found"
    assert "late@0" not in client.get("/v1/models").text


@pytest.mark.parametrize(
    "wrong",
    [
        {}, {"model": "films@0"}, {"model": "films@0", "prompt": []}, {"model": "films@0", "prompt": 7},
        {"model": "films@0", "prompt": "x", "temperature": 1}, {"model": "films@0", "prompt": "x", "max_tokens": "3"},
        {"model": "films@0", "prompt": "x", "max_tokens": 0}, {"model": "films@0", "prompt": "x", "as_is": True},
        {"model": "plain@0", "prompt": "\ud800"},
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_400(client, wrong):
    reply = client.post("/v1/completions", content=json.dumps(wrong), headers={"Content-Type": "application/json"})
    assert reply.status_code == 400
    assert reply.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("name", ["films@0\x00", "../{place}/films@0", "films@0/", "films@0/../films@0", "x" * 5000])
def test_a_name_that_no_prompt_can_have_is_404(client, library, name):
    name = name.format(place=library.folders.root.name)
    reply = ask(client, "/v1/classify", model=name, input="a")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")


def test_limits_have_their_codes(library, backbone):
    app = app_of(library, backbone, limits=Limits(body_bytes=2000, text_letters=900, tokens=40))
    with testclient.TestClient(app) as client:
        assert ask(client, model="plain@0", prompt="x" * 3000).status_code == 413
        assert ask(client, model="plain@0", prompt="x" * 1000).json()["error"]["code"] == "text_too_long"
        assert (
            ask(client, model="plain@0", prompt="film " * 30, max_tokens=20).json()["error"]["code"]
            == "too_many_tokens"
        )
        assert ask(client, model="films@1", prompt="x").json()["error"]["message"].startswith("unknown model 'films@1'")
        assert client.post("/v1/completions", content="{}").status_code == 415
        assert (
            client.post("/v1/completions", content="{", headers={"Content-Type": "application/json"}).status_code == 400
        )
        assert (
            client.post("/v1/completions", headers={"Content-Type": "application/json"}, content="[" * 1900).status_code
            == 400
        )
        assert ask(client, model="films@0", prompt="x").status_code == 200


def test_a_full_queue_is_429_and_a_late_answer_504(library, backbone, monkeypatch):
    app = app_of(library, backbone, limits=Limits(waiting=2, request_s=0.6))
    engine = app.site.engine
    slow = engine.begin

    def begin(rows):
        time.sleep(0.8)
        return slow(rows)

    monkeypatch.setattr(engine, "begin", begin)
    found = []
    with testclient.TestClient(app) as client:
        threads = [
            threading.Thread(target=lambda: found.append(ask(client, model="plain@0", prompt="x", max_tokens=3)))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
            time.sleep(0.02)
        for thread in threads:
            thread.join()
        codes = sorted({reply.status_code for reply in found})
        assert codes == [429, 504]
        assert all(int(reply.headers["Retry-After"]) >= 1 for reply in found if reply.status_code == 429)
        monkeypatch.setattr(engine, "begin", slow)
        assert ask(client, model="plain@0", prompt="x", max_tokens=3).status_code == 200


def test_one_that_fails_fails_alone(library, backbone, monkeypatch):
    app = app_of(library, backbone, wait_ms=150.0)
    engine = app.site.engine
    whole = engine.begin

    def begin(rows):
        if any("poison" in row.worded for row in rows):
            raise RuntimeError("broken")
        return whole(rows)

    monkeypatch.setattr(engine, "begin", begin)
    found = {}
    with testclient.TestClient(app, raise_server_exceptions=False) as client:
        texts = ["a film", "poison", "two films"]
        threads = [
            threading.Thread(target=lambda t=t: found.update({t: ask(client, model="plain@0", prompt=t, max_tokens=3)}))
            for t in texts
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [found[t].status_code for t in texts] == [200, 500, 200]


def test_a_body_that_does_not_come_is_408(library, backbone):
    app = app_of(library, backbone, limits=Limits(body_s=0.1))

    def post(*messages):
        """Status and code of the answer to a request whose body arrives in these messages, and then no more."""
        left, sent = list(messages), []

        async def receive():
            return left.pop(0) if left else await asyncio.Event().wait()

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/v1/completions", "query_string": b"", "http_version": "1.1",
                 "headers": [(b"content-type", b"application/json"), (b"content-length", b"99")]}  # fmt: skip
        asyncio.run(app(scope, receive, send))
        return sent[0]["status"], json.loads(sent[1]["body"])["error"]["code"]

    half = {"type": "http.request", "body": b'{"model": ', "more_body": True}
    assert post(half) == (408, "body_timeout")
    assert post(half, {"type": "http.disconnect"}) == (408, "cut_off")
    text = app.site.metrics.text()[0].decode()
    assert 'refused_total{code="body_timeout"} 1.0' in text
    assert 'refused_total{code="cut_off"} 1.0' in text


def test_prompts_that_cannot_be_used_are_409(client, library, backbone):
    add(library, backbone, "broken")
    weights = Path(library.location) / "broken@0" / "adapter_model.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    prompt = torch.zeros(3, backbone.hidden_size)
    library.add(
        PromptRecord(task="other", prompt=prompt, backbone_name="other", backbone_fingerprint="0" * 64, backbone_kind=backbone.kind)
    )  # fmt: skip
    for name in ("broken@0", "other@0"):
        reply = ask(client, model=name, prompt="x")
        assert (reply.status_code, reply.json()["error"]["code"]) == (409, "prompt_unusable")
    assert ask(client, model="films@0", prompt="x").status_code == 200


def test_a_server_that_stops_says_so(library, backbone, monkeypatch):
    app = app_of(library, backbone)
    site = app.site
    begun, go_on, found = threading.Event(), threading.Event(), []
    whole = site.engine.begin

    def begin(rows):
        begun.set()
        go_on.wait(20)
        return whole(rows)

    monkeypatch.setattr(site.engine, "begin", begin)
    with testclient.TestClient(app) as client:
        under_way = threading.Thread(
            target=lambda: found.append(ask(client, model="plain@0", prompt="x", max_tokens=50))
        )
        under_way.start()
        assert begun.wait(20)
        site.scheduler.stop()
        found.append(ask(client, model="plain@0", prompt="x"))
        go_on.set()
        under_way.join()
        assert client.get("/health/ready").status_code == 503
        assert client.get("/health/live").status_code == 200
    for reply in found:  # one that came too late, one that was given up
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "stopping")
        assert int(reply.headers["Retry-After"]) >= 1


def test_every_refusal_has_the_shape_and_is_counted(library, backbone, monkeypatch):
    app = app_of(library, backbone, token="secret", limits=Limits(body_bytes=2000))
    with testclient.TestClient(app, raise_server_exceptions=False) as client:
        client.headers["Authorization"] = "Bearer secret"
        monkeypatch.setattr(app.site.catalogue, "models", lambda: 1 / 0)
        for code, reply in {
            "unauthorized": client.get("/v1/models", headers={"Authorization": "Bearer other"}),
            "body_too_large": ask(client, model="plain@0", prompt="x" * 3000),
            "not_json": client.post("/v1/completions", content="{}"),
            "foreign_origin": client.get("/health/live", headers={"Origin": "http://evil.example"}),
            "no_such_path": client.get("/v2/models"),
            "wrong_method": client.get("/v1/completions"),
            "invalid": ask(client),
            "failed": client.get("/v1/models"),
        }.items():
            assert reply.json()["error"]["code"] == code
            assert f'softprompt_refused_total{{code="{code}"}} 1.0' in client.get("/metrics").text


def test_a_text_of_twenty_megabytes_stops_nobody(library, backbone, monkeypatch):
    app = app_of(library, backbone, limits=Limits(body_bytes=32 << 20))  # were the body taken
    tokenized, tokenize = [], backbone.tokenize_inputs
    monkeypatch.setattr(backbone, "tokenize_inputs", lambda texts: tokenized.extend(texts) or tokenize(texts))
    with testclient.TestClient(app) as client:
        for long in ("x " * 10_000_000, {"text": "x" * 20_000_000}):
            assert ask(client, model="films@0", prompt=long).json()["error"]["code"] == "text_too_long"
        assert ask(client, model="films@0", prompt="x").status_code == 200
    assert [len(text) for text in tokenized] == [len("review: x")]


def test_the_door(library, backbone):
    app = app_of(library, backbone, token="secret", hosts=hosts_of("127.0.0.1", ("testserver",)))
    with testclient.TestClient(app) as client:
        assert client.get("/v1/models").status_code == 401
        assert client.get("/v1/models", headers={"Authorization": "Bearer secret"}).status_code == 200
        assert client.get("/health/live").status_code == 200
        assert client.get("/health/live", headers={"Host": "evil.example"}).status_code == 421
        assert client.get("/health/live", headers={"Origin": "http://evil.example"}).status_code == 403
    assert hosts_of("0.0.0.0") is None
    assert hosts_of("0.0.0.0", ("a.example:80",)) == frozenset({"a.example"})


def test_documents_health_and_metrics(client, backbone):
    assert {"/v1/completions", "/v1/classify", "/v1/search"} <= set(client.get("/openapi.json").json()["paths"])
    assert client.get("/docs").status_code == 200
    assert client.get("/").status_code == 200
    ask(client, model="films@0", prompt=["a", "b"])
    ask(client, model="films@9", prompt="a")
    text = client.get("/metrics").text
    assert 'softprompt_answers_total{prompt="films@0"} 2.0' in text
    assert 'softprompt_request_seconds_count{prompt="films@0"} 1.0' in text
    assert 'softprompt_refused_total{code="model_not_found"} 1.0' in text
    assert "softprompt_queue_waiting 0.0" in text
    assert client.get("/health/ready").json() == {
        "status": "ok", "backbone": backbone.name, "fingerprint": backbone.fingerprint,
    }  # fmt: skip


def test_the_explorer_has_a_place_for_each_prompt(client):
    found = client.get("/v1/explorer").json()
    assert found["mapped"] == ["films@0", "plain@0"]
    assert found["similarity"][0][1] == found["similarity"][1][0]
    assert {p["name"]: p["x"] is not None for p in found["prompts"]} == {"films@0": True, "plain@0": True}


def test_the_texts_of_a_request_are_answered_by_one_prompt(library, backbone, monkeypatch):
    """A prompt that is replaced while a request is read must not answer the rest of it."""
    app = app_of(library, backbone)
    engine, seen = app.site.engine, []
    real = engine.prepare

    def replacing(request, **how):
        row = real(request, **how)
        if not seen:
            add(library, backbone, "films", seed=9, wording=SENTIMENT, replace=True)
        seen.append(row.served)
        return row

    monkeypatch.setattr(engine, "prepare", replacing)
    with testclient.TestClient(app) as client:
        assert ask(client, "/v1/classify", model="films@0", input=["a cat", "a dog"]).status_code == 200
    assert len(seen) == 2
    assert seen[0] is seen[1]


def test_an_answer_that_fits_no_schema_is_the_servers_fault(client, library, monkeypatch):
    from softprompt.inference import http

    monkeypatch.setattr(http, "used", lambda rows, answers: "no usage")
    with pytest.raises(ValueError, match="usage"):  # as the log has it
        ask(client, model="films@0", prompt="x")
    quiet = testclient.TestClient(client.app, raise_server_exceptions=False)
    assert ask(quiet, model="films@0", prompt="x").status_code == 500
