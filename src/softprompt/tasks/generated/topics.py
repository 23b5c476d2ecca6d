"""Topic of a sentence: one of eight, or whether a sentence deals with a given one."""

from __future__ import annotations

from collections.abc import Mapping

from softprompt.tasks.generated.draw import Draw, Frames
from softprompt.tasks.generated.english import sentence
from softprompt.tasks.generated.lists import phrases
from softprompt.tasks.generated.nouns import FEMALE_NAMES, MALE_NAMES, WEEKDAYS

TOPICS: dict[str, tuple[str, ...]] = {
    "sport": phrases(
        """the marathon, a penalty kick, the boxing match, the relay race, the goalkeeper, a tennis serve, the final whistle,
        the swimming medal, the ski jump, a new coach, the half-time score, the golf swing, the basketball league, a hurdle
        race, the cycling tour, the javelin throw, the referee, the rowing crew, the volleyball net, the wrestling champion,
        the pole vault, a hat trick, the judo belt, the high jump"""
    ),
    "food": phrases(
        """the onion soup, a roast chicken, the apple pie, fresh bread, a cheese omelette, the pasta sauce, fried rice, a bowl
        of salad, the chocolate cake, grilled salmon, mashed potatoes, the bean stew, pancakes with syrup, a ham sandwich,
        scrambled eggs, the lamb curry, garlic butter, a pot of porridge, roasted peppers, the pumpkin recipe, noodles,
        strawberry jam, smoked sausage, the lemon tart"""
    ),
    "travel": phrases(
        """the boarding pass, a hotel room, the ferry to the island, a lost suitcase, the night train, a visa, the guided tour,
        the departure gate, a beach holiday, the airport bus, a cruise ship, the hiking map, a camping trip, the passport
        control, a delayed flight, the youth hostel, the city walk, a souvenir shop, the travel agency, jet lag, the
        border crossing, a rented car, the window seat, the package tour"""
    ),
    "health": phrases(
        """a sore throat, the flu vaccine, a broken rib, the blood test, high fever, the dentist, a heart attack, back pain, the
        X-ray, an eye operation, the cough syrup, a skin rash, the family doctor, a sprained ankle, the waiting list for
        surgery, antibiotics, the intensive care unit, an allergy, low blood pressure, the bandage, asthma, a toothache,
        the physiotherapist, an infection"""
    ),
    "music": phrases(
        """the violin solo, a new album, the church choir, a jazz band, the opera, the drum kit, a piano lesson, the chorus of
        the song, the string quartet, a guitar riff, the conductor, the lullaby, a brass band, the music festival, sheet music,
        the folk singer, a trumpet call, the symphony, the bass line, a waltz, the tenor, the record player, an encore,
        the cello concerto"""
    ),
    "money": phrases(
        """the interest rate, a bank loan, the tax return, the stock market, a pay rise, the mortgage, a credit card, the yearly
        budget, inflation, a savings account, the exchange rate, the pension fund, a price cut, the shareholders, bankruptcy,
        the insurance premium, a bond, the national debt, the invoice, a discount, the minimum wage, foreign currency,
        the quarterly profit, an unpaid bill"""
    ),
    "weather": phrases(
        """the thunderstorm, light rain, a heat wave, the morning fog, heavy snow, a cold front, strong winds, the forecast,
        sunshine, a hailstorm, the first frost, low clouds, a tornado, the rainbow, icy roads, the hurricane, a drizzle, the
        temperature, the humidity, a dry spell, the blizzard, lightning, a sea breeze, the flood warning"""
    ),
    "school": phrases(
        """the maths test, a history essay, the headmaster, homework, the spelling contest, a school report, the blackboard, the
        chemistry lesson, a new pupil, the final exam, the classroom, a geography quiz, the lesson plan, the school bell,
        a detention, the textbook, the kindergarten, a scholarship, the grammar exercise, the parents' evening, the art class,
        the school bus, a dictation, the graduation"""
    ),
}
LABELS = tuple(sorted(TOPICS))
QUESTION_LABELS = ("False", "True")

_SAID = Frames(
    train=(
        "{n} talked about {x} all evening",
        "on {day} {n} read a long article on {x}",
        "what do you think of {x}?",
        "{n} could not stop thinking about {x}",
        "the radio said something about {x}",
        "{x}: that was all {n} wanted to discuss",
        "a letter from {n} mentions {x}",
    ),
    held_out=(
        "when {n} called on {day}, the subject was {x}",
        "have you heard the story of {n} and {x}?",
        "a stranger asked {n} about {x}",
        "there is a column on {x} in the paper of {day}",
    ),
)
_ABOUT = Frames(
    train=("does the text deal with {t}?", "is the text about {t}?"),
    held_out=("would you file the text under {t}?", "is {t} what the text is concerned with?"),
)


def _say(draw: Draw, topic: str) -> str:
    first = draw.word(TOPICS[topic])
    # Two things of a topic at times, so that no single phrase decides.
    what = f"{first} and {draw.word(TOPICS[topic], but=(first,))}" if draw.chance(0.4) else first
    frame = draw.frame(_SAID)
    return sentence(frame.format(n=draw.pick(FEMALE_NAMES + MALE_NAMES), x=what, day=draw.pick(WEEKDAYS)))


def topic_sentence(draw: Draw, label: str) -> Mapping[str, str]:
    """Field ``sentence``; the label is its topic."""
    return {"sentence": _say(draw, label)}


def topic_question(draw: Draw, label: str) -> Mapping[str, str]:
    """Fields ``question`` and ``text``: whether the text deals with the topic asked for."""
    topics = draw.shuffled(LABELS)
    asked = topics[0] if label == "True" else topics[1]
    return {"question": draw.frame(_ABOUT).format(t=asked), "text": _say(draw, topics[0])}
