"""Artifacts: whole or not at all, hashed, inside their folder."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from softprompt import artifacts
from softprompt.artifacts import StorageError
from softprompt.errors import CorruptArtifactError, DataError, UsageError


def test_folder_appears_whole_with_its_digests(tmp_path: Path) -> None:
    digests = artifacts.write_folder(tmp_path / "a" / "b", {"x.json": b"{}", "state/y.bin": b"123"})
    assert digests == {"x.json": artifacts.sha256_bytes(b"{}"), "state/y.bin": artifacts.sha256_bytes(b"123")}
    assert (tmp_path / "a/b/state/y.bin").read_bytes() == b"123"
    assert os.listdir(tmp_path / "a") == ["b"]


def test_existing_folder_is_left_alone_unless_replaced(tmp_path: Path) -> None:
    target = tmp_path / "p"
    artifacts.write_folder(target, {"one": b"1"})
    with pytest.raises(UsageError, match="already exists"):
        artifacts.write_folder(target, {"two": b"2"})
    assert os.listdir(target) == ["one"]
    artifacts.write_folder(target, {"two": b"2"}, replace=True)
    assert os.listdir(target) == ["two"]
    assert os.listdir(tmp_path) == ["p"]


def test_replacing_without_an_exchange_call_still_replaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "_exchange", lambda one, other: False)
    artifacts.write_folder(tmp_path / "p", {"one": b"1"})
    artifacts.write_folder(tmp_path / "p", {"two": b"2"}, replace=True)
    assert os.listdir(tmp_path / "p") == ["two"]
    assert os.listdir(tmp_path) == ["p"]


@pytest.mark.parametrize(
    "name", ["..", ".", "", "a/../b", "/etc/x", "a//b", ".hidden", "a/.hidden", "a\\b", "a\nb", "x" * 201]
)
def test_file_names_that_could_escape_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        artifacts.write_folder(tmp_path / "p", {name: b""})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["a.b", "..", "a/b", "", "-flag", "a b", "\u00e9", "a\0"])
def test_folder_names_are_checked(name: str) -> None:
    with pytest.raises(UsageError):
        artifacts.check_name(name)
    assert artifacts.check_name("glue-mnli@0") == "glue-mnli@0"


@given(st.text(max_size=12))
@settings(max_examples=100, deadline=None)
def test_no_accepted_name_leaves_its_folder(name: str) -> None:
    root = Path("/some/root")
    try:
        artifacts.check_file_name(name)
    except UsageError:
        return
    resolved = Path(os.path.normpath(root / name))
    assert resolved.is_relative_to(root)
    assert resolved != root


def test_a_link_that_leads_out_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(UsageError, match="leads out"):
        artifacts.inside(tmp_path / "root", "link")


def test_tensors_keep_dtype_shape_and_bits(tmp_path: Path) -> None:
    base = torch.randn(4, 6)
    tensors = {
        "f32": base,
        "shared": base[1:3],
        "turned": base.t(),
        "bf16": base.to(torch.bfloat16),
        "ints": torch.arange(5),
        "flag": torch.tensor(True),
        "graph": torch.ones(2, requires_grad=True),
    }
    digest = artifacts.write_tensors(tmp_path / "t.safetensors", tensors)
    read = artifacts.read_tensors(tmp_path / "t.safetensors", sha256=digest)
    assert set(read) == set(tensors)
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor.detach())
    assert list(artifacts.read_tensors(tmp_path / "t.safetensors", ["bf16"])) == ["bf16"]
    with pytest.raises(CorruptArtifactError, match="no tensor 'gone'"):
        artifacts.read_tensors(tmp_path / "t.safetensors", ["gone"])


def test_changed_bytes_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    digest = artifacts.write_tensors(path, {"x": torch.zeros(8)})
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    load_file(path)  # safetensors itself sees nothing wrong
    for known in (digest, None):
        with pytest.raises(CorruptArtifactError, match="not what was written"):
            artifacts.read_tensors(path, sha256=known)


@given(st.binary(max_size=64))
@settings(max_examples=100, deadline=None)
def test_odd_bytes_are_one_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("odd") / "x"
    path.write_bytes(data)
    with pytest.raises(CorruptArtifactError):
        artifacts.read_tensors(path)
    with pytest.raises(CorruptArtifactError):
        artifacts.read_tensors(path, ["x"])


def test_json_has_no_nan_and_no_surprises(tmp_path: Path) -> None:
    value = {"a": math.nan, "b": [1, 2.5, True, None], "c": Path("x/y"), "d": torch.tensor(3), "e": {"z", "y"}}
    digest = artifacts.write_json(tmp_path / "x.json", value)
    read = artifacts.read_json(tmp_path / "x.json", sha256=digest)
    assert read == {"a": None, "b": [1, 2.5, True, None], "c": "x/y", "d": 3, "e": ["y", "z"]}
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(CorruptArtifactError, match="not readable JSON"):
        artifacts.read_json(tmp_path / "x.json")
    with pytest.raises(DataError, match="cannot be read"):
        artifacts.read_json(tmp_path / "gone.json")


def test_json_lines_forgive_a_torn_tail_only(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    artifacts.append_json_line(path, {"step": 1})
    with open(path, "ab") as stream:
        stream.write(b'{"step": 2, "lo')
    assert artifacts.read_json_lines(path) == [{"step": 1}]
    artifacts.append_json_line(path, {"step": 3})
    assert artifacts.read_json_lines(path) == [{"step": 1}, {"step": 3}]
    path.write_bytes(b'{"step": 1}\nnonsense\n{"step": 2}\n')
    with pytest.raises(CorruptArtifactError, match="line 2"):
        artifacts.read_json_lines(path)


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts.write_folder(tmp_path / "p", {"x": b"old"})
    calls = []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for write in (
        lambda: artifacts.write_folder(tmp_path / "p", {"x": b"new"}, replace=True),
        lambda: artifacts.write_bytes(tmp_path / "y", b"new"),
    ):
        with pytest.raises(StorageError, match="the disk is full"):
            write()
    assert calls
    assert os.listdir(tmp_path) == ["p"]
    assert (tmp_path / "p/x").read_bytes() == b"old"


def test_a_real_file_size_limit(tmp_path: Path) -> None:
    code = textwrap.dedent(
        f"""
        import resource
        from pathlib import Path
        from softprompt import artifacts
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            artifacts.write_folder(Path({str(tmp_path)!r}) / "p", {{"small": b"1", "large": b"x" * 100_000}})
        except artifacts.StorageError as error:
            print(error)
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=_environment(), check=True)
    assert "file-size limit" in done.stdout
    assert "Nothing half-written was left" in done.stdout
    assert os.listdir(tmp_path) == []


def test_a_killed_writer_leaves_only_what_sweep_removes(tmp_path: Path) -> None:
    code = textwrap.dedent(
        f"""
        import os
        from pathlib import Path
        from softprompt import artifacts
        os.fsync = lambda descriptor: os.kill(os.getpid(), 9)
        artifacts.write_folder(Path({str(tmp_path)!r}) / "p", {{"x": b"1"}})
        """
    )
    done = subprocess.run([sys.executable, "-c", code], env=_environment(), check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = os.listdir(tmp_path)
    assert left.startswith(artifacts.TEMPORARY_PREFIX)
    assert artifacts.sweep(tmp_path) == 0, "a young one may belong to a live writer"
    os.utime(tmp_path / left, (time.time() - 7200,) * 2)
    assert artifacts.sweep(tmp_path) == 1
    assert os.listdir(tmp_path) == []


def test_removing_a_folder(tmp_path: Path) -> None:
    artifacts.write_folder(tmp_path / "p", {"x": b"1"})
    artifacts.remove_folder(tmp_path / "p")
    assert os.listdir(tmp_path) == []
    with pytest.raises(StorageError):
        artifacts.remove_folder(tmp_path / "p")


def test_json_bytes_refuse_what_has_no_json_form() -> None:
    with pytest.raises(TypeError):
        artifacts.json_bytes({"x": object()})
    assert json.loads(artifacts.json_bytes({"t": torch.ones(2)})) == {"t": [1.0, 1.0]}


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(artifacts.__file__).parents[1])}


# The cache -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def homeless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A container that runs as a number: no HOME, no entry for the user; gives the folder of temporary files."""

    def no_entry(_uid: int) -> None:
        raise KeyError("uid not found")

    for name in ("HOME", "XDG_CACHE_HOME", "SOFTPROMPT_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", no_entry)
    monkeypatch.setattr(artifacts.tempfile, "tempdir", str(tmp_path))
    artifacts._temporary_cache.cache_clear()
    return tmp_path


def test_without_a_home_the_cache_is_a_temporary_folder_of_our_own(homeless: Path) -> None:
    found = artifacts.cache_folder("index", "x")
    assert found == homeless / f"softprompt-{os.getuid()}" / "index" / "x"
    assert (homeless / f"softprompt-{os.getuid()}").stat().st_mode & 0o777 == 0o700
    artifacts.write_bytes(found / "file", b"1")


@pytest.mark.parametrize("home", ["/proc", "relative", "/dev/null/home"])
def test_a_home_that_cannot_hold_a_cache_is_none(homeless: Path, home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", home)
    if home == "/proc":  # root may write anywhere but into what is no real file system
        monkeypatch.setattr(artifacts.os, "access", lambda place, mode: not str(place).startswith("/proc"))
    assert artifacts.cache_folder().parent == homeless


@pytest.mark.parametrize("trap", ["others may write", "a link", "another's"])
def test_a_temporary_cache_that_others_hold_is_not_used(homeless: Path, trap: str) -> None:
    usual = homeless / f"softprompt-{os.getuid()}"
    if trap == "a link":
        (homeless / "elsewhere").mkdir(mode=0o700)
        usual.symlink_to(homeless / "elsewhere")
    else:
        usual.mkdir(mode=0o700)
    if trap == "others may write":
        usual.chmod(0o777)
    elif trap == "another's":
        if os.geteuid() != 0:
            pytest.skip("only root can give a folder away")
        os.chown(usual, 54321, -1)
    found = artifacts.cache_folder("encoded")
    assert found.parent != usual
    assert found == artifacts.cache_folder("encoded")  # the same for the whole process
    assert found.parent.stat().st_mode & 0o777 == 0o700


def test_a_sealed_object_is_read_as_it_was_or_not_at_all(tmp_path: Path) -> None:
    value = {"scores": {"f1": 0.1, "text": "a\u00e9\U0001f600"}, "steps": [1, 2]}
    artifacts.write_json(tmp_path / "a.json", value, sealed=True)
    assert artifacts.read_json(tmp_path / "a.json") == value
    text = (tmp_path / "a.json").read_text()
    (tmp_path / "a.json").write_text(text.replace("0.1", "0.2"))
    with pytest.raises(CorruptArtifactError, match="its own digest differs"):
        artifacts.read_json(tmp_path / "a.json")


def test_a_file_of_tensors_holds_their_digests(tmp_path: Path) -> None:
    """safetensors has no checksum: without ours a flipped bit of a number is read in silence."""
    tensors = {"a": torch.randn(3, 4), "b": torch.zeros(0), "c": torch.tensor(7, dtype=torch.bfloat16)}
    artifacts.write_tensors(tmp_path / "t", tensors)
    assert torch.equal(artifacts.read_tensors(tmp_path / "t", ["a"])["a"], tensors["a"])
    data = bytearray((tmp_path / "t").read_bytes())
    data[-20] ^= 1
    (tmp_path / "t").write_bytes(data)
    for names in (None, ["a"]):
        with pytest.raises(CorruptArtifactError, match="digest of tensor 'a' differs"):
            artifacts.read_tensors(tmp_path / "t", names)
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, tmp_path / "others")  # files of others have none
    assert artifacts.read_tensors(tmp_path / "others")["a"].sum() == 2


def test_what_cannot_be_replaced_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where two folders cannot be exchanged, the old one steps aside; a failure then must not leave nothing."""
    artifacts.write_folder(tmp_path / "a", {"x": b"old"})
    real, calls = os.rename, []

    def second_fails(one: str, other: str) -> None:
        calls.append(other)
        if len(calls) == 3:  # tried, stepped aside, and now into its place
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(one, other)

    monkeypatch.setattr(artifacts, "_exchange", lambda one, other: False)
    monkeypatch.setattr(artifacts.os, "rename", second_fails)
    with pytest.raises(StorageError, match="Input/output error"):
        artifacts.write_folder(tmp_path / "a", {"x": b"new"}, replace=True)
    assert (tmp_path / "a" / "x").read_bytes() == b"old"


def test_the_same_tensors_are_the_same_bytes_in_whatever_order_they_come() -> None:
    import torch

    one = {"a": torch.arange(3.0), "b": torch.ones(2, 2)}
    assert artifacts.tensor_bytes(one) == artifacts.tensor_bytes(dict(reversed(one.items())))


def test_a_line_that_is_deeper_than_any_reader_goes_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(b"[" * 200_000 + b"]" * 200_000 + b"\n")
    with pytest.raises(CorruptArtifactError, match="line 1 is not JSON"):
        artifacts.read_json_lines(path)


@pytest.mark.parametrize(
    "text", ['{"a": 1e999}', '{"a": [-1e400]}', '{"a": NaN}', '{"a": Infinity}', '{"a": 1, "a": 1}']
)
def test_what_json_has_no_number_for_is_damage(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(CorruptArtifactError, match="not readable JSON"):
        artifacts.read_json(tmp_path / "a.json")
    sealed = artifacts.json_bytes({"a": 7.5}, sealed=True).replace(b"7.5", b"1e999")
    (tmp_path / "b.json").write_bytes(sealed)
    with pytest.raises(CorruptArtifactError):
        artifacts.read_json(tmp_path / "b.json")
