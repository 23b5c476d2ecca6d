"""Which generated tasks are kin, and which serve as sources and targets of the demonstration study.

Written before any ranking by prompts was measured against it; the reasons stand in docs/builtin-tasks.md.
"""

from __future__ import annotations

from collections.abc import Mapping

#: Families: tasks that need one skill. Two tasks are kin where a family holds both.
FAMILIES: Mapping[str, tuple[str, ...]] = {
    "sentiment": (
        "gen_sentiment_film",
        "gen_sentiment_restaurant",
        "gen_sentiment_product",
        "gen_sentiment_hotel",
    ),
    "entailment": ("gen_entailment_scene", "gen_entailment_report", "gen_entailment_question"),
    "equivalence": (
        "gen_paraphrase_sentence",
        "gen_paraphrase_question",
        "gen_similarity_scene",
        "gen_similarity_headline",
    ),
    "acceptability": (
        "gen_acceptability_agreement",
        "gen_acceptability_order",
        "gen_acceptability_swap",
        "gen_acceptability_verbs",
    ),
    "extraction": ("gen_extraction_diary", "gen_extraction_facts"),
    "sense": ("gen_sense_pair", "gen_sense_gloss"),
    "coreference": ("gen_coreference_choice", "gen_coreference_judge"),
    "causation": ("gen_cause_choice", "gen_effect_choice"),
    "topic": ("gen_topic_sentence", "gen_topic_review", "gen_topic_question"),
}

#: Task -> its kin, itself left out.
KINSHIP: Mapping[str, frozenset[str]] = {
    name: frozenset(members) - {name} for members in FAMILIES.values() for name in members
}

#: High-resource tasks whose prompts make a library. Some are decoys for a target: they share its words, not its skill.
DEMO_SOURCES: tuple[str, ...] = (
    "gen_sentiment_film",
    "gen_entailment_scene",
    "gen_paraphrase_sentence",
    "gen_similarity_scene",
    "gen_acceptability_agreement",
    "gen_acceptability_swap",
    "gen_extraction_diary",
    "gen_sense_pair",
    "gen_cause_choice",
    "gen_topic_review",
)
#: Low-resource tasks to transfer to; each has kin among the sources.
DEMO_TARGETS: tuple[str, ...] = (
    "gen_sentiment_hotel",
    "gen_sentiment_product",
    "gen_entailment_question",
    "gen_entailment_report",
    "gen_paraphrase_question",
    "gen_acceptability_order",
    "gen_sense_gloss",
    "gen_effect_choice",
)
#: Target -> the source that shares most of its words without being kin.
DECOYS: Mapping[str, str] = {
    "gen_sentiment_hotel": "gen_topic_review",
    "gen_sentiment_product": "gen_topic_review",
    "gen_entailment_question": "gen_similarity_scene",
    "gen_entailment_report": "gen_paraphrase_sentence",
    "gen_sense_gloss": "gen_acceptability_swap",
    "gen_effect_choice": "gen_acceptability_swap",
}
