"""Nouns of the generated tasks: people, things and places, with what they are kinds of and what they are also called."""

from __future__ import annotations

from typing import NamedTuple

from softprompt.tasks.generated.lists import words

FEMALE_NAMES = words(
    "Anna Maria Julia Emma Laura Sarah Nina Clara Alice Helen Rosa Diana Irene Lucy Martha Olga Paula Ruth Sofia Teresa "
    "Vera Wendy Amy Beth Carol Daisy Elena Fiona Grace Hannah Isabel Jane Karen Linda Monica Nora Rachel Susan Tina Zoe"
)
MALE_NAMES = words(
    "Tom Peter David Paul Mark Simon Daniel Victor Oscar Henry Adam Brian Carl Dennis Eric Frank George Harry Ivan Jack "
    "Kevin Leo Martin Nathan Oliver Patrick Robert Sam Thomas Walter Albert Ben Charles Edward Felix Gary Hugo James Luke Max"
)
SURNAMES = words(
    "Adams Baker Carter Dixon Evans Foster Grant Harris Irving Jensen Keller Lopez Morgan Novak Owens Palmer Quinn Rossi "
    "Silva Turner Ward Young Berg Costa Duran Fischer Garcia Holm Kim Larsen Meyer Nguyen Olsen Patel Ramos Schmidt Tanaka"
)
CITIES = words(
    "Paris London Berlin Madrid Rome Vienna Oslo Dublin Lisbon Prague Athens Boston Chicago Denver Seattle Toronto Cairo "
    "Tokyo Sydney Munich Milan Geneva Warsaw Helsinki Glasgow Bristol Leeds Hamburg Lyon Naples Porto Dallas Austin Miami "
    "Nairobi Mumbai Delhi Lima Bogota Havana Kyoto Osaka Perth Krakow Budapest Zurich Florence Venice Seville Valencia"
)

#: Hyponyms by kind. A kind may itself be a kind of something (``PARENT``).
KINDS: dict[str, tuple[str, ...]] = {
    "musician": words("violinist drummer pianist guitarist singer cellist trumpeter flutist"),
    "athlete": words("runner swimmer boxer cyclist skier wrestler gymnast footballer"),
    "scientist": words("chemist biologist physicist geologist astronomer botanist"),
    "artist": words("painter sculptor potter illustrator"),
    "child": words("boy girl toddler schoolboy schoolgirl"),
    "doctor": words("surgeon dentist paediatrician cardiologist"),
    "worker": words("plumber carpenter mechanic bricklayer electrician roofer gardener miner welder"),
    "dog": words("poodle terrier labrador bulldog spaniel beagle collie greyhound"),
    "bird": words("sparrow eagle crow pigeon robin duck owl swan parrot seagull hawk goose"),
    "insect": words("bee ant beetle butterfly wasp mosquito moth grasshopper"),
    "farm animal": words("cow sheep goat pig hen donkey"),
    "wild animal": words("wolf bear fox lion tiger elephant zebra giraffe monkey deer"),
    "pet": words("hamster kitten puppy goldfish"),
    "instrument": words("violin piano drum cello accordion xylophone organ keyboard"),
    "string instrument": words("guitar banjo ukulele lute mandolin harp"),
    "wind instrument": words("flute trumpet saxophone clarinet trombone oboe bugle"),
    "vehicle": words("car truck bus van tractor motorcycle taxi minibus"),
    "boat": words("canoe kayak ferry yacht raft sailboat"),
    "fruit": words("apple banana pear peach orange plum mango melon grape cherry"),
    "vegetable": words("carrot onion potato cabbage cucumber pepper pumpkin turnip"),
    "dessert": words("cake pie pudding cookie muffin doughnut brownie"),
    "drink": words("coffee tea lemonade milk juice beer wine water"),
    "garment": words("jacket shirt dress coat sweater skirt scarf uniform raincoat"),
    "hat": words("cap helmet turban beret bonnet"),
    "tool": words("hammer screwdriver saw wrench drill shovel axe rake chisel"),
    "piece of furniture": words("chair table sofa desk wardrobe bed bookcase stool cupboard"),
    "toy": words("doll kite puzzle yo-yo teddy_bear spinning_top"),
    "piece of jewellery": words("ring necklace bracelet brooch earring"),
    "flower": words("rose tulip lily daisy orchid sunflower daffodil violet"),
    "tree": words("oak pine maple birch willow palm cedar"),
    "publication": words("novel newspaper magazine dictionary comic cookbook"),
    "container": words("box basket bucket suitcase barrel jar backpack"),
    "device": words("laptop camera phone radio printer television"),
}
#: The kind above a kind. "somebody" is above every person.
PARENT: dict[str, str] = {
    "musician": "person",
    "athlete": "person",
    "scientist": "person",
    "artist": "person",
    "child": "person",
    "doctor": "person",
    "worker": "person",
    "dog": "animal",
    "bird": "animal",
    "insect": "animal",
    "farm animal": "animal",
    "wild animal": "animal",
    "pet": "animal",
    "string instrument": "instrument",
    "wind instrument": "instrument",
}
PEOPLE_KINDS = ("musician", "athlete", "scientist", "artist", "child", "doctor", "worker")
#: People without a kind of their own here: the word above them is "person".
OTHER_PEOPLE = words(
    "teacher nurse farmer lawyer waiter baker butcher librarian pilot sailor soldier tourist student journalist barber "
    "tailor cashier postman clown judge shepherd magician politician secretary janitor"
)

INDOORS = words(
    "in_the_kitchen in_the_library in_the_museum in_the_gym in_the_supermarket in_the_living_room in_the_classroom "
    "in_the_hallway in_the_basement in_the_cafe in_the_attic in_the_bedroom in_the_office in_the_theatre"
)
OUTDOORS = words(
    "in_the_park on_the_beach in_the_garden in_the_forest on_the_street in_a_field by_the_river in_the_desert "
    "on_the_mountain by_the_lake in_the_car_park in_the_meadow on_the_lawn in_the_vineyard"
)
WEEKDAYS = words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = words("January February March April May June July August September October November December")

COLOURS = words("red blue green yellow white black brown grey pink purple orange")
NUMBERS = words("two three four five six seven eight nine ten")

#: Adjectives of anybody that cannot both hold.
ANYBODY_OPPOSITES: tuple[tuple[str, str], ...] = (
    ("tall", "short"),
    ("happy", "sad"),
    ("cheerful", "gloomy"),
    ("calm", "nervous"),
    ("angry", "pleased"),
    ("weak", "strong"),
    ("friendly", "hostile"),
    ("tired", "well-rested"),
    ("shy", "confident"),
    ("hungry", "well-fed"),
    ("left-handed", "right-handed"),
    ("polite", "impolite"),
)
#: The same for grown-ups.
PERSON_OPPOSITES: tuple[tuple[str, str], ...] = (
    *ANYBODY_OPPOSITES,
    ("young", "old"),
    ("rich", "poor"),
    ("slim", "plump"),
    ("famous", "unknown"),
    ("experienced", "inexperienced"),
)
#: Sizes that cannot both hold.
SIZE_OPPOSITES: tuple[tuple[str, str], ...] = (
    ("big", "small"),
    ("large", "little"),
    ("huge", "tiny"),
    ("enormous", "minuscule"),
    ("gigantic", "undersized"),
)
#: Adjectives of made things that cannot both hold.
THING_OPPOSITES: tuple[tuple[str, str], ...] = (
    *SIZE_OPPOSITES,
    ("new", "old"),
    ("heavy", "light"),
    ("clean", "dirty"),
    ("cheap", "expensive"),
    ("wet", "dry"),
    ("shiny", "dull"),
    ("modern", "ancient"),
    ("beautiful", "ugly"),
    ("dusty", "spotless"),
    ("damaged", "intact"),
)


class Noun(NamedTuple):
    """A noun and the kind right above it."""

    name: str
    kind: str


PEOPLE: tuple[Noun, ...] = tuple(Noun(name, kind) for kind in PEOPLE_KINDS for name in KINDS[kind]) + tuple(
    Noun(name, "person") for name in OTHER_PEOPLE
)


def of_kind(*kinds: str) -> tuple[Noun, ...]:
    """All nouns of some kinds."""
    return tuple(Noun(name, kind) for kind in kinds for name in KINDS[kind])


def above(noun: Noun) -> tuple[str, ...]:
    """The words for what a noun is a kind of, nearest first."""
    parent = PARENT.get(noun.kind)
    return (noun.kind, parent) if parent else (noun.kind,)
