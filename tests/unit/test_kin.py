"""The word-overlap baseline for finding kin."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.kin import kin_found, tfidf_ranking, tfidf_similarity

from softprompt.tasks.generated import DECOYS, DEMO_SOURCES, DEMO_TARGETS


def test_similarity_is_a_cosine_and_finds_the_task_itself() -> None:
    names = ["gen_topic_review", "gen_effect_choice", "gen_sentiment_hotel"]
    similar = tfidf_similarity(names, names, rows=50)
    assert similar.shape == (3, 3)
    np.testing.assert_allclose(np.diag(similar), 1.0, atol=1e-9)
    np.testing.assert_allclose(similar, similar.T, atol=1e-9)
    assert (similar >= 0).all()


def test_words_alone_are_led_astray_by_decoys_but_beat_chance() -> None:
    rankings = {target: [name for name, _ in tfidf_ranking(target, DEMO_SOURCES)] for target in DEMO_TARGETS}
    found = kin_found(rankings)
    assert found["chance_first"] < found["kin_first"] < 100.0
    assert any(rankings[target][0] == decoy for target, decoy in DECOYS.items())


def test_kin_found_counts() -> None:
    rankings = {
        "gen_sentiment_hotel": ["gen_sentiment_film", "gen_cause_choice"],
        "gen_effect_choice": ["gen_sentiment_film", "gen_cause_choice"],
    }
    found = kin_found(rankings)
    assert found["kin_first"] == pytest.approx(50.0)
    assert found["reciprocal_rank"] == pytest.approx(75.0)
    assert found["chance_first"] == pytest.approx(50.0)
