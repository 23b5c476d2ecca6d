"""The page at /, in a headless Chromium: what a person does there works, with the keyboard too, and nothing is loaded from elsewhere."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
import torch
from tests.support.browser import CHROMIUM, Browser
from tests.support.models import tiny_backbone

from softprompt.inference import connections
from softprompt.inference.catalogue import Catalogue
from softprompt.inference.engine import Engine
from softprompt.inference.guard import Limits
from softprompt.library.manifest import PromptRecord
from softprompt.library.store import Library
from softprompt.tasks.wording import Wording

pytest.importorskip("uvicorn")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
PICTURES = os.environ.get("SOFTPROMPT_PICTURES")  # a folder to look at the page in


# Names on the map that stand on another prompt's dot.
COVERED = """(() => { const box = e => e.getBoundingClientRect(), dots = [...document.querySelectorAll('#map .dot')];
return [...document.querySelectorAll('#map text')].filter(t => dots.some(d => { const a = box(t), b = box(d);
return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom; })).length; })()"""


def wording(task: str) -> Wording:
    return Wording(
        task=task, form="template", template="review: {text}", columns=("text",), label_column="label",
        labels=("bad", "good"), metrics=("accuracy",),
    )  # fmt: skip


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    from softprompt.inference.http import make_app

    backbone, library = tiny_backbone("t5"), Library(tmp_path_factory.mktemp("page") / "library")
    generator = torch.Generator().manual_seed(0)
    for i, task in enumerate(("film_sentiment", "book_sentiment", "entailment", "paraphrase", "topic", "<b>odd</b>")):
        early = torch.randn(4, backbone.hidden_size, generator=generator) + (2.0 if i < 2 else 0.0)
        library.add(
            PromptRecord(
                task=task, prompt=early, task_embedding=early, backbone_name=backbone.name, steps=100, embedding_step=20,
                backbone_fingerprint=backbone.fingerprint, backbone_kind="t5", scores={"score": 60.0 + 5 * i},
                wording=wording(task).record() if i % 2 == 0 else None,
            )
        )  # fmt: skip
    catalogue = Catalogue(backbone, library)
    app = make_app(Engine(backbone, catalogue.resolve, version=catalogue.version), catalogue)
    server = connections.server(app, Limits(), port=0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(30)


@pytest.fixture(scope="module")
def page(address, tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    browser.call("Page.navigate", url=address + "/")
    browser.wait("document.querySelectorAll('#map .dot').length === 6")
    yield browser
    browser.close()


def test_search_and_a_card_by_keyboard(page):
    page.run("const f = document.getElementById('find'); f.value = 'sentiment'; f.dispatchEvent(new Event('input'))")
    assert page.run("document.querySelectorAll('#list tr').length") == 2
    assert page.run("document.querySelectorAll('#map .dot.out').length") == 4
    page.run("document.querySelector('#map .dot:not(.out)').focus()")
    page.key("Enter")
    page.wait("document.getElementById('h-card').textContent.includes('sentiment')")
    assert page.run("document.activeElement.id") == "card"
    near = page.run("document.querySelector('#facts table button').textContent")
    assert "sentiment" in near  # the other one: they were made alike
    page.run("const g = document.getElementById('find'); g.value = ''; g.dispatchEvent(new Event('input'))")


def test_names_from_a_library_are_text(page):
    assert page.run("document.querySelectorAll('main b').length") == 0
    assert page.run("document.getElementById('list').textContent.includes('<b>odd</b>')")


def test_a_text_goes_to_several_prompts_side_by_side(page):
    page.run("document.getElementById('text').value = 'a good film'")
    page.run("document.getElementById('try').requestSubmit()")
    page.wait("document.querySelectorAll('#answers tr').length >= 3")
    assert page.run("document.querySelectorAll('#answers .wrong').length") == 0
    assert page.run("document.querySelectorAll('#answers .bar').length") >= 2


def test_pasted_rows_rank_the_prompts(page):
    page.run("document.getElementById('rows').value = 'text,label\\n\"good, great film\",good\\na poor story,bad\\n'")
    page.run("document.getElementById('source').requestSubmit()")
    page.wait("document.querySelectorAll('#ranking button').length === 6")
    page.run(
        "document.getElementById('rows').value = 'text,label\\na,b,c'; document.getElementById('source').requestSubmit()"
    )
    page.wait("document.querySelector('#ranking .wrong')?.textContent.includes('line 2')")


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_every_width_in_both_schemes(page, width, dark):
    picture = Path(PICTURES) / f"explorer-{width}-{'dark' if dark else 'light'}.png" if PICTURES else None
    page.look(width, dark=dark, file=picture)
    assert page.run("document.documentElement.scrollWidth") <= width
    page.wait("document.getElementById('map').viewBox.baseVal.width === document.getElementById('map').clientWidth")
    assert page.run(COVERED) == 0
    ink, paper = page.run("(s => [s.color, s.backgroundColor])(getComputedStyle(document.body))")
    assert contrast(ink, paper) >= 7.0


def test_everything_has_a_name_and_comes_from_here(page, address):
    unnamed = page.run(
        "[...document.querySelectorAll('input, textarea, button')].filter(e => !(e.labels?.length || e.textContent.trim())).length"
    )
    assert unnamed == 0
    assert all(url.startswith((address, "about:", "data:")) for url in page.requested)
    assert page.errors == []


def contrast(one: str, other: str) -> float:
    """Of two CSS colours, as WCAG 2 counts it."""

    def light(colour: str) -> float:
        shares = [float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)
