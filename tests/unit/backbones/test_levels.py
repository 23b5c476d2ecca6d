"""Levels of instructions, and the compiled kernels' file: what is forced, what is refused, what is never loaded."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from softprompt.backbones.engine.native import levels, library
from softprompt.backbones.load import computes_bfloat16, load_backbone
from softprompt.errors import UsageError

_PLANTED = (
    "#include <stdlib.h>\n__attribute__((constructor)) static void planted(void) { exit(77); }\nvoid add_rms(void) {}\n"
)
needs_compiler = pytest.mark.skipif(
    library.find_compiler() is None or levels.available()[0] == "torch",
    reason="no C compiler here, or nothing to compile",
)


def _python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter, since PyTorch reads its limits once."""
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": "src", **environment}, capture_output=True, text=True
    )  # fmt: skip


# Levels ----------------------------------------------------------------------------------------------------------------


def test_pytorch_computes_at_the_level_in_force() -> None:
    level = levels.in_force()
    assert level.name in levels.available()
    if level.bfloat16 is not None:
        assert computes_bfloat16(torch.device("cpu")) == level.bfloat16
    if level.limits:
        assert torch.backends.cpu.get_cpu_capability() == level.limits["ATEN_CPU_CAPABILITY"].upper()
        if os.environ.get(levels.VARIABLE):  # the machine's best level needs no limits
            assert {name: os.environ[name] for name in level.limits} == level.limits


@pytest.mark.parametrize(
    ("level", "maker", "faster"),
    [("avx512_bf16", "GenuineIntel", True), ("avx512_bf16", "AuthenticAMD", False), ("amx", "GenuineIntel", False),
     ("avx2", "GenuineIntel", False), ("torch", "", False)],
)  # fmt: skip
def test_where_float32_is_multiplied_faster(
    level: str, maker: str, faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(levels, "in_force", lambda: levels.LEVELS[level])
    monkeypatch.setattr(levels, "_maker", lambda: maker)
    assert levels.float32_is_faster() is faster


@pytest.mark.slow
def test_matrix_products_use_no_tiles_below_their_level() -> None:
    if levels.available()[0] != "amx":
        pytest.skip("no matrix tiles here that could be left out")
    code = "import softprompt, torch; a = torch.ones(64, 64, dtype=torch.bfloat16); torch.mm(a, a)"
    used = {}
    for name in ("", "avx512_bf16"):
        found = _python(
            code, SOFTPROMPT_KERNELS=name, ONEDNN_VERBOSE="1", ONEDNN_MAX_CPU_ISA="", ATEN_CPU_CAPABILITY=""
        )
        used[name] = [line for line in found.stdout.splitlines() if "exec" in line and "matmul" in line]
    assert any("amx" in line for line in used[""])
    assert used["avx512_bf16"]
    assert not any("amx" in line for line in used["avx512_bf16"])


def test_a_level_this_machine_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levels, "features", lambda: frozenset({"avx2", "fma"}))
    monkeypatch.setattr(levels.platform, "machine", lambda: "x86_64")
    levels.available.cache_clear()
    try:
        assert levels.available() == ("avx2", "torch")
        monkeypatch.setenv("SOFTPROMPT_KERNELS", "amx")
        with pytest.raises(UsageError, match=r"lacks avx512f.*use one of avx2, torch"):
            load_backbone()
        monkeypatch.setenv("SOFTPROMPT_KERNELS", "neon")
        with pytest.raises(UsageError, match="lacks a processor of kind aarch64"):
            levels.in_force()
        monkeypatch.setenv("SOFTPROMPT_KERNELS", "avx1024")
        with pytest.raises(UsageError, match="names no level"):
            levels.in_force()
        monkeypatch.delenv("SOFTPROMPT_KERNELS")
        assert levels.in_force().name == "avx2"
        assert not computes_bfloat16(torch.device("cpu"))
    finally:
        levels.available.cache_clear()


@pytest.mark.slow
def test_limits_that_come_too_late_are_noticed() -> None:
    if levels.available()[0] not in ("amx", "avx512_bf16"):
        pytest.skip("PyTorch has nothing beyond AVX2 to leave out here")
    found = _python(
        "import torch; torch.ones(9).sum(); import softprompt; from softprompt.backbones.engine.native.levels import in_force; in_force()",
        SOFTPROMPT_KERNELS="avx2",
        ATEN_CPU_CAPABILITY="avx512",
    )
    assert "came too late" in found.stderr


@pytest.mark.slow
@pytest.mark.parametrize("level", [name for name, level in levels.LEVELS.items() if "x86_64" in level.machines])
def test_every_level_compiles_without_a_warning(level: str, tmp_path: Path) -> None:
    if shutil.which("gcc") is None or levels.platform.machine() != "x86_64":
        pytest.skip("no gcc for x86_64 here")
    _compile("gcc", levels.LEVELS[level].compiler, tmp_path)


def test_arm64_compiles_without_a_warning(tmp_path: Path) -> None:
    if shutil.which("aarch64-linux-gnu-gcc") is None:
        pytest.skip("no cross compiler: apt-get install gcc-aarch64-linux-gnu")
    _compile("aarch64-linux-gnu-gcc", levels.LEVELS["neon"].compiler, tmp_path)


def _compile(compiler: str, flags: tuple[str, ...], folder: Path) -> None:
    optimised = [flag.replace("-O3", "-O1") for flag in library.FLAGS]  # the same code is read, in less time
    command = [
        compiler,
        *optimised,
        *flags,
        "-Wall",
        "-Wextra",
        "-Werror",
        str(library._SOURCE),
        "-o",
        str(folder / "k.so"),
        "-lm",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# The compiled file -----------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a compiler that takes a moment: a small library with the one name that is looked for."""
    source = tmp_path / "small.c"
    source.write_text("int add_rms(void) { return 5; }\n")
    monkeypatch.setattr(library, "_SOURCE", source)
    monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SOFTPROMPT_KERNELS", raising=False)
    return tmp_path / "cache" / "kernels"


def _load() -> ctypes.CDLL:
    found = library._loaded(str(library.find_compiler()), levels.in_force())
    assert found.add_rms() == 5
    return found


def _kept(cache: Path) -> Path:
    (file,) = cache.iterdir()
    return file


@needs_compiler
def test_a_built_file_is_kept_and_used_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _load()
    file = _kept(cache)
    assert (file.stat().st_mode & 0o777, cache.stat().st_mode & 0o777) == (0o600, 0o700)
    monkeypatch.setattr(library, "_build", lambda *_: pytest.fail("built again"))
    _load()
    assert _kept(cache) == file


@needs_compiler
@pytest.mark.parametrize("damage", ["empty", "truncated", "other bytes", "a folder", "a link", "a pipe"])
def test_a_broken_file_is_built_again(cache: Path, damage: str) -> None:
    _load()
    file, whole = _kept(cache), _kept(cache).read_bytes()
    file.unlink()
    if damage == "a folder":
        file.mkdir()
    elif damage == "a link":
        (cache.parent / "elsewhere.so").write_bytes(whole)
        file.symlink_to(cache.parent / "elsewhere.so")
    elif damage == "a pipe":
        os.mkfifo(file)
    else:
        file.write_bytes({"empty": b"", "truncated": whole[:4096], "other bytes": whole[:-1] + b"x"}[damage])
        file.chmod(0o600)
    _load()
    if damage == "a folder":  # in the way of the name, and not ours to remove: built for this process alone
        return
    assert _kept(cache).read_bytes() == whole
    assert not _kept(cache).is_symlink()


def _plant(cache: Path) -> Path:
    """A library that ends the process, in the place and under the name of a good one; every sign of it is right."""
    _load()
    file = _kept(cache)
    source, planted = cache.parent / "planted.c", cache.parent / "planted.so"
    source.write_text(_PLANTED)
    subprocess.run([str(library.find_compiler()), "-shared", "-fPIC", str(source), "-o", str(planted)], check=True)
    digest = hashlib.sha256(planted.read_bytes()).hexdigest()
    target = cache / f"{'-'.join(file.name.split('-')[:2])}-{digest}.so"
    planted.rename(target)
    target.chmod(0o600)
    file.unlink()
    return target


@needs_compiler
@pytest.mark.slow
def test_a_planted_file_runs_where_every_sign_is_right(cache: Path) -> None:
    """So that the next test can fail."""
    _plant(cache)
    assert _python(_LOAD, SOURCE=str(library._SOURCE), CACHES=str(cache.parent)).returncode == 77


@needs_compiler
@pytest.mark.slow
def test_what_others_could_have_written_is_never_loaded(cache: Path, tmp_path: Path) -> None:
    planted = _plant(cache)
    holes = ["mode", "second name", *(["file's owner", "folder's owner"] if os.geteuid() == 0 else [])]
    for hole in holes:
        folder = tmp_path / hole / "kernels"
        folder.mkdir(parents=True, mode=0o700)
        file = folder / planted.name
        shutil.copy(planted, file)
        if hole == "mode":
            file.chmod(0o660)
        elif hole == "second name":
            os.link(file, tmp_path / "second.so")
        else:
            os.chown(file if hole == "file's owner" else folder, 54321, -1)
    caches = ":".join(str(tmp_path / hole) for hole in holes)
    done = _python(_LOAD, SOURCE=str(library._SOURCE), CACHES=caches)
    assert (done.returncode, done.stdout.split()) == (0, ["5"] * len(holes)), done.stderr


_LOAD = """
import os
from pathlib import Path
from softprompt.backbones.engine.native import levels, library
library._SOURCE = Path(os.environ["SOURCE"])
for os.environ["SOFTPROMPT_CACHE"] in os.environ["CACHES"].split(":"):
    print(library._loaded(library.find_compiler(), levels.in_force()).add_rms())
"""


@needs_compiler
def test_a_folder_that_others_may_write_to_is_closed(cache: Path) -> None:
    cache.mkdir(parents=True, mode=0o777)
    cache.chmod(0o777)
    _load()
    assert cache.stat().st_mode & 0o777 == 0o700


@needs_compiler
def test_a_compiler_that_fails_leaves_pytorch(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", shutil.which("false") or "false")
    library.library.cache_clear()
    try:
        assert library.library() is None
    finally:
        library.library.cache_clear()
