"""Text forms against hand-written examples, with the edges of each."""

from __future__ import annotations

from typing import Any

import pytest

from softprompt.errors import DataError
from softprompt.tasks import preprocessors as form
from softprompt.tasks.catalog import declared, make
from softprompt.tasks.rows import BadRows, Formed, Row
from softprompt.tasks.sources import MemorySource


def formed(name: str, values: dict[str, Any], *, split: str = "validation", prefix: bool = True) -> list[Formed]:
    """What a catalog task makes of one raw row."""
    one = declared(name)
    renamed = {one.rename.get(k, k): v for k, v in values.items()}
    task = make(one, MemorySource(splits={split: [renamed]}), prefix=prefix)
    [row] = list(task.source.rows(split, BadRows()))
    return list(task.form(row))


def pair(name: str, values: dict[str, Any], **more: Any) -> tuple[str, str]:
    [one] = formed(name, values, **more)
    return one.inputs.strip(), one.targets.strip()


CLASSIFICATION = [
    (
        "cola",
        {"sentence": "They drank the pub.", "label": 0, "idx": 4},
        "cola sentence: They drank the pub.",
        "unacceptable",
    ),
    ("sst2", {"sentence": "it 's charming", "label": 1, "idx": 0}, "sst2 sentence: it 's charming", "positive"),
    (
        "mrpc",
        {"sentence1": "A b.", "sentence2": "B a.", "label": 1, "idx": 0},
        "mrpc sentence1: A b. sentence2: B a.",
        "equivalent",
    ),
    (
        "qqp",
        {"question1": "Why?", "question2": "Why not?", "label": 0, "idx": 10},
        "qqp question1: Why? question2: Why not?",
        "not_duplicate",
    ),
    (
        "mnli",
        {"premise": "P.", "hypothesis": "H.", "label": 2, "idx": 0},
        "mnli hypothesis: H. premise: P.",
        "contradiction",
    ),
    (
        "mnli_mismatched",
        {"premise": "P.", "hypothesis": "H.", "label": 1, "idx": 0},
        "mnli hypothesis: H. premise: P.",
        "neutral",
    ),
    (
        "qnli",
        {"question": "Q?", "sentence": "S.", "label": 0, "idx": 0},
        "qnli question: Q? sentence: S.",
        "entailment",
    ),
    (
        "rte",
        {"premise": "P.", "hypothesis": "H.", "label": 1, "idx": 0},
        "rte hypothesis: H. premise: P.",
        "not_entailment",
    ),
    (
        "axb",
        {"sentence1": "P.", "sentence2": "H.", "label": 0, "idx": 0},
        "rte hypothesis: H. premise: P.",
        "entailment",
    ),
    (
        "boolq",
        {"question": "is it", "passage": "It is.", "label": 1, "idx": 0},
        "boolq passage: It is. question: is it",
        "True",
    ),
    ("cb", {"premise": "P", "hypothesis": "H", "label": 1, "idx": 0}, "cb hypothesis: H premise: P", "contradiction"),
    (
        "copa",
        {"premise": "P.", "choice1": "A.", "choice2": "B.", "question": "cause", "label": 1, "idx": 0},
        "copa choice1: A. choice2: B. premise: P. question: cause",
        "choice2",
    ),
    (
        "wic",
        {"word": "w", "sentence1": "A w.", "sentence2": "w b.", "start1": 2, "end1": 3, "label": 0, "idx": 0},
        "wic sentence1: A w. sentence2: w b. word: w",
        "False",
    ),
    ("snli", {"premise": "P  p.", "hypothesis": "H.", "label": 0}, "snli hypothesis: H. premise: P p.", "entailment"),
    (
        "doc_nli",
        {"premise": "P.", "hypothesis": "H.", "label": "entailment"},
        "doc_nli hypothesis: H. premise: P.",
        "entailment",
    ),
    (
        "anli",
        {"premise": "P.", "hypothesis": "H.", "label": 1, "uid": "u", "round": "dev_r2"},
        "anli_r2 hypothesis: H. context: P.",
        "neutral",
    ),
    ("anli", {"premise": "P.", "hypothesis": "H.", "label": 1}, "anli hypothesis: H. context: P.", "neutral"),
    ("cr", {"text": "nice .", "label": 1, "label_text": "positive"}, "cr text: nice .", "positive"),
    ("sentiment140", {"text": "meh", "sentiment": 4}, "sentiment140 text: meh", "positive"),
    ("sentiment140", {"text": "meh", "sentiment": "0"}, "sentiment140 text: meh", "negative"),
    ("yelp_polarity", {"text": "bad", "label": 0}, "yelp_polarity text: bad", "negative"),
    ("go_emotions", {"text": "t", "labels": [27]}, "go_emotions text: t", "neutral"),
    ("go_emotions", {"text": "t", "labels": [17, 2]}, "go_emotions text: t", "anger, joy"),
]


@pytest.mark.parametrize(("name", "values", "inputs", "target"), CLASSIFICATION)
def test_classification_forms(name: str, values: dict[str, Any], inputs: str, target: str) -> None:
    assert pair(name, values) == (inputs, target)


@pytest.mark.parametrize(("name", "values", "inputs", "target"), CLASSIFICATION)
def test_the_prefix_is_a_switch(name: str, values: dict[str, Any], inputs: str, target: str) -> None:
    assert pair(name, values, prefix=False) == (inputs.split(" ", 1)[1], target)


@pytest.mark.parametrize("missing", [-1, None])
def test_a_missing_label_is_unk(missing: int | None) -> None:
    [one] = formed("rte", {"premise": "P", "hypothesis": "H", "label": missing, "idx": 3})
    assert (one.targets, one.extra["label"], one.extra["idx"]) == ("<unk>", None, 3)


def test_a_test_split_needs_no_label_column() -> None:
    assert pair("rte", {"premise": "P", "hypothesis": "H", "idx": 3}, split="test")[1] == "<unk>"
    with pytest.raises(DataError, match="no column 'label'"):
        formed("rte", {"premise": "P", "hypothesis": "H", "idx": 3})


def test_empty_and_foreign_texts_stay() -> None:
    assert pair("qqp", {"question1": "", "question2": "¿Qué? 日本", "label": 1}) == (
        "qqp question1:  question2: ¿Qué? 日本",
        "duplicate",
    )


def test_multirc_drops_tags_and_groups_by_question() -> None:
    idx = {"paragraph": 5, "question": 11, "answer": 2}
    values = {
        "paragraph": "<b>Sent 1: </b>A.<br><b>Sent 2: </b>B.",
        "question": "Q?",
        "answer": "<b>x",
        "label": 1,
        "idx": idx,
    }
    [one] = formed("multirc", values)
    assert one.inputs == "multirc question: Q? answer: x paragraph: Sent 1: A. Sent 2: B."
    assert one.targets == "True"
    assert one.extra["group"] == [5, 11]
    with pytest.raises(DataError, match=r"should hold {paragraph, question, answer}"):
        formed("multirc", {**values, "idx": 3})


@pytest.mark.parametrize(
    ("score", "target"),
    [
        (5.0, "5.0"),
        (0, "0.0"),
        (4.75, "4.8"),
        (3.8, "3.8"),
        (2.5, "2.4"),
        (0.1, "0.0"),
        (0.3, "0.4"),
        (3.3, "3.2"),
        ("2.2", "2.2"),
    ],
)
def test_stsb_rounds_to_fifths_with_halves_to_even(score: object, target: str) -> None:
    [one] = formed("stsb", {"sentence1": "A", "sentence2": "B", "label": score, "idx": 1})
    assert (one.inputs, one.targets) == ("stsb sentence1: A sentence2: B", target)
    assert one.extra["value"] == float(target)


def test_stsb_missing_and_impossible_scores() -> None:
    assert pair("stsb", {"sentence1": "A", "sentence2": "B", "label": -1, "idx": 1})[1] == "<unk>"
    for wrong in (6, "high", -3):
        with pytest.raises(DataError, match="a number from 0 to 5"):
            formed("stsb", {"sentence1": "A", "sentence2": "B", "label": wrong})


def wsc(text: str, pronoun: str, index: int, label: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "text": text,
        "span1_text": "Tom",
        "span1_index": 2,
        "span2_text": pronoun,
        "span2_index": index,
        "label": label,
        "idx": 0,
        **more,
    }


def test_wsc_marks_the_pronoun_and_asks_for_the_referent() -> None:
    values = wsc("Mitchell asked Tom if he could lend some money.", "he", 4)
    assert pair("wsc", values) == ("wsc: Mitchell asked Tom if *he* could lend some money.", "Tom")
    assert pair("wsc", values, prefix=False)[0] == "Mitchell asked Tom if *he* could lend some money."


def test_wsc_trains_on_right_referents_alone() -> None:
    right, wrong = wsc("a Tom if he x", "he", 3), wsc("a Tom if he x", "he", 3, label=0)
    assert len(formed("wsc", right, split="train")) == 1
    assert formed("wsc", wrong, split="train") == []
    assert formed("wsc", wrong)[0].extra["label"] == 0


def test_wsc_texts_that_t5_repairs() -> None:
    pony = (
        "The boy continued to whip the pony , and eventually the pony threw him over. John laughed out quite loud. "
        '"Good for him," he said. '
    )
    assert pair("wsc", wsc(pony, "him", 20))[0].endswith('John laughed out quite loud. "Good for *him* ," he said.')
    pebble = (
        "When they had eventually calmed down a bit , and had gotten home, Mr. Farley put the magic pebble in an iron "
        "safe . Some day they might want to use it , but really for now, what more could they wish for?"
    )
    assert "might want to use *it* , but really" in pair("wsc", wsc(pebble, "it", 28))[0]


def test_wsc_other_texts() -> None:
    assert (
        pair("wsc", wsc("Tom said: 'take it,' and it fell", "it", 3))[0] == "wsc: Tom said: 'take *it* ,' and it fell"
    )
    assert pair("wsc", wsc("it and it and it", "it", 3))[0] == "wsc: it and *it* and it"
    assert pair("wsc", wsc("He ran", "he", 0))[0] == "wsc: *he* ran"
    assert pair("wsc", wsc("so they themselves went", "they themselves", 1))[0] == "wsc: so *they themselves* went"
    with pytest.raises(DataError, match="does not stand in the text"):
        formed("wsc", wsc("no pronoun here", "it", 1))
    with pytest.raises(DataError, match="has 2 words"):
        formed("wsc", wsc("it fell", "it", 9))


RECORD = {
    "passage": "First.\n@highlight\nSecond\n@highlight\nThird",
    "query": "A @placeholder is a bird.",
    "entities": ["penguin", "potato", "pigeon"],
    "answers": ["penguin", "pigeon"],
    "idx": {"passage": 1, "query": 2},
}


def test_record_makes_one_training_pair_per_answer() -> None:
    pairs = formed("record", RECORD, split="train")
    assert [p.targets for p in pairs] == ["penguin", "pigeon"]
    assert (
        pairs[0].inputs
        == pairs[1].inputs
        == ("record query: A @placeholder is a bird. entities: penguin, potato, pigeon passage: First. Second. Third")
    )
    [one] = formed("record", RECORD)
    assert one.extra["answers"] == ["penguin", "pigeon"]
    assert one.extra["group"] == [1, 2]


def test_record_without_answers() -> None:
    assert pair("record", {**RECORD, "answers": []})[1] == "<unk>"
    assert pair("record", {k: v for k, v in RECORD.items() if k != "answers"}, split="test")[1] == "<unk>"
    with pytest.raises(DataError, match="a list of texts"):
        formed("record", {**RECORD, "entities": "penguin"})


def test_squad_spaces_punctuation() -> None:
    values = {
        "id": "x",
        "question": "Who's  Élan?",
        "context": "It was A.B. (1999)\n- 日本。",
        "answers": {"text": ["A.B.", "AB"]},
    }
    [one] = formed("squad", values)
    assert one.inputs == "question: Who ' s Élan ? context: It was A . B . ( 1999 ) - 日本。"
    assert one.targets == "A . B ."
    assert one.extra["answers"] == ["A . B .", "AB"]


def test_mrqa_names_the_set_and_drop_reads_spans() -> None:
    values = {"qid": "x", "question": "Q?", "context": "C.", "answers": ["a", "b"], "subset": "SQuAD"}
    assert pair("mrqa_squad", values) == ("squad question: Q ? context: C .", "a")
    drop = {
        "query_id": "x",
        "question": "How many?",
        "passage": "Ten.",
        "answers_spans": {"spans": ["10"], "types": ["number"]},
    }
    assert pair("drop", drop) == ("drop question: How many ? context: Ten .", "10")
    with pytest.raises(DataError, match="holds no answer"):
        formed("mrqa_squad", {**values, "answers": []})


@pytest.mark.parametrize(
    ("name", "values", "inputs", "target"),
    [
        (
            "winogrande",
            {"sentence": "S _ t.", "option1": "A", "option2": "B", "answer": "2"},
            "winogrande choice1: A choice2: B sentence: S _ t.",
            "choice2",
        ),
        (
            "hellaswag",
            {"activity_label": "L", "ctx": "C", "endings": ["a", "b", "c", "d"], "label": "3"},
            "hellaswag choice1: a choice2: b choice3: c choice4: d activity_label: L ctx: C",
            "choice4",
        ),
        (
            "cosmos_qa",
            {
                "id": "1",
                "context": "C",
                "question": "Q",
                "answer0": "a",
                "answer1": "b",
                "answer2": "c",
                "answer3": "d",
                "label": 0,
            },
            "cosmos_qa choice1: a choice2: b choice3: c choice4: d context: C question: Q",
            "choice1",
        ),
        ("piqa", {"goal": "G", "sol1": "a", "sol2": "b", "label": 1}, "piqa choice1: a choice2: b goal: G", "choice2"),
        (
            "social_i_qa",
            {"context": "C", "question": "Q", "answerA": "a", "answerB": "b", "answerC": "c", "label": "3"},
            "social_i_qa choice1: a choice2: b choice3: c context: C question: Q",
            "choice3",
        ),
        (
            "alpha_nli",
            {"observation_1": "O", "observation_2": "P", "hypothesis_1": "a", "hypothesis_2": "b", "label": 1},
            "alpha_nli choice1: a choice2: b observation_1: O observation_2: P",
            "choice1",
        ),
        (
            "race_middle",
            {
                "example_id": "middle/1.txt",
                "article": "A",
                "question": "Q",
                "options": ["a", "b", "c", "d"],
                "answer": "C",
            },
            "race choice1: a choice2: b choice3: c choice4: d article: A question: Q",
            "choice3",
        ),
    ],
)
def test_multiple_choice(name: str, values: dict[str, Any], inputs: str, target: str) -> None:
    assert pair(name, values) == (inputs, target)


def test_multiple_choice_with_wrong_answers() -> None:
    values = {"sentence": "S", "option1": "A", "option2": "B"}
    assert pair("winogrande", {**values, "answer": ""})[1] == "<unk>"
    with pytest.raises(DataError, match=r"answer '3' in column 'answer' is not one of 1..2"):
        formed("winogrande", {**values, "answer": "3"})
    with pytest.raises(DataError, match="has 5 options; the task knows 4"):
        formed("hellaswag", {"activity_label": "", "ctx": "", "endings": list("abcde"), "label": "0"})


def test_race_is_split_by_level() -> None:
    rows = [{"example_id": "high/1.txt"}, {"example_id": "middle/2.txt"}]
    kept = {
        name: [r["example_id"] for r in rows if (declared(name).keep or (lambda _: True))(r)]
        for name in ("race", "race_middle", "race_high")
    }
    assert kept == {
        "race": ["high/1.txt", "middle/2.txt"],
        "race_middle": ["middle/2.txt"],
        "race_high": ["high/1.txt"],
    }


def test_generation_forms() -> None:
    assert pair("wmt_en_de", {"translation": {"en": "That is good.", "de": "Das ist gut."}}) == (
        "translate English to German: That is good.",
        "Das ist gut.",
    )
    assert pair("aeslc", {"email_body": "Hi,\nall", "subject_line": "S"}) == ("aeslc summarize: Hi,\nall", "S")
    assert pair("aeslc", {"email_body": "Hi", "subject_line": "S"}, prefix=False)[0] == "summarize: Hi"
    [one] = formed("gem_common_gen", {"concepts": ["dog", "run"], "target": "A dog runs.", "references": ["A.", "B."]})
    assert one.inputs == "gem_common_gen dog, run"
    assert one.extra["references"] == ["A.", "B."]
    assert pair("gem_dart", {"tripleset": [["a", "r", "b"], ["c", "s", "d"]], "target": "t", "references": []})[0] == (
        "gem_dart a : r : b | c : s : d"
    )
    acts = [{"act": 1, "slot": "time", "values": ["5 pm"]}]
    assert pair("gem_sgd", {"dialog_acts": acts, "target": "t", "references": []})[0] == "gem_sgd 1(time=5 pm)"
    with pytest.raises(DataError, match="a text under 'de'"):
        formed("wmt_en_de", {"translation": {"en": "x"}})


def test_prefix_lm_cuts_words_at_the_same_place_every_time() -> None:
    text = " ".join(f"w{i}" for i in range(1000))
    inputs, targets = pair("c4", {"text": text})
    assert pair("c4", {"text": text}) == (inputs, targets)
    assert f"{inputs} {targets}" == text  # the whole text: training draws its chunks from it
    assert formed("c4", {"text": "one"}) == []
    assert pair("c4", {"text": "one two"}) == ("one", "two")


def test_prefix_lm_cuts_are_uniform() -> None:
    cuts = [len(pair("c4", {"text": " ".join(f"{i}_{k}" for k in range(10))})[0].split()) for i in range(3000)]
    counts = [cuts.count(k) for k in range(1, 10)]
    assert sum(counts) == 3000
    # 3000/9 = 333 each; 5 standard deviations are 86.
    assert max(abs(c - 333) for c in counts) < 86


def test_pad_punctuation_knows_ascii_alone() -> None:
    assert form.pad_punctuation("a,b—c。d\u00a0e") == "a , b—c。d\u00a0e"
    assert form.pad_punctuation("$5") == " $ 5"


def test_go_emotions_labels_from_csv() -> None:
    row = Row(values={"text": "t", "labels": "[2, 17]".strip("[]")}, line=1, where="f")
    [one] = form.tag_words(row, prefix=None, column="text", labels=declared("go_emotions").labels or ())
    assert one.targets == "anger, joy"
