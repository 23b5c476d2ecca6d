"""``softprompt serve`` as a process: it answers, and Ctrl-C ends it."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import torch
from tests.cli import call
from tests.models import save_tiny

from softprompt.backbones.load import load_backbone
from softprompt.library.manifest import PromptRecord
from softprompt.library.store import Library


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny backbone and a library of two prompts for it."""
    root = tmp_path_factory.mktemp("serve")
    save_tiny("t5", root / "t5", width=16, layers=1)
    backbone = load_backbone(str(root / "t5"), dtype="float32")
    for seed in (1, 2):
        record = PromptRecord(
            task="films", prompt=torch.randn(3, 16), backbone_name="t5", backbone_fingerprint=backbone.fingerprint,
            backbone_kind="t5", seed=seed,
        )  # fmt: skip
        Library(root / "lib").add(record)
    return root


def test_it_answers_mixed_requests_and_stops_on_ctrl_c(place: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "softprompt",
        "serve",
        "--library",
        "lib",
        "--backbone",
        "t5",
        "--dtype",
        "float32",
    ]
    process = subprocess.Popen(
        [*command, "--port", "0"], cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        address = ""
        for line in process.stderr:
            if found := re.search(r"2 prompt\(s\) of lib at (http://\S+);", line):
                address = found[1]
                break
        assert address, process.communicate()
        body = json.dumps({"prompt": "films@1", "inputs": ["good film", "bad film"], "max_new_tokens": 3}).encode()
        request = urllib.request.Request(
            f"{address}/v1/predict", data=body, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=240) as reply:
            assert len(json.load(reply)["outputs"]) == 2
        with urllib.request.urlopen(f"{address}/v1/prompts", timeout=240) as reply:
            assert "films@2" in reply.read().decode()
    finally:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=240)
    assert process.returncode in (0, 130), err
    assert "Traceback" not in err


def test_a_taken_port_is_one_sentence(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, _, err = call(capsys, "serve", "--library", "lib", "--backbone", "t5", "--port", port)
    assert code == 2
    assert port in err
    assert "--port" in err
