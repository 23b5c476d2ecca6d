"""Mixtures: which tasks are mixed, and how often each is drawn (Raffel et al. 2020 section 3.5.2; SPoT section 2.1.3).

Rates are examples-proportional with an artificial size limit K, optionally flattened by a temperature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from softprompt.errors import UnknownNameError, UsageError

K = 2**19
"""The papers' artificial limit on a task's size."""

_GLUE = ("cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "glue_rte")
_SUPERGLUE = ("boolq", "cb", "copa", "multirc", "record", "rte", "wic", "wsc")
_NLI = ("anli", "cb", "doc_nli", "mnli", "qnli", "rte", "snli")
_SIMILARITY = ("cxc", "mrpc", "qqp", "stsb")
_SENTIMENT = ("cr", "go_emotions", "sentiment140", "sst2", "yelp_polarity")
_MRQA = (
    "mrqa_squad",
    "mrqa_news_qa",
    "mrqa_trivia_qa",
    "mrqa_search_qa",
    "mrqa_hotpot_qa",
    "mrqa_natural_questions",
)
_RAINBOW = ("alpha_nli", "cosmos_qa", "hellaswag", "piqa", "social_i_qa", "winogrande")
_TRANSLATION = ("wmt_en_de", "wmt_en_fr", "wmt_en_ro")
_SUMMARIZATION = (
    "aeslc",
    "billsum",
    "cnn_dailymail",
    "wiki_lingua",
    "gigaword",
    "multi_news",
    "newsroom",
    "samsum",
    "xsum",
)
_GEM = (
    "gem_common_gen",
    "gem_dart",
    "gem_e2e",
    "gem_sgd",
    "gem_web_nlg",
    "gem_wiki_auto",
    "gem_xsum",
    "gem_wiki_lingua",
)
_FAMILIES = (
    _GLUE,
    _SUPERGLUE,
    _NLI,
    _SIMILARITY,
    _SENTIMENT,
    _MRQA,
    _RAINBOW,
    _TRANSLATION,
    _SUMMARIZATION,
    _GEM,
)
_SPOT_SOURCES = (
    "c4",
    "doc_nli",
    "yelp_polarity",
    "mnli",
    "qqp",
    "qnli",
    "record",
    "cxc",
    "squad",
    "drop",
    "sst2",
    "winogrande",
    "hellaswag",
    "multirc",
    "cosmos_qa",
    "race_middle",
)
_SPOT_TARGETS = ("boolq", "cola", "stsb", "wic", "cr", "mrpc", "rte", "wsc", "copa", "cb")


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """A mixture of tasks.

    Attributes:
        name: of the mixture.
        tasks: names, each once.
        limit: K, the most examples a task counts for; None for no limit (a plain union: SharPT's sources).
        temperature: rates are raised to 1/temperature; 1 is examples-proportional, more is flatter.
        weights: fixed weights by task instead of sizes; empty for none.
    """

    name: str
    tasks: tuple[str, ...]
    limit: int | None = K
    temperature: float = 1.0
    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.tasks:
            raise UsageError(f"mixture {self.name!r} has no task; name at least one.")
        twice = sorted({t for t in self.tasks if self.tasks.count(t) > 1})
        if twice:
            raise UsageError(f"mixture {self.name!r} names {', '.join(twice)} twice; name a task once.")
        if self.temperature <= 0:
            raise UsageError(f"mixture {self.name!r} has temperature {self.temperature}; it must be above 0.")
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"mixture {self.name!r} has limit {self.limit}; it must be at least 1.")
        if self.weights:
            unknown = sorted(set(self.weights) ^ set(self.tasks))
            if unknown or min(self.weights.values()) < 0 or sum(self.weights.values()) <= 0:
                raise UsageError(
                    f"mixture {self.name!r} needs one weight of at least 0 for each task"
                    + (f"; {', '.join(unknown)} differ." if unknown else ", not all 0.")
                )

    def rates(self, sizes: Mapping[str, int]) -> dict[str, float]:
        """The probability of drawing each task; they sum to 1.

        Args:
            sizes: training examples of each task, at least 1.

        Raises:
            UsageError: where a size is missing or below 1.
        """
        if self.weights:
            raw = {task: float(self.weights[task]) for task in self.tasks}
        else:
            missing = [t for t in self.tasks if sizes.get(t, 0) < 1]
            if missing:
                raise UsageError(f"mixture {self.name!r} needs the training sizes of {', '.join(missing)}.")
            raw = {t: float(sizes[t] if self.limit is None else min(sizes[t], self.limit)) for t in self.tasks}
        flat = {task: weight ** (1.0 / self.temperature) if weight else 0.0 for task, weight in raw.items()}
        total = sum(flat.values())
        return {task: weight / total for task, weight in flat.items()}


def proportional_rates(sizes: Sequence[int], *, limit: int | None = K, temperature: float = 1.0) -> tuple[float, ...]:
    """Examples-proportional rates of tasks given by size alone; see `Mixture`."""
    names = [str(i) for i in range(len(sizes))]
    mixture = Mixture(name="tasks", tasks=tuple(names), limit=limit, temperature=temperature)
    return tuple(mixture.rates(dict(zip(names, sizes, strict=True))).values())


def _unique(families: Sequence[Sequence[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(task for family in families for task in family))


MIXTURES: Mapping[str, Mixture] = {
    mixture.name: mixture
    for mixture in (
        Mixture(name="glue", tasks=_GLUE),
        Mixture(name="superglue", tasks=_SUPERGLUE),
        Mixture(name="nli", tasks=_NLI),
        Mixture(name="paraphrase_similarity", tasks=_SIMILARITY),
        Mixture(name="sentiment", tasks=_SENTIMENT),
        Mixture(name="mrqa", tasks=_MRQA),
        Mixture(name="rainbow", tasks=_RAINBOW),
        Mixture(name="translation", tasks=_TRANSLATION),
        Mixture(name="summarization", tasks=_SUMMARIZATION),
        Mixture(name="gem", tasks=_GEM),
        # RTE is one data set in two text forms: GLUE's own, and SuperGLUE's, which stands for both here.
        Mixture(name="all", tasks=tuple(t for t in _unique([("c4",), *_FAMILIES]) if t != "glue_rte")),
        Mixture(name="spot_sources", tasks=_SPOT_SOURCES),
        Mixture(name="spot_targets", tasks=_SPOT_TARGETS),
        Mixture(name="sharpt_sources", tasks=_SPOT_SOURCES[1:], limit=None),
        Mixture(
            name="sharpt_cross_category_sources",
            tasks=("record", "squad", "drop", "multirc", "race_middle", "yelp_polarity", "sst2", "qqp", "cxc"),
            limit=None,
        ),
        Mixture(name="sharpt_cross_category_targets", tasks=("copa", "cb", "rte", "wsc", "wic"), limit=None),
    )
}
"""The papers' mixtures by name."""


def load_mixture(name: str) -> Mixture:
    """A mixture of the papers by name, or the user's from ``task+task`` or ``task=rate,task=rate``.

    Raises:
        UnknownNameError: with the nearest names.
        UsageError: where a rate is no number.
    """
    if name in MIXTURES:
        return MIXTURES[name]
    if "=" in name:
        weights: dict[str, float] = {}
        for part in name.split(","):
            task, _, rate = part.partition("=")
            try:
                weights[task.strip()] = float(rate)
            except ValueError:
                raise UsageError(f"mixture {name!r}: the rate of {task.strip()!r} is {rate!r}, not a number.") from None
        return Mixture(name=name, tasks=tuple(weights), weights=weights)
    for separator in ("+", ","):
        if separator in name:
            return Mixture(name=name, tasks=tuple(part.strip() for part in name.split(separator)))
    raise UnknownNameError("mixture", name, MIXTURES, "Or join tasks: mnli+qqp, or mnli=0.7,qqp=0.3.")
