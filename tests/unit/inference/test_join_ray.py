"""Joining a Ray cluster: what is refused and how, and the token that a running cluster asks for."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from softprompt.errors import UsageError
from softprompt.inference.ray_predict import join_ray


def stand_in(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None = None, running: bool = False
) -> list[dict[str, object]]:
    """Ray's place in ``sys.modules``, and what its ``init`` was given."""
    given: list[dict[str, object]] = []

    def init(**how: object) -> None:
        given.append({**how, "mode": os.environ.get("RAY_AUTH_MODE")})
        if error is not None:
            raise error

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init, is_initialized=lambda: running))
    return given


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "x")  # so that what is set below is taken back
    monkeypatch.delenv("RAY_AUTH_MODE")


def test_a_cluster_that_lets_nobody_in_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, ConnectionError("Failed to connect to \x1b[31m10.0.0.1:6379\nlong talk"))
    with pytest.raises(UsageError) as caught:
        join_ray("10.0.0.1:6379")
    assert str(caught.value).startswith("the Ray cluster '10.0.0.1:6379' cannot be used (Failed to connect to ")
    assert "long talk" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert "RAY_AUTH_TOKEN" in str(caught.value)


@pytest.mark.parametrize(
    ("address", "token", "mode"), [("auto", True, "token"), ("auto", False, None), (None, True, None)]
)
def test_a_running_cluster_is_shown_the_users_token(
    address: str | None, token: bool, mode: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = stand_in(monkeypatch)
    if token:
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text("t")
    assert join_ray(address)[1]
    assert [(one["address"], one["mode"]) for one in given] == [(address, mode)]


def test_a_mode_that_the_user_chose_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = stand_in(monkeypatch)
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("t")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    join_ray("auto")
    assert given[0]["mode"] == "disabled"


def test_a_cluster_that_is_joined_already_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    given = stand_in(monkeypatch, running=True)
    assert not join_ray("auto")[1]
    assert given == []


def test_without_ray_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'softprompt\[ray\]'"):
        join_ray(None)
