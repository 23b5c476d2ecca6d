"""Folders that travel in pieces: cut where they are, joined where they arrive, whole or not at all.

    python benchmarks/gpu/pieces.py cut FOLDER build/gpu/send --mib 40     # send-00, send-01, ...: one a call
    python benchmarks/gpu/pieces.py receive build/gpu/send-00 --into /tmp/inputs     # after each arrival
    python benchmarks/gpu/pieces.py cut RESULTS $OUT --mib 15 --flat                 # all pieces in one folder
    python benchmarks/gpu/pieces.py receive ARRIVED --into runs/gpu/pretrain

``receive`` says what is missing and ends with 3 until the last piece is there; then it checks every sha256, unpacks, and
removes what it kept. A piece that arrives twice does no harm.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

MANIFEST = "pieces.json"
MISSING = 3


class PiecesError(Exception):
    """What arrived is not what was sent."""


def cut(folder: Path, out: Path, size: int, *, flat: bool = False) -> list[Path]:
    """Pack a folder and cut it into pieces of at most ``size`` bytes.

    Args:
        folder: what travels; its content lies at the top of what arrives.
        out: ``flat``: the folder of all pieces; else the beginning of their folders' names (``out-00``, ...).
        size: bytes of a piece.
        flat: all pieces in one folder, beside one manifest.

    Returns:
        The folders written.
    """
    if size < 1:
        raise PiecesError(f"a piece of {size} bytes was asked for; it holds at least one.")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise PiecesError(f"{folder} holds no file to send.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as place:
        packed = Path(place) / "packed.tar"
        with tarfile.open(packed, "w", format=tarfile.PAX_FORMAT) as tar:
            for path in files:
                tar.add(path, arcname=path.relative_to(folder).as_posix(), recursive=False, filter=_plain)
        pieces = _pieces(packed, size)
        manifest = {
            "sha256": _digest(packed), "bytes": packed.stat().st_size, "files": len(files),
            "pieces": [{"name": name, "sha256": digest, "bytes": count} for name, digest, _, count in pieces],
        }  # fmt: skip
        written = []
        with packed.open("rb") as source:
            for number, (name, _, start, count) in enumerate(pieces):
                target = out if flat else out.with_name(f"{out.name}-{number:02d}")
                target.mkdir(parents=True, exist_ok=True)
                source.seek(start)
                (target / name).write_bytes(source.read(count))
                (target / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
                written.append(target)
    return sorted(set(written))


def receive(arrived: list[Path], into: Path) -> list[str]:
    """Keep the pieces that arrived; where all are there, put the folder together.

    Returns:
        The names of missing pieces; empty once ``into`` is whole.

    Raises:
        PiecesError: a piece is damaged, or pieces of different sendings are mixed.
    """
    kept = into.with_name(f".{into.name}.pieces")
    kept.mkdir(parents=True, exist_ok=True)
    for folder in arrived:
        manifest = _manifest(folder)
        if (kept / MANIFEST).is_file() and _manifest(kept) != manifest:
            raise PiecesError(f"{folder} belongs to another sending than {kept}: delete {kept} to begin anew.")
        shutil.copyfile(folder / MANIFEST, kept / MANIFEST)
        for piece in manifest["pieces"]:
            if (folder / piece["name"]).is_file():
                if _digest(folder / piece["name"]) != piece["sha256"]:
                    raise PiecesError(f"{folder / piece['name']} is not what was sent: send it again.")
                shutil.copyfile(folder / piece["name"], kept / piece["name"])
    manifest = _manifest(kept)
    missing = [piece["name"] for piece in manifest["pieces"] if not (kept / piece["name"]).is_file()]
    if missing:
        return missing
    packed = kept / "packed.tar"
    with packed.open("wb") as target:
        for piece in manifest["pieces"]:
            with (kept / piece["name"]).open("rb") as source:
                shutil.copyfileobj(source, target, 1 << 22)
    if _digest(packed) != manifest["sha256"]:
        raise PiecesError(f"the pieces in {kept} do not make what was sent: delete it and send again.")
    into.mkdir(parents=True, exist_ok=True)
    with tarfile.open(packed) as tar:
        tar.extractall(into, filter="data")
    shutil.rmtree(kept)
    return []


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """No owner and no time: the same content gives the same pieces."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = 0
    return entry


def _pieces(packed: Path, size: int) -> list[tuple[str, str, int, int]]:
    """(name, sha256, first byte, bytes) of each piece."""
    total, found = packed.stat().st_size, []
    with packed.open("rb") as file:
        for number, start in enumerate(range(0, total, size)):
            data = file.read(min(size, total - start))
            found.append((f"piece-{number:03d}", hashlib.sha256(data).hexdigest(), start, len(data)))
    return found


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PiecesError(f"{folder} holds no readable {MANIFEST}: it is not a folder of pieces.") from error
    return manifest


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    cutting = commands.add_parser("cut", help="cut a folder into pieces")
    cutting.add_argument("folder", type=Path)
    cutting.add_argument("out", type=Path)
    cutting.add_argument("--mib", type=float, default=40.0, help="MiB of a piece")
    cutting.add_argument("--flat", action="store_true", help="all pieces in one folder")
    receiving = commands.add_parser("receive", help="take pieces that arrived")
    receiving.add_argument("arrived", type=Path, nargs="+")
    receiving.add_argument("--into", type=Path, required=True, help="the folder that is put together")
    args = parser.parse_args()
    try:
        if args.command == "cut":
            for written in cut(args.folder, args.out, int(args.mib * 2**20), flat=args.flat):
                print(f"{written}: {sum(p.stat().st_size for p in written.iterdir()) / 2**20:.1f} MiB")
            return
        missing = receive(args.arrived, args.into)
    except PiecesError as error:
        raise SystemExit(f"error: {error}") from error
    if missing:
        print(f"{len(missing)} pieces are still to come: {', '.join(missing)}")
        sys.exit(MISSING)
    print(f"{args.into} is whole")


if __name__ == "__main__":
    main()
