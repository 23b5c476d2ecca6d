"""Cause and effect in the manner of COPA: chains of three events; the middle one is given, one end is to be chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from softprompt.tasks.generated.draw import Draw, Frames
from softprompt.tasks.generated.english import sentence
from softprompt.tasks.generated.lists import words
from softprompt.tasks.generated.nouns import FEMALE_NAMES, MALE_NAMES

LABELS = ("choice1", "choice2")


class Chain(NamedTuple):
    """What led to an event, the event, and what came of it. {n} a name; {p} she, {o} her, {s} her (own)."""

    event: str
    cause: str
    effect: str


def _chains(text: str) -> tuple[Chain, ...]:
    out = []
    for line in text.strip().splitlines():
        cause, event, effect = (part.strip() for part in line.split(">"))
        out.append(Chain(event, cause, effect))
    return tuple(out)


CHAINS: tuple[Chain, ...] = _chains(
    """
    {n} dropped the glass > the glass broke > {n} swept up the pieces
    {n} forgot the umbrella > {n} got soaked in the rain > {n} changed into dry clothes
    {n} ate a spoiled oyster > {n} felt sick > {n} ran to the bathroom
    the alarm clock did not ring > {n} overslept > {n} was late for work
    {n} drove over a nail > {n}'s car had a flat tyre > {n} put on the spare wheel
    {n} did not water the roses > the roses withered > {n} threw the dead flowers away
    {n} left the milk in the sun > the milk turned sour > {n} poured the milk down the drain
    {n} trained every day for a year > {n} won the race > {n} got a gold medal
    {n} studied hard > {n} passed the exam > {n}'s parents were proud
    {n} told a joke > everybody laughed > {n} felt like a comedian
    it snowed all night > the road was covered with snow > {n} shovelled the driveway
    lightning struck the barn > the barn caught fire > the fire brigade came with hoses
    {n} left the window open > mosquitoes came into the room > {n} was bitten all night
    {n} worked out in the heat > {n} was very thirsty > {n} drank a whole bottle of water
    {n} stayed up until dawn > {n} was exhausted > {n} fell asleep at the desk
    {n} lost the house key > {n} could not get into the house > {n} called a locksmith
    {n} did not charge the phone > the phone went dead > {n} could not call anyone
    a thief broke the window > {n}'s jewels were stolen > {n} reported the theft to the police
    {n} spilled coffee on the shirt > the shirt had a brown stain > {n} took the shirt to the cleaner
    the cat pushed the vase > the vase fell off the table > water and flowers lay on the floor
    {n} lied to the teacher > {n} was punished > {n} promised to tell the truth
    {n} saved money for years > {n} could afford a house > {n} moved out of the rented flat
    the bridge collapsed > the road was closed > drivers had to take a detour
    {n} burned a hand on the stove > {n} screamed in pain > {n} held the hand under cold water
    {n} slipped on a banana peel > {n} broke an arm > the doctor put the arm in plaster
    {n} bit on a stone > {n} lost a tooth > {n} went to the dentist
    {n} talked loudly in the library > {n} disturbed the readers > the librarian asked {n} to be quiet
    {n} planted seeds in spring > vegetables grew in the garden > {n} harvested carrots and beans
    the baby was hungry > the baby cried > {n} gave the baby a bottle
    {n} put salt in the coffee instead of sugar > the coffee tasted awful > {n} spat the coffee out
    {n} sat in the sun without a hat > {n} got a sunburn > {n} rubbed cream on the red skin
    {n} insulted a guest > the guest was offended > the guest left without a goodbye
    {n} left the cage open > the parrot flew away > {n} put up posters with a picture of the parrot
    the printer had no ink > the page came out blank > {n} bought a new cartridge
    the company lost its biggest customer > the company made a loss > many workers were laid off
    {n} found a wallet on the street > {n} brought the wallet to the owner > the owner gave {n} a reward
    {n} parked in front of the fire station > {n}'s car was towed away > {n} had to pay a fine
    the heating broke down > the room became cold > {n} put on a thick sweater
    the electricity failed > the house was dark > {n} lit some candles
    {n} ate nothing all day > {n} was starving > {n} devoured three plates of pasta
    {n} forgot about the cake in the oven > the cake burned > the kitchen was full of smoke
    {n} read a ghost story at night > {n} was scared > {n} slept with the light on
    {n}'s best friend moved to another country > {n} felt lonely > {n} looked for new friends
    {n} practised the piano every day > {n} played the sonata perfectly > the audience clapped for minutes
    {n} sneezed while cutting hair > the customer's hair was cut crooked > the customer demanded the money back
    the dog saw a cat > the dog barked > the neighbours complained about the noise
    {n} wore new shoes on the hike > {n} got blisters > {n} walked the last mile barefoot
    {n} touched a nettle > {n}'s skin itched > {n} scratched the arm
    {n} jogged every morning > {n} became fit > {n} climbed the stairs with ease
    {n} ate sweets every day > {n} gained weight > {n}'s trousers no longer fitted
    it did not rain for months > the river dried up > the fish died
    it rained for a week > the river flooded the village > people fled to the roofs
    {n} fell in love > {n} proposed marriage > the wedding took place in May
    {n} had a fever > {n} stayed in bed > {n} missed the meeting
    {n} shook the bottle of lemonade > the lemonade sprayed out > {n}'s hands were sticky
    {n} kicked the ball hard > the ball smashed the neighbour's window > {n} had to pay for new glass
    the teacher told {n} to clean the blackboard > {n} wiped the blackboard > the blackboard was clean again
    {n} took the wrong bus > {n} ended up in a strange town > {n} asked a stranger for the way
    {n} pressed the brake too late > {n} hit the car in front > the drivers exchanged insurance numbers
    the tree was rotten > the tree fell in the storm > the tree blocked the railway line
    {n} ran out of petrol > {n}'s car stopped on the motorway > {n} walked to the next filling station
    {n} poured water on the campfire > the fire went out > the campers sat in the dark
    {n} pulled the cat's tail > the cat scratched {n} > {n} put a plaster on the scratch
    {n} bought a lottery ticket > {n} won a million > {n} quit the boring job
    {n} learned Italian > {n} could talk to people in Rome > {n} made friends in Italy
    {n} mixed blue and yellow paint > the paint turned green > {n} painted the leaves of the tree
    {n} put the water on the stove > the water boiled > {n} dropped the spaghetti into the pot
    {n} put the ice cream in the sun > the ice cream melted > {n} licked the drops off the fingers
    the temperature fell below zero > the lake froze > children skated on the lake
    the sun came out > the snowman melted > only the carrot and the hat were left
    {n} was rude to customers > {n} was fired > {n} looked for another job
    {n} tripped over the cable > the lamp fell down > the bulb shattered
    {n} heard a strange noise in the cellar > {n} went down with a torch > {n} discovered a raccoon in a box
    {n} got a bad mark > {n} was sad > {n}'s sister comforted {o}
    {n} left the tap running > the bathroom was flooded > water dripped from the neighbour's ceiling
    {n} rubbed two stones together > sparks flew > the dry grass began to burn
    the band was famous > the concert was sold out > {n} could not get a ticket
    {n} broke the speed limit > the police stopped {n} > {n} had to show the driving licence
    the snow was deep > the school was closed > the pupils stayed at home and built a snowman
    the baker raised the prices > fewer people bought bread > the bakery earned less
    the shop sold everything at half price > a crowd gathered at the door > the shelves were soon empty
    {n} was allergic to nuts > {n} swelled up after the cake > {n} was taken to the emergency room
    {n} wrote down the wrong address > the parcel went to another house > a stranger opened the parcel
    the rope was old > the rope snapped > the climber fell into the net
    the boat had a hole > the boat filled with water > the sailors bailed it out with buckets
    {n} exercised too much > {n}'s muscles ached > {n} took a hot bath
    the volcano erupted > ash covered the village > the villagers wore masks
    {n} watched a sad film > {n} cried > {n} reached for a handkerchief
    {n} lent the bicycle to a careless friend > the bicycle came back damaged > {n} never lent it again
    the wind was strong > {n}'s hat blew away > {n} chased the hat across the square
    the soup was too hot > {n} burned the tongue > {n} blew on the next spoonful
    the road was icy > the truck slid into a ditch > a tractor pulled the truck out
    {n} forgot {s} mother's birthday > {n}'s mother was disappointed > {n} sent flowers a day late
    {n} cut the onions > tears ran down {n}'s face > {n} rinsed the eyes
    {n} won the election > {n} became mayor > {n} moved into the town hall
    the factory closed > many people lost their jobs > families left the town
    {n} built a nesting box > a pair of owls moved in > young owls hatched in May
    {n} ignored the warning sign > {n} got bitten by the guard dog > {n} needed stitches
    the bees were disturbed > the bees attacked {n} > {n} jumped into the pond
    {n} hid the chocolate badly > the children found the chocolate > nothing but wrappers remained
    {n} wore glasses for the first time > {n} could see the blackboard > {n} understood the lesson
    the museum showed a famous painting > a long queue formed at the museum > visitors waited for hours
    {n} held a match to the fuse > the firework exploded in the sky > the crowd admired the colours
    {n} swallowed a fly > {n} coughed > a friend patted {o} on the back
    {n} gave the beggar some money > the beggar bought a meal > the beggar was no longer hungry
    {n} repaired the radio > the radio worked again > {n} listened to the news
    {n} added too much pepper > the stew was too spicy > {n} gasped for water
    {n} stepped on a wasp > {n}'s foot swelled > {n} limped home
    {n} kept digging > {n} found an old coin > {n} sold the coin to a museum
    """
)
_TOLD = Frames(
    train=("{c}", "{c}", "one day {c}", "yesterday {c}"), held_out=("the other week {c}", "as it happened, {c}")
)


_WEATHER = frozenset(
    words("snow snowed rain rained icy wind sun heating electricity zero lightning storm river flooded ash")
)


def _weather(chain: Chain) -> bool:
    """Whether weather or a failing house is in it: such causes and effects could change places."""
    return bool(_WEATHER & set(f"{chain.cause} {chain.event} {chain.effect}".split()))


_OTHER_THAN_WEATHER = tuple(chain for chain in CHAINS if not _weather(chain))


def _pronouns(name: str) -> dict[str, str]:
    female = name in FEMALE_NAMES
    return {"n": name, "o": "her" if female else "him", "s": "her" if female else "his"}


def say_part(draw: Draw, chain: Chain, name: str) -> str:
    """Any part of a chain as a sentence about ``name``."""
    return sentence(draw.frame(_TOLD).format(c=draw.pick(chain).format(**_pronouns(name))))


def _choice(draw: Draw, label: str, asked: str) -> Mapping[str, str]:
    chain = draw.word(CHAINS)
    name = draw.pick(FEMALE_NAMES + MALE_NAMES)
    right, opposite = (chain.cause, chain.effect) if asked == "cause" else (chain.effect, chain.cause)
    if draw.chance(0.3):
        wrong = opposite  # the right story the wrong way round
    else:
        other = draw.word(_OTHER_THAN_WEATHER if _weather(chain) else CHAINS, but=(chain,))
        wrong = other.cause if asked == "cause" else other.effect
    # The stories share one person, so that the name gives nothing away.
    texts = [sentence(t.format(**_pronouns(name))) for t in ((right, wrong) if label == "choice1" else (wrong, right))]
    premise = sentence(draw.frame(_TOLD).format(c=chain.event.format(**_pronouns(name))))
    return {"choice1": texts[0], "choice2": texts[1], "premise": premise, "question": asked}


def cause_choice(draw: Draw, label: str) -> Mapping[str, str]:
    """Fields ``choice1``, ``choice2``, ``premise`` and ``question``: which choice led to the premise."""
    return _choice(draw, label, "cause")


def effect_choice(draw: Draw, label: str) -> Mapping[str, str]:
    """The same fields: which choice came of the premise."""
    return _choice(draw, label, "effect")
