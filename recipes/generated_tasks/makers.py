"""What makes the rows of each task."""

from __future__ import annotations

from collections.abc import Mapping

from generated_tasks import (
    agreement,
    causes,
    entailment,
    extraction,
    paraphrase,
    reports,
    senses,
    sentiment,
    similarity,
    word_order,
)
from generated_tasks.draw import FreeRowMaker, RowMaker
from generated_tasks.sentiment_words import FILM, HOTEL, PRODUCT

MAKERS: Mapping[str, RowMaker | FreeRowMaker] = {
    "gen_sentiment_film": sentiment.review(FILM),
    "gen_sentiment_hotel": sentiment.review(HOTEL),
    "gen_sentiment_product": sentiment.review(PRODUCT),
    "gen_entailment_scene": entailment.entailment_scene,
    "gen_entailment_report": reports.entailment_report,
    "gen_entailment_question": entailment.entailment_question,
    "gen_paraphrase_sentence": paraphrase.paraphrase_sentence,
    "gen_paraphrase_question": paraphrase.paraphrase_question,
    "gen_similarity_scene": similarity.similarity_scene,
    "gen_acceptability_agreement": agreement.acceptability_agreement,
    "gen_acceptability_order": word_order.acceptability_order,
    "gen_acceptability_swap": word_order.acceptability_swap,
    "gen_extraction_diary": extraction.extraction_diary,
    "gen_sense_pair": senses.sense_pair,
    "gen_sense_gloss": senses.sense_gloss,
    "gen_cause_choice": causes.cause_choice,
    "gen_effect_choice": causes.effect_choice,
    "gen_topic_review": sentiment.reviewed_thing,
}
