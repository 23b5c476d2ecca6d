"""Who shares a pass: those that come together, and few that come while many are under way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
import torch
from tests.support.models import corpus, tiny_backbone

from softprompt.inference.engine import Engine, Request, Served
from softprompt.inference.scheduler import Job, Scheduler
from softprompt.prompts.stack import PromptStack


class Watched:
    """A scheduler whose passes and answers are written down."""

    def __init__(self, **how: object) -> None:
        backbone = tiny_backbone("t5")
        prompt = Served(prompter=PromptStack(torch.randn(1, 3, backbone.hidden_size)))
        self.engine = Engine(backbone, lambda name: prompt)
        self.passes: list[tuple[str, int]] = []
        self.changed, self.answers = threading.Condition(), 0
        self.scheduler = Scheduler(self.engine, watch=self._watch, **how)  # type: ignore[arg-type]
        self.scheduler.start()

    def _watch(self, kind: str, rows: int, tokens: int) -> None:
        with self.changed:
            self.passes.append((kind, rows))
            self.changed.notify_all()

    def ask(self, depths: list[int]) -> None:
        rows = [
            self.engine.prepare(Request(prompt="p", text=text, max_new_tokens=depth))
            for text, depth in zip(corpus(len(depths), 3), depths, strict=True)
        ]
        self.scheduler.submit([Job(row=row, done=self._done) for row in rows])

    def _done(self, answer: object) -> None:
        assert not isinstance(answer, BaseException), answer
        with self.changed:
            self.answers += 1
            self.changed.notify_all()

    def until(self, what: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(what, 60)

    def began(self) -> list[int]:
        return [rows for kind, rows in self.passes if kind == "begin"]


@pytest.fixture
def watched() -> object:
    made: list[Watched] = []

    def make(**how: object) -> Watched:
        made.append(Watched(**how))
        return made[-1]

    yield make
    for one in made:
        one.scheduler.stop()


def test_those_that_come_together_share_a_pass(watched: Callable[..., Watched]) -> None:
    here = watched(wait_ms=400.0)
    for _ in range(3):
        here.ask([1])
        time.sleep(0.02)
    here.until(lambda: here.answers == 3)
    assert here.began() == [3]


def test_it_waits_for_those_that_are_being_read(watched: Callable[..., Watched]) -> None:
    coming = [1]
    here = watched(wait_ms=20.0, coming=lambda: coming[0])
    here.scheduler._pass_s = 8.0  # so four seconds at most
    here.ask([1])
    time.sleep(0.3)
    here.ask([1])
    coming[0] = 0
    here.until(lambda: here.answers == 2)
    assert here.began() == [2]


def test_few_wait_for_the_many_under_way_but_not_for_ever(watched: Callable[..., Watched]) -> None:
    here = watched(wait_ms=1.0)
    for most_s, wanted in ((3.0, "advance"), (0.0, "begin")):
        here.passes.clear()
        here.scheduler._pass_s = 0.0
        begun = here.answers
        here.ask([40] * 4)
        here.until(lambda: ("begin", 4) in here.passes)
        here.scheduler._pass_s = most_s
        seen = len(here.passes)
        here.ask([2])
        here.until(lambda begun=begun: here.answers == begun + 5)
        joined = here.passes.index(("begin", 1))
        under_way = max((rows for kind, rows in here.passes[joined + 1 :] if kind == "advance"), default=0)
        assert (under_way <= 1) == (wanted == "advance"), (seen, here.passes)
