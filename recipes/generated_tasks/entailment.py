"""Entailment over scenes (three labels, and as yes/no questions) and over reports of events (two labels)."""

from __future__ import annotations

from collections.abc import Mapping

from generated_tasks.data import data_of, frames_of
from generated_tasks.draw import Draw, Frames
from generated_tasks.english import article, sentence
from generated_tasks.scenes import APART, EQUAL, NARROWER, Scene, scene

_DATA = data_of("entailment")

SCENE_LABELS = ("entailment", "neutral", "contradiction")
QUESTION_LABELS = ("False", "True")

# {s}: the subject with its article; {n}: without; {p}: the doing; {w}: where (may be empty).
_PREMISES = frames_of(_DATA["_PREMISES"])
_CLAIMS = frames_of(_DATA["_CLAIMS"])
_DENIALS = frames_of(_DATA["_DENIALS"])
_TRAITS = Frames(train=("the {n} is {adj}", "the {n} looks {adj}"), held_out=("the {n} seems to be {adj}",))
_NO_TRAITS = Frames(
    train=("the {n} is not {adj}", "the {n} does not look {adj}"), held_out=("the {n} does not seem to be {adj}",)
)
_NONE = frames_of(_DATA["_NONE"])
_QUESTIONS = frames_of(_DATA["_QUESTIONS"])
_PASSAGES = frames_of(_DATA["_PASSAGES"])


def _fill(frame: str, made: Scene, premise: bool) -> str:
    name = made.subject_phrase(premise)
    values = {
        "s": article(name),
        "an": article(name),
        "n": name,
        "p": made.predicate(premise),
        "w": made.where(premise),
    }
    text = frame.format(**values)
    return text[:-1].rstrip() + "?" if text.endswith("?") else sentence(text)


def _traited(draw: Draw, made: Scene, denied: bool) -> str:
    """A claim about the subject's adjective alone; the hypothesis side, or the premise's where that has none."""
    adjective = made.subject_adjective.hypothesis or made.subject_adjective.premise
    frame = draw.frame(_NO_TRAITS if denied else _TRAITS)
    return sentence(frame.format(n=made.subject.hypothesis, adj=adjective))


def entailment_scene(draw: Draw, label: str) -> Mapping[str, str]:
    """Fields ``hypothesis`` and ``premise``; an eighth of the premises say that nobody does something."""
    if draw.chance(0.125):
        return _negative_premise(draw, label)
    denied = draw.chance(0.4)
    wanted = "open" if label == "neutral" else ("excluded" if (label == "contradiction") != denied else "entailed")
    # A denial about a narrower subject, or one who is described otherwise, would be about somebody else.
    made = scene(draw, wanted, fixed=("subject",) if denied and wanted == "open" else ())
    trait = made.subject_adjective
    decisive = trait.relation in (APART, NARROWER)
    told = trait.relation == EQUAL and bool(trait.premise)
    premise = _fill(draw.frame(_PREMISES), made, premise=True)
    if (decisive and (denied or draw.chance(0.5))) or (told and wanted == "entailed" and draw.chance(0.4)):
        return {"premise": premise, "hypothesis": _traited(draw, made, denied)}
    return {"premise": premise, "hypothesis": _fill(draw.frame(_DENIALS if denied else _CLAIMS), made, premise=False)}


def _negative_premise(draw: Draw, label: str) -> Mapping[str, str]:
    # "No S" turns the direction round: what nobody does at large, nobody does in particular. So the narrow side of the
    # scene is the hypothesis here, and a positive hypothesis of it contradicts.
    made = scene(draw, "open" if label == "neutral" else "entailed")
    premise = _fill(draw.frame(_NONE), made, premise=False)
    positive = label == "contradiction" or (label == "neutral" and draw.chance(0.5))
    frames = _PREMISES if positive else _NONE
    return {"premise": premise, "hypothesis": _fill(draw.frame(frames), made, premise=True)}


def entailment_question(draw: Draw, label: str) -> Mapping[str, str]:
    """Fields ``passage`` (a scene, at times beside another that is beside the point) and ``question``."""
    made = scene(draw, "entailed" if label == "True" else "excluded", fixed=("subject", "adjective"))
    told = [_fill(draw.frame(_PASSAGES), made, premise=True)]
    if draw.chance(0.3):
        other = scene(draw, "entailed")
        while other.subject.premise == made.subject.premise:
            other = scene(draw, "entailed")
        told.append(_fill(draw.frame(_PASSAGES), other, premise=True))
    question = _fill(draw.frame(_QUESTIONS), made, premise=False)
    return {"passage": " ".join(draw.shuffled(told)), "question": question[0].lower() + question[1:]}
