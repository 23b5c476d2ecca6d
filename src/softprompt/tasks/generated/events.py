"""Events of reports and diaries: what people do, to whom, with what, and the words that mean the same or the opposite."""

from __future__ import annotations

from typing import NamedTuple

from softprompt.tasks.generated.english import Verb, verb
from softprompt.tasks.generated.lists import phrases

#: Things people get done: verb phrases with their own objects.
DEEDS: tuple[Verb, ...] = tuple(
    verb(phrase)
    for phrase in phrases(
        """
    close the window, pay the bill, call the police, sell the house, wash the dishes, paint the fence, lock the door,
    feed the cat, water the plants, finish the report, cancel the meeting, repair the roof, sign the contract, miss the train,
    catch the last bus, win the race, break the record, lose the keys, find the wallet, write the letter, bake the bread,
    clean the windows, mow the lawn, post the parcel, book the flight, hide the money, burn the documents, pack the suitcase,
    return the library books, empty the fridge, switch off the oven, take the medicine, pass the exam, answer the question,
    open the parcel, cross the border, climb the tower, solve the puzzle, fix the printer, walk the dog, set the table,
    light the candles, hang up the curtains, sweep the floor, fill in the form, change the tyre, charge the phone,
    print the tickets, deliver the flowers, peel the potatoes, milk the cow, build the shed, cut the hedge, tidy the attic,
    buy the sofa, sew the costume, read the instructions, order the pizza, visit the museum, photograph the bride,
    renew the passport, plant the tree, rent the boat, mend the bicycle, save the file, hand in the essay, quit the job,
    translate the speech, park the van, apologise to the neighbours, invite the mayor, warn the tourists, thank the nurse,
    ring the bell, draw the map, dig the well, fly to Canada, move to the coast, learn the poem, join the choir,
    publish the article, register the car, shut down the computer, unload the lorry, wrap the presents, iron the shirts
    """
    )
)


class PersonVerb(NamedTuple):
    """A verb between two people, another with the same meaning, and one of which at most one can be meant."""

    verb: Verb
    same: Verb
    other: Verb


PERSON_VERBS: tuple[PersonVerb, ...] = tuple(
    PersonVerb(*(verb(v.strip()) for v in entry.split("/")))
    for entry in phrases(
        """
    praise/commend/criticise, help/assist/hinder, rescue/save/abandon, phone/call/avoid, warn/alert/mislead,
    hire/employ/dismiss, scold/reprimand/reward, defeat/beat/join, comfort/console/mock, chase/pursue/ignore,
    trick/fool/trust, strike/hit/hug, admire/look up to/despise, visit/call on/forget, encourage/cheer on/discourage,
    insult/offend/flatter, guide/lead/follow, question/interrogate/answer, welcome/greet/reject, annoy/irritate/amuse,
    sack/fire/promote, support/back/betray, teach/instruct/copy, free/release/arrest, frighten/scare/calm,
    harm/injure/heal, accompany/escort/leave, deceive/cheat/believe, ridicule/make fun of/respect, detest/hate/love,
    overtake/pass/push, spot/notice/overlook, grab/seize/release, convince/persuade/confuse, protect/defend/attack,
    punish/penalise/forgive, contact/get in touch with/avoid, summon/send for/dismiss, interrupt/break in on/listen to,
    cure/heal/poison
    """
    )
)


class Transfer(NamedTuple):
    """Giving seen from both ends: ``giver`` verb with "to", ``taker`` verb with "from"."""

    giver: Verb
    taker: Verb
    double_object: bool


TRANSFERS: tuple[Transfer, ...] = tuple(
    Transfer(verb(give), verb(take), double == "double")
    for give, take, double in (
        ("give", "receive", "double"),
        ("sell", "buy", "double"),
        ("lend", "borrow", "double"),
        ("hand", "take", "double"),
        ("send", "get", "double"),
        ("rent out", "rent", "single"),
        ("bequeath", "inherit", "single"),
        ("donate", "obtain", "single"),
        ("pass", "get", "double"),
        ("return", "get back", "single"),
        ("transfer", "take over", "single"),
        ("mail", "receive", "double"),
        ("loan", "borrow", "double"),
        ("supply", "acquire", "single"),
        ("ship", "receive", "single"),
    )
)
GOODS: tuple[str, ...] = phrases(
    """
    car, bicycle, painting, guitar, lawnmower, tent, camera, sewing machine, boat, caravan, piano, watch, necklace, laptop,
    motorcycle, coat, cookbook, telescope, wardrobe, drill, map, ladder, kettle, umbrella, carpet, puppy, horse, medal,
    dictionary, trophy, lamp, suitcase, clock, violin, radio, chessboard, typewriter, mirror, printer, canoe
    """
)
#: (clause with X, the same said of Y, from the other end). Swapping X and Y changes the meaning.
CONVERSES: tuple[tuple[str, str], ...] = (
    ("{x} beat {y} at chess", "{y} lost to {x} at chess"),
    ("{x} taught {y} to swim", "{y} learned to swim from {x}"),
    ("{x} employs {y}", "{y} works for {x}"),
    ("{x} is the mother of {y}", "{y} is the child of {x}"),
    ("{x} is taller than {y}", "{y} is shorter than {x}"),
    ("{x} is older than {y}", "{y} is younger than {x}"),
    ("{x} arrived before {y}", "{y} came later than {x}"),
    ("{x} earns more than {y}", "{y} makes less money than {x}"),
    ("{x} is faster than {y}", "{y} is slower than {x}"),
    ("{x} sat in front of {y}", "{y} had a seat behind {x}"),
    ("{x} lives above {y}", "{y} has the flat below {x}"),
    ("{x} owes money to {y}", "{y} is waiting for money from {x}"),
    ("{x} is a pupil of {y}", "{y} is the teacher of {x}"),
    ("{x} is the patient of {y}", "{y} is the doctor of {x}"),
    ("{x} finished the race ahead of {y}", "{y} reached the finish line after {x}"),
    ("{x} spoke and {y} listened", "{y} listened to what {x} said"),
    ("{x} stayed longer than {y}", "{y} left earlier than {x}"),
    ("{x} is stronger than {y}", "{y} is weaker than {x}"),
    ("{x} paid a fine to {y}", "{y} collected a fine from {x}"),
    ("{x} was the guest of {y}", "{y} was the host of {x}"),
    ("{x} depends on {y}", "{y} is needed by {x}"),
    ("{x} frightens {y}", "{y} is afraid of {x}"),
    ("{x} outlived {y}", "{y} died before {x}"),
    ("{x} inspired {y}", "{y} found a model in {x}"),
)
#: Relations that hold both ways round.
SYMMETRIC: tuple[str, ...] = (
    "{x} is married to {y}",
    "{x} shook hands with {y}",
    "{x} shares a flat with {y}",
    "{x} played chess with {y}",
    "{x} is a cousin of {y}",
    "{x} lives next door to {y}",
    "{x} bumped into {y}",
    "{x} is as tall as {y}",
    "{x} works together with {y}",
    "{x} had dinner with {y}",
    "{x} was born on the same day as {y}",
    "{x} danced with {y}",
    "{x} went to school with {y}",
    "{x} is not related to {y}",
)
#: Verbs before "to do": whether doing follows from saying it, and from denying it ("yes", "no", "open").
IMPLICATIVES: tuple[tuple[Verb, str, str], ...] = tuple(
    (verb(v), plain, denied)
    for v, plain, denied in (
        ("manage", "yes", "no"),
        ("remember", "yes", "no"),
        ("bother", "yes", "no"),
        ("dare", "yes", "no"),
        ("happen", "yes", "no"),
        ("fail", "no", "yes"),
        ("forget", "no", "yes"),
        ("neglect", "no", "yes"),
        ("omit", "no", "yes"),
        ("refuse", "no", "open"),
        ("decline", "no", "open"),
        ("hope", "open", "open"),
        ("plan", "open", "open"),
        ("want", "open", "open"),
        ("promise", "open", "open"),
        ("intend", "open", "open"),
        ("agree", "open", "open"),
        ("wish", "open", "open"),
        ("offer", "open", "open"),
        ("threaten", "open", "open"),
        ("prepare", "open", "open"),
    )
)
#: Verbs before "that": whether what follows is a fact.
ATTITUDES: tuple[tuple[Verb, bool], ...] = tuple(
    (verb(v), fact)
    for v, fact in (
        ("know", True),
        ("regret", True),
        ("discover", True),
        ("notice", True),
        ("realise", True),
        ("find out", True),
        ("reveal", True),
        ("learn", True),
        ("think", False),
        ("believe", False),
        ("claim", False),
        ("suspect", False),
        ("dream", False),
        ("imagine", False),
        ("guess", False),
        ("assume", False),
        ("fear", False),
        ("say", False),
    )
)
