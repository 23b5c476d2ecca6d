"""Tokenised shards for pretrain.py, made on a machine without a GPU (about ten minutes on two cores for all of it).

    python benchmarks/gpu/prepare_pretraining.py ../shared/data/text build/gpu/text
    python benchmarks/gpu/pieces.py cut build/gpu/text build/gpu/send --mib 40

Trains an 8k SentencePiece vocabulary on a sample, tokenises every document, and writes int16 shards with a manifest of
sha256. Only cleanly licensed text goes in unless others are named (``--names``); one document in 200 is held out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "recipes"))
sys.path.insert(0, str(Path(__file__).parent))

from job import command, parser, run, verify, versions

LICENSED = ("enwiki_articles", "simplewiki", "enwiki_recent", "novels")
"""Files of CC BY-SA and public-domain text: what may train weights that are given away."""
MIB = 2**20
_AT_ONCE = 256  # documents given to the tokenizer together


def prepare(text: Path, out: Path, names: Sequence[str], *, vocabulary: int, shard_mib: float, seed: int,
            documents: int | None = None) -> dict[str, Any]:  # fmt: skip
    """Vocabulary and shards from a folder of text; returns the manifest.

    Args:
        text: folder of text files, one document a line.
        out: folder of the shards.
        names: files to use, by name up to the first dot; empty for all.
        vocabulary: pieces.
        shard_mib: MiB of a shard.
        seed: of the sample that the vocabulary is trained on.
        documents: most documents of each file; None for all.
    """
    from embedded_backbone import PretrainSettings
    from embedded_backbone.corpus import Corpus, text_files
    from embedded_backbone.setup import own_vocabulary
    from embedded_backbone.shards import VOCABULARY, write_shards

    files = text_files(text, names)
    out.mkdir(parents=True, exist_ok=True)
    settings = PretrainSettings(
        text=text, folder=out, architecture="t5", objective="span", vocabulary=vocabulary, seed=seed
    )
    tokenizer = own_vocabulary(settings, Corpus.load(files, limit=documents))
    pieces = Pieces(out / VOCABULARY)
    pieces.compare(tokenizer, files[0].path)
    note = {"command": command(), "seed": seed, "versions": versions(), "same_as_tokenizer": pieces.share}
    return write_shards(
        out, pieces.documents([file.path for file in files], documents), vocabulary=(out / VOCABULARY).read_bytes(),
        pieces=pieces.count, end_id=1, text=files, shard_bytes=int(shard_mib * MIB), note=note,
    )  # fmt: skip


class Pieces:
    """A SentencePiece vocabulary as it tokenises many documents.

    Attributes:
        count: pieces.
        share: of sampled sentences that the Hugging Face tokenizer cuts the same way; 0 before ``compare``.
    """

    def __init__(self, model: Path) -> None:
        import sentencepiece

        self._model: Any = sentencepiece.SentencePieceProcessor(model_file=str(model))
        self.count = int(self._model.get_piece_size())
        self.share = 0.0

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts, without marks."""
        coded: list[list[int]] = self._model.encode(list(texts), num_threads=0)
        return coded

    def compare(self, tokenizer: Any, path: Path, lines: int = 200) -> None:
        """Set ``share``: what is trained on must be what the exported model's tokenizer will give it."""
        from embedded_backbone.corpus import read_documents

        texts = [text[:300] for text, _ in zip(read_documents(path), range(lines), strict=False)]
        theirs = tokenizer(texts, add_special_tokens=False)["input_ids"]
        self.share = sum(a == b for a, b in zip(self.encode(texts), theirs, strict=True)) / max(1, len(texts))

    def documents(self, paths: Sequence[Path], limit: int | None) -> Iterator[tuple[bool, list[int]]]:
        """(held out, ids) of every document of the files, in order."""
        from embedded_backbone.corpus import HELD_OUT_EVERY, read_documents

        for path in paths:
            waiting: list[tuple[bool, str]] = []
            for index, text in enumerate(read_documents(path)):
                if limit is not None and index >= limit:
                    break
                waiting.append((index % HELD_OUT_EVERY == HELD_OUT_EVERY - 1, text))
                if len(waiting) == _AT_ONCE:
                    yield from self._coded(waiting)
                    waiting = []
            yield from self._coded(waiting)

    def _coded(self, waiting: Sequence[tuple[bool, str]]) -> Iterator[tuple[bool, list[int]]]:
        ids = self.encode([text for _, text in waiting]) if waiting else []
        yield from ((held_out, row) for (held_out, _), row in zip(waiting, ids, strict=True))


def toy_text(folder: Path, documents: int = 1600) -> Path:
    """A folder with a small text file of made-up sentences, for self-checks."""
    import random

    words = "river castle garden teacher morning winter answer letter music small great seven Paris walked found lost quiet".split()  # noqa: SIM905
    draw = random.Random(3)
    sentences = [
        "The " + " ".join(draw.choices(words, k=6)) + " was in the " + draw.choice(words) + "."
        for _ in range(documents)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "toy.txt").write_text("\n".join(sentences), encoding="utf-8")
    return folder


def toy_shards(folder: Path) -> Path:
    """Shards of ``toy_text``."""
    prepare(toy_text(folder / "text"), folder / "shards", (), vocabulary=120, shard_mib=0.05, seed=1)
    return folder / "shards"


def check(folder: Path) -> list[str]:
    """Shards of toy text: sizes, hashes, the held-out part, the same again."""
    from embedded_backbone.shards import TokenShards

    text = toy_text(folder / "text")
    made = [prepare(text, folder / name, (), vocabulary=120, shard_mib=0.05, seed=1) for name in ("one", "two")]
    train, held = (TokenShards.load(folder / "one", held_out=part) for part in (False, True))
    return [
        verify(made[0]["shards"] == made[1]["shards"], "the same text and seed give the same shards"),
        verify(all(2 * s["tokens"] <= 0.05 * MIB for s in made[0]["shards"]), "no shard is larger than asked"),
        verify(train.tokens > 50 * held.tokens > 0, "one document in 200 is held out"),
        verify(made[0]["same_as_tokenizer"] == 1.0, "shards hold what the model's own tokenizer gives"),
    ]


def main() -> None:
    made = parser(__doc__ or "")
    made.add_argument("--names", nargs="*", default=list(LICENSED), help="text files; none after the flag: all")
    made.add_argument("--vocabulary", type=int, default=8000)
    made.add_argument("--shard-mib", type=float, default=40.0)
    args = made.parse_args()

    def work() -> None:
        if args.inputs is None or args.out is None:
            raise SystemExit("prepare_pretraining: name the folder of texts and the folder of shards.")
        found = prepare(
            args.inputs, args.out, args.names, vocabulary=args.vocabulary, shard_mib=args.shard_mib, seed=args.seeds[0]
        )
        print(f"{found['tokens']:,} training tokens in {len(found['shards'])} shards, {args.out}")

    run("prepare_pretraining", args, work, check)


if __name__ == "__main__":
    main()
