"""Coreference in the manner of Winograd schemas: which of two a pronoun stands for, decided by what is said of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from softprompt.tasks.generated.draw import Draw, Frames
from softprompt.tasks.generated.english import sentence
from softprompt.tasks.generated.nouns import FEMALE_NAMES, MALE_NAMES, PEOPLE

CHOICE_LABELS = ("choice1", "choice2")
JUDGE_LABELS = ("False", "True")


class Schema(NamedTuple):
    """A sentence about {a} and {b} with a pronoun {p} and room for {x}.

    ``first`` are the endings that make the pronoun stand for {a}, ``second`` those for {b}. ``pairs`` are the things it
    may be about; none means two people.
    """

    text: str
    first: tuple[str, ...]
    second: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]


def _schemas(text: str) -> tuple[Schema, ...]:
    out = []
    for line in text.strip().splitlines():
        sentence_text, first, second, *pairs = (part.strip() for part in line.split("|"))
        named = [pair.split("/") for pair in (pairs[0].split(",") if pairs else [])]
        out.append(
            Schema(
                sentence_text,
                tuple(p.strip() for p in first.split(";")),
                tuple(p.strip() for p in second.split(";")),
                tuple((a.strip(), b.strip()) for a, b in named),
            )
        )
    return tuple(out)


SCHEMAS: tuple[Schema, ...] = _schemas(
    """
    {a} thanked {b} because {p} {x} | had been given a lift; had received such good advice; was deeply grateful | had helped with the move; had found the lost dog; had repaired the roof for free
    {a} envied {b} because {p} {x} | had never won anything; was poor and unlucky; had no talent at all | had won the lottery; was rich and famous; got all the prizes
    {a} beat {b} at chess because {p} {x} | had trained harder; played brilliantly; thought three moves further ahead | made a silly mistake; lost the queen early; was too tired to think
    {a} lent {b} some money because {p} {x} | was generous; had plenty of cash to spare; never refused to help a friend | was broke; had left the wallet at home; could not pay the rent
    {a} apologised to {b} because {p} {x} | had broken the vase; felt guilty; had forgotten the appointment | had been insulted; had waited for two hours in vain; was deeply hurt by the remark
    {a} carried {b} home because {p} {x} | was strong and wanted to help; could not bear to leave a friend behind | had broken a leg; had fainted; was too weak to walk
    {a} could not lift {b} because {p} {x} | was too weak; had a bad back; did not have enough strength | was too heavy; weighed a ton; had eaten too much and got fat
    {a} called an ambulance for {b} because {p} {x} | was worried and did not know first aid; was the first at the scene and had a phone | had a high fever; was bleeding badly; had lost consciousness
    {a} asked {b} for advice because {p} {x} | did not know what to do; was at a loss; felt unsure about the contract | had a lot of experience; was an expert; knew the law by heart
    {a} punished {b} because {p} {x} | was a strict master; never let a lie go by; believed in discipline | had told a lie; had stolen the money; had broken the rules
    {a} could not see the stage behind {b} because {p} {x} | was too short; had left the glasses at home; was only a metre and a half tall | was wearing a huge hat; was very tall; would not sit down
    {a} shouted at {b} because {p} {x} | had lost all patience; was furious; had a quick temper | would not listen; had spilled ink on the book; had dented the car
    {a} hired {b} because {p} {x} | needed help in the shop; was short of staff; had too much work to do alone | had excellent references; was looking for a job; was the best applicant
    {a} visited {b} in hospital because {p} {x} | wanted to cheer up a sick friend; felt it was right to bring flowers | had been in a car accident; had just had an operation; was recovering from an illness
    {a} paid {b} as soon as {p} {x} | got the bill; had received the goods; had the money | had finished the work; had delivered the furniture; sent the invoice
    {a} bought {b} a warm coat because {p} {x} | had just been paid and liked to make presents; felt pity for the poor | was freezing; had nothing to wear in winter; was shivering in a thin shirt
    {a} hid from {b} because {p} {x} | was afraid; did not want to be found; owed a lot of money | was in a rage; was looking for someone to beat up; had come to collect the debt
    {a} waited for {b} because {p} {x} | had promised not to leave alone; did not know the way alone | was late; was still in the shower; had missed the train
    {a} did not believe {b} because {p} {x} | was suspicious by nature; trusted nobody; knew the real story | had lied before; blushed while telling the story; was known for tall tales
    {a} voted for {b} because {p} {x} | wanted a change in the town hall; was tired of the old mayor | had the best plan for the town; promised lower taxes; gave the best speech
    {a} pulled {b} out of the lake because {p} {x} | was a trained lifeguard; was a good swimmer | was drowning; could not swim; had fallen through the ice
    {a} gave {b} a lift because {p} {x} | had a car and some time; was driving that way anyway | had missed the bus; was standing in the rain; had a flat tyre
    {a} arrested {b} because {p} {x} | was on duty that night; had orders to catch the thief | had robbed a bank; was a wanted thief; had set fire to a barn
    {a} fed {b} with a spoon because {p} {x} | was a caring nurse; worked as a nurse | could not move; was too ill to eat alone; had two broken arms
    {a} fired {b} because {p} {x} | had to save money in the company; ran the firm and could not pay all wages | came late every day; slept at work; stole from the till
    {a} admired {b} because {p} {x} | dreamed of becoming an artist as well; loved great art | painted so beautifully; sang like an angel; had climbed the highest mountain
    {a} sued {b} because {p} {x} | wanted the money back; felt cheated and sought justice | had sold a faulty car; had broken the contract; never returned the deposit
    {a} translated for {b} because {p} {x} | spoke both languages; had studied Spanish | did not understand a word; spoke no English; was new in the country
    {a} passed the ball to {b} because {p} {x} | was surrounded by defenders; could not shoot from there | stood alone in front of the goal; was in a better position; was calling for it
    {a} told {b} the news because {p} {x} | could not keep a secret; had just heard it on the radio | had not heard it yet; kept asking about it; was the last to know
    the {a} did not fit into the {b} because {p} was too {x} | big; large; wide; bulky | small; narrow; tiny; short | trophy/suitcase, piano/van, cake/box, guitar/locker, table/lift, coat/drawer, ball/basket, book/bag
    the {a} crashed through the {b} because {p} was so {x} | heavy; massive; solid | thin; weak; rotten; brittle | rock/roof, safe/floor, ball/window, hammer/ice, piano/stage, statue/bridge, barrel/deck
    the {a} could not pass under the {b} because {p} was too {x} | tall; high; bulky | low; close to the ground | truck/bridge, bus/arch, ship/cable, giraffe/branch, crane/wire, camel/gate
    we bought the {a} instead of the {b} because {p} was {x} | cheaper; better; stronger; on sale | too expensive; broken; out of stock; worse | sofa/armchair, laptop/tablet, lamp/candle, tent/caravan, kettle/teapot, drum/flute, chair/stool, boat/raft
    the {a} scratched the {b} because {p} was {x} | sharp; rough; jagged | soft; delicate; easy to damage | key/table, knife/plate, stone/mirror, nail/floor, ring/glass, branch/car, brush/lens
    the {a} stained the {b} because {p} {x} | leaked; was still wet; had no lid | was white and had not been covered; could not be washed in time; soaks up everything | pen/shirt, bottle/carpet, brush/curtain, can/tablecloth, jar/dress
    I put the {a} on the {b} and {p} {x} | slid off; rolled down; fell to the ground | collapsed under the weight; broke under the load; could not bear so much | vase/shelf, ball/table, melon/stool, statue/bookcase, barrel/chair, pumpkin/bench
    the {a} overtook the {b} because {p} was {x} | faster; in a hurry; much quicker | slower; running out of fuel; about to stop; crawling along | car/tractor, bus/bicycle, taxi/lorry, motorcycle/van, ferry/barge, horse/donkey
    the {a} hid the {b} from view until {p} was {x} | taken down; moved aside; removed | seen from the other side; spotted at last; found behind it | fence/shed, curtain/window, hedge/pond, wall/statue, tree/sign, poster/hole
    we cut the {a} with the {b} because {p} was {x} | too long; too big to swallow; too thick for the pan | sharp; the best blade in the house; the only tool we had | rope/knife, cake/saw, branch/axe, bread/dagger, cloth/razor, wire/pliers
    the {a} chased the {b} until {p} {x} | gave up the hunt; was tired of hunting; lost the scent | escaped up a tree; slipped into a hole; was caught and eaten | cat/mouse, dog/squirrel, fox/rabbit, wolf/hare, lion/monkey, eagle/lizard
    the {a} swallowed the {b} because {p} was {x} | hungry; starving; greedy | small and tasty; an easy prey; too slow to get away | snake/frog, pike/duckling, whale/squid, shark/crab, heron/fish, pelican/eel
    the {a} needs the {b} because {p} {x} | would not start without it; cannot run alone; stops without it | gives it power; keeps it going; feeds it with energy | car/battery, mill/river, train/engine, lamp/generator, clock/spring
    """
)
_AROUND = Frames(
    train=("{c}", "{c}", "as everybody could see, {c}", "it happened last year: {c}"),
    held_out=("to cut a long story short, {c}", "if I am not mistaken, {c}", "in the end {c}"),
)


def _told(draw: Draw) -> tuple[str, str, str]:
    """The sentence with its pronoun marked, what the pronoun stands for, and the other one."""
    schema = draw.word(SCHEMAS)
    if schema.pairs:
        a, b = draw.pick(schema.pairs)
        pronoun, names = "it", (f"the {a}", f"the {b}")
    else:
        pronoun = draw.pick(("he", "she"))
        if draw.chance(0.7):
            pool = FEMALE_NAMES if pronoun == "she" else MALE_NAMES
            one, two = draw.shuffled(pool)[:2]
        else:
            people = draw.shuffled([n.name for n in PEOPLE if n.name not in _GENDERED])
            one, two = f"the {people[0]}", f"the {people[1]}"
        a, b = one, two
        names = (one, two)
    first = draw.chance(0.5)
    ending = draw.pick(schema.first if first else schema.second)
    text = schema.text.format(a=a, b=b, p=f"*{pronoun}*", x=ending)
    told = sentence(draw.frame(_AROUND).format(c=text))
    return told, names[0 if first else 1], names[1 if first else 0]


_GENDERED = frozenset(("boy", "girl", "schoolboy", "schoolgirl", "postman", "toddler"))


def coreference_choice(draw: Draw, label: str) -> Mapping[str, str]:
    """Fields ``choice1``, ``choice2`` and ``sentence``: which choice the marked pronoun stands for."""
    told, right, wrong = _told(draw)
    choices = (right, wrong) if label == "choice1" else (wrong, right)
    return {"choice1": choices[0], "choice2": choices[1], "sentence": told}


def coreference_judge(draw: Draw, label: str) -> Mapping[str, str]:
    """Fields ``candidate`` and ``text``: whether the marked pronoun stands for the candidate."""
    told, right, wrong = _told(draw)
    return {"candidate": right if label == "True" else wrong, "text": told}
