"""How far a soft prompt steers the embedded backbone, measured against full tuning and against simple classifiers.

    python benchmarks/promptability.py --data ../shared/data/tasks --json
    python benchmarks/promptability.py --tasks gen_sentiment_film gen_topic_review --json      # built-in tasks

For each task: the majority class, a bag of words under logistic regression, a linear probe on the frozen encoder's
mean vector, prompt tuning, and full model tuning with as many steps on the same rows. Labels are generated greedily
and must match exactly what the tokenizer makes of them. ``share`` is (prompt - majority) / (full - majority).

Legend: B examples, T input tokens, P prompt rows, D target tokens, H width.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from softprompt.tasks.catalog import load_task
from softprompt.tasks.generated.tasks import GENERATED

Row = tuple[str, str]
FORMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "sst2": (("sentence",), ("negative", "positive")),
    "mnli": (("hypothesis", "premise"), ("entailment", "neutral", "contradiction")),
    "qqp": (("question1", "question2"), ("not_duplicate", "duplicate")),
    "rte": (("sentence1", "sentence2"), ("entailment", "not_entailment")),
    "mrpc": (("sentence1", "sentence2"), ("not_equivalent", "equivalent")),
    "cr": (("sentence",), ("negative", "positive")),
    "cola": (("sentence",), ("unacceptable", "acceptable")),
    "qnli": (("question", "sentence"), ("entailment", "not_entailment")),
    "snli": (("hypothesis", "premise"), ("entailment", "neutral", "contradiction")),
}


def labels_of(task: str) -> tuple[str, ...]:
    """The task's class labels."""
    return FORMS[task][1] if task in FORMS else load_task(task).labels


def rows_of(data: Path, task: str, split: str, limit: int, seed: int = 0) -> list[Row]:
    """(inputs, target) rows of one split, shuffled, rows without a label left out."""
    if task not in FORMS:
        rows = [(example.inputs, example.targets) for example in load_task(task).split(split).examples]
        random.Random(seed).shuffle(rows)
        return rows[:limit]
    keys, labels = FORMS[task]
    with gzip.open(data / task / f"{split}.jsonl.gz", "rt", encoding="utf-8") as lines:
        raw = [json.loads(line) for line in lines]
    rows = [
        (f"{task} " + " ".join(f"{key}: {row[key].strip()}" for key in keys), labels[int(row["label"])])
        for row in raw if 0 <= int(row["label"]) < len(labels)
    ]  # fmt: skip
    random.Random(seed).shuffle(rows)
    return rows[:limit]


@dataclass(kw_only=True)
class Bench:
    """A backbone and how it is fed.

    Attributes:
        model: an encoder-decoder; tokenizer: its tokenizer.
        longest: most input tokens, longer inputs are cut.
    """

    model: Any
    tokenizer: Any
    longest: int

    def batch(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor, Tensor]:
        """Ids [B, T], mask [B, T], labels [B, D] with -100 where there is none."""
        coded = self.tokenizer([row[0] for row in rows], truncation=True, max_length=self.longest)["input_ids"]
        gold = [self.target(row[1]) for row in rows]
        pad = int(self.tokenizer.pad_token_id)
        ids = torch.tensor([ids + [pad] * (max(map(len, coded)) - len(ids)) for ids in coded])
        mask = torch.tensor([[1] * len(one) + [0] * (ids.shape[1] - len(one)) for one in coded])
        labels = torch.tensor([one + [-100] * (max(map(len, gold)) - len(one)) for one in gold])
        return ids, mask, labels

    def target(self, text: str) -> list[int]:
        """Target ids without a start mark, with the end mark."""
        ids: list[int] = self.tokenizer(text)["input_ids"]
        return ids[1:] if ids[0] == self.tokenizer.cls_token_id else ids

    def states(self, ids: Tensor, mask: Tensor, prompt_PH: Tensor | None) -> tuple[Tensor, Tensor]:
        """Encoder states and mask, with the prompt in front of the word vectors."""
        encoder = self.model.get_encoder()
        embeds = encoder.get_input_embeddings()(ids)
        if prompt_PH is not None:
            rows = prompt_PH.to(embeds.dtype)[None].expand(len(ids), -1, -1)
            embeds = torch.cat([rows, embeds], 1)
            mask = torch.cat([mask.new_ones(len(ids), rows.shape[1]), mask], 1)
        return encoder(inputs_embeds=embeds, attention_mask=mask)[0], mask

    def logits(self, states: Tensor, mask: Tensor, previous: Tensor) -> Tensor:
        """Decoder logits [B, D, V]."""
        model = self.model
        if hasattr(model.decoder, "bert"):
            logits: Tensor = model.decoder(
                input_ids=previous, encoder_hidden_states=states, encoder_attention_mask=mask, use_cache=False
            ).logits
            return logits
        hidden = model.decoder(
            input_ids=previous, encoder_hidden_states=states, encoder_attention_mask=mask, use_cache=False
        )[0]
        lm: Tensor = model.lm_head(hidden)
        return lm

    def loss(self, rows: Sequence[Row], prompt_PH: Tensor | None) -> Tensor:
        """Mean cross-entropy for a target token."""
        ids, mask, labels = self.batch(rows)
        states, mask = self.states(ids, mask, prompt_PH)
        previous = torch.roll(labels, 1, 1)
        previous[:, 0] = self.model.config.decoder_start_token_id
        previous = previous.masked_fill(previous < 0, int(self.tokenizer.pad_token_id))
        counts = labels >= 0
        return functional.cross_entropy(self.logits(states, mask, previous)[counts].float(), labels[counts])

    @torch.no_grad()
    def accuracy(self, rows: Sequence[Row], prompt_PH: Tensor | None) -> tuple[float, Counter[str]]:
        """Share of rows whose greedy answer is the label, and what was answered."""
        deepest = max(len(self.target(label)) for label in {row[1] for row in rows})
        wanted = {row[1]: self.tokenizer.decode(self.target(row[1]), skip_special_tokens=True) for row in rows}
        right, said, ordered = 0, Counter[str](), sorted(rows, key=lambda row: len(row[0]))
        for at in range(0, len(ordered), 100):
            part = ordered[at : at + 100]
            ids, mask, _ = self.batch(part)
            states, mask = self.states(ids, mask, prompt_PH)
            told = torch.full((len(part), 1), int(self.model.config.decoder_start_token_id))
            for _ in range(deepest):
                told = torch.cat([told, self.logits(states, mask, told)[:, -1].argmax(-1, keepdim=True)], 1)
            end = int(self.model.config.eos_token_id)
            for row, ids_D in zip(part, told[:, 1:].tolist(), strict=True):
                answer = self.tokenizer.decode(
                    ids_D[: ids_D.index(end)] if end in ids_D else ids_D, skip_special_tokens=True
                )
                said[answer] += 1
                right += answer == wanted[row[1]]
        return 100 * right / len(rows), said


def load(dtype: torch.dtype, folder: Path | None) -> Bench:
    """The embedded backbone; or a run's own decoder; or a plain T5 folder."""
    from softprompt.backbones import builtin

    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "recipes"))
    from embedded_backbone import attention

    if folder is not None and not (folder / "decoder.safetensors").exists():
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=dtype).eval()
        return Bench(model=model, tokenizer=AutoTokenizer.from_pretrained(folder), longest=96)
    both, tokenizer = builtin.load_builtin_model(dtype, folder=folder or builtin.EMBEDDED_FOLDER)
    attention.use(both)
    return Bench(model=both, tokenizer=tokenizer, longest=96)


def batches(rows: Sequence[Row], size: int, steps: int, seed: int) -> list[list[Row]]:
    """``steps`` batches, rows of like length together within every eight batches."""
    rng, made = random.Random(seed), []
    pool: list[Row] = []
    while len(made) < steps:
        while len(pool) < size * 8:
            pool += rng.sample(list(rows), len(rows))
        chunk, pool = sorted(pool[: size * 8], key=lambda row: len(row[0])), pool[size * 8 :]
        parts = [chunk[at : at + size] for at in range(0, len(chunk), size)]
        rng.shuffle(parts)
        made += parts
    return made[:steps]


def initial_prompt(bench: Bench, rows: int, labels: Sequence[str], seed: int) -> Tensor:
    """Class labels first, then sampled words [P, H]."""
    table = bench.model.get_encoder().get_input_embeddings().weight.detach().float()
    rng = torch.Generator().manual_seed(seed)
    prompt = table[torch.randint(1000, 8000, (rows,), generator=rng)].clone()
    for at, label in enumerate(labels[:rows]):
        prompt[at] = table[torch.tensor(bench.target(label)[:-1])].mean(0)
    return prompt


def tune_prompt(bench: Bench, task: str, train: Sequence[Row], options: argparse.Namespace, rate: float) -> Tensor:
    """Adam with a short warm-up and a linear fall; the model stays as it is."""
    bench.model.requires_grad_(False)
    prompt = torch.nn.Parameter(initial_prompt(bench, options.prompt_length, labels_of(task), options.seed))
    optimiser = torch.optim.Adam([prompt], lr=rate, betas=(0.9, 0.98))
    for step, part in enumerate(batches(train, options.batch, options.steps, options.seed)):
        optimiser.param_groups[0]["lr"] = rate * _shape(step, options.steps)
        loss = bench.loss(part, prompt)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_([prompt], 1.0)
        optimiser.step()
        if options.verbose and step % 50 == 49:
            print(f"# {task} prompt {rate} step {step + 1} loss {loss.item():.3f}", flush=True)
    return prompt.detach()


def tune_model(bench: Bench, task: str, train: Sequence[Row], options: argparse.Namespace, rate: float) -> None:
    """AdamW on every weight, fp32 masters under bf16 autocast."""
    bench.model.requires_grad_(True)
    optimiser = torch.optim.AdamW([p for p in bench.model.parameters() if p.requires_grad], lr=rate, weight_decay=0.01)
    for step, part in enumerate(batches(train, options.batch, options.steps, options.seed)):
        optimiser.param_groups[0]["lr"] = rate * _shape(step, options.steps)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = bench.loss(part, None)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(bench.model.parameters(), 1.0)
        optimiser.step()
        if options.verbose and step % 50 == 49:
            print(f"# {task} full {rate} step {step + 1} loss {loss.item():.3f}", flush=True)


def _shape(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / 20) * max(0.05, min(1.0, 2 * (steps - step) / steps))


def classifiers(bench: Bench, train: Sequence[Row], held: Sequence[Row]) -> dict[str, float]:
    """Bag of words and the linear probe, on the same rows."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2)
    gold, asked = [row[1] for row in train], [row[1] for row in held]
    bag = LogisticRegression(max_iter=300).fit(words.fit_transform([row[0] for row in train]), gold)
    scores = {"bag_of_words": 100 * bag.score(words.transform([row[0] for row in held]), asked)}
    few = train[:6000]
    probe = LogisticRegression(max_iter=500, C=10.0).fit(_means(bench, few), gold[: len(few)])
    return {**scores, "linear_probe": 100 * probe.score(_means(bench, held), asked)}


@torch.no_grad()
def _means(bench: Bench, rows: Sequence[Row]) -> Any:
    order = sorted(range(len(rows)), key=lambda at: len(rows[at][0]))
    out = torch.zeros(len(rows), bench.model.get_encoder().config.hidden_size)
    for at in range(0, len(order), 100):
        ids, mask, _ = bench.batch([rows[place] for place in order[at : at + 100]])
        states, _ = bench.states(ids, mask, None)
        out[order[at : at + 100]] = ((states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)).float()
    return out.numpy()


def measure(task: str, options: argparse.Namespace) -> dict[str, Any]:
    """Every number of one task."""
    train = rows_of(options.data, task, "train", options.rows)
    held = rows_of(options.data, task, "validation", options.validation_rows)
    counts = Counter(row[1] for row in held)
    result: dict[str, Any] = {
        "task": task, "rows": len(train), "validation_rows": len(held), "steps": options.steps, "batch": options.batch,
        "prompt_length": options.prompt_length, "seed": options.seed, "majority": round(100 * max(counts.values()) / len(held), 1),
    }  # fmt: skip
    if "classifiers" in options.parts:
        bench = load(torch.bfloat16, options.folder)
        result |= {name: round(score, 1) for name, score in classifiers(bench, train, held).items()}
    if "prompt" in options.parts:
        bench, start = load(torch.bfloat16, options.folder), time.monotonic()
        for rate in options.rate:
            prompt = tune_prompt(bench, task, train, options, rate)
            score, said = bench.accuracy(held, prompt)
            seconds = round((time.monotonic() - start) / len(options.rate))
            if score > result.get("prompt", -1.0):
                result |= {
                    "prompt": round(score, 1),
                    "prompt_rate": rate,
                    "prompt_seconds": seconds,
                    "prompt_said": said.most_common(4),
                }
            result.setdefault("prompt_by_rate", {})[str(rate)] = round(score, 1)
    if "full" in options.parts:
        bench, start = load(torch.float32, options.folder), time.monotonic()
        tune_model(bench, task, train, options, options.full_rate)
        score, _ = bench.accuracy(held, None)
        result |= {
            "full": round(score, 1),
            "full_rate": options.full_rate,
            "full_seconds": round(time.monotonic() - start),
        }
    if "prompt" in result and "full" in result and result["full"] > result["majority"]:
        result["share"] = round((result["prompt"] - result["majority"]) / (result["full"] - result["majority"]), 3)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(
        "--data", type=Path, help="folder of <task>/{train,validation}.jsonl.gz; built-in tasks need none"
    )
    made.add_argument("--folder", type=Path, help="a model folder; default: the embedded backbone")
    made.add_argument("--tasks", nargs="+", default=["sst2", "mnli", "qqp"], choices=[*sorted(FORMS), *GENERATED])
    made.add_argument("--parts", nargs="+", default=["classifiers", "prompt", "full"])
    made.add_argument("--steps", type=int, default=500, help="steps of prompt tuning and of full tuning")
    made.add_argument("--batch", type=int, default=32)
    made.add_argument("--rows", type=int, default=16000, help="training rows")
    made.add_argument("--validation-rows", type=int, default=800)
    made.add_argument("--prompt-length", type=int, default=16)
    made.add_argument("--rate", type=float, nargs="+", default=[0.02], help="prompt rates, the best is reported")
    made.add_argument("--full-rate", type=float, default=1e-4)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--json", action="store_true", help="JSON lines alone")
    made.add_argument("--verbose", action="store_true")
    options = made.parse_args(argv)
    if options.data is None and not all(task in GENERATED for task in options.tasks):
        made.error("real tasks need --data")
    torch.set_num_threads(options.threads)
    for task in options.tasks:
        result = measure(task, options)
        shown = ("majority", "bag_of_words", "linear_probe", "prompt", "full", "share")
        print(
            json.dumps(result) if options.json else f"{task}: " + ", ".join(f"{k} {result.get(k)}" for k in shown),
            flush=True,
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
