"""Nouns of the generated tasks: people, things and places, with what they are kinds of and what they are also called."""

from __future__ import annotations

from typing import NamedTuple


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.replace("_", " ") for word in text.split())


FEMALE_NAMES = _words(
    "Anna Maria Julia Emma Laura Sarah Nina Clara Alice Helen Rosa Diana Irene Lucy Martha Olga Paula Ruth Sofia Teresa "
    "Vera Wendy Amy Beth Carol Daisy Elena Fiona Grace Hannah Isabel Jane Karen Linda Monica Nora Rachel Susan Tina Zoe"
)
MALE_NAMES = _words(
    "Tom Peter David Paul Mark Simon Daniel Victor Oscar Henry Adam Brian Carl Dennis Eric Frank George Harry Ivan Jack "
    "Kevin Leo Martin Nathan Oliver Patrick Robert Sam Thomas Walter Albert Ben Charles Edward Felix Gary Hugo James Luke Max"
)
SURNAMES = _words(
    "Adams Baker Carter Dixon Evans Foster Grant Harris Irving Jensen Keller Lopez Morgan Novak Owens Palmer Quinn Rossi "
    "Silva Turner Ward Young Berg Costa Duran Fischer Garcia Holm Kim Larsen Meyer Nguyen Olsen Patel Ramos Schmidt Tanaka"
)
CITIES = _words(
    "Paris London Berlin Madrid Rome Vienna Oslo Dublin Lisbon Prague Athens Boston Chicago Denver Seattle Toronto Cairo "
    "Tokyo Sydney Munich Milan Geneva Warsaw Helsinki Glasgow Bristol Leeds Hamburg Lyon Naples Porto Dallas Austin Miami "
    "Nairobi Mumbai Delhi Lima Bogota Havana Kyoto Osaka Perth Krakow Budapest Zurich Florence Venice Seville Valencia"
)

#: Hyponyms by kind. A kind may itself be a kind of something (``PARENT``).
KINDS: dict[str, tuple[str, ...]] = {
    "musician": _words("violinist drummer pianist guitarist singer cellist trumpeter flutist"),
    "athlete": _words("runner swimmer boxer cyclist skier wrestler gymnast footballer"),
    "scientist": _words("chemist biologist physicist geologist astronomer botanist"),
    "artist": _words("painter sculptor potter illustrator"),
    "child": _words("boy girl toddler schoolboy schoolgirl"),
    "doctor": _words("surgeon dentist paediatrician cardiologist"),
    "worker": _words("plumber carpenter mechanic bricklayer electrician roofer gardener miner welder"),
    "dog": _words("poodle terrier labrador bulldog spaniel beagle collie greyhound"),
    "bird": _words("sparrow eagle crow pigeon robin duck owl swan parrot seagull hawk goose"),
    "insect": _words("bee ant beetle butterfly wasp mosquito moth grasshopper"),
    "farm animal": _words("cow sheep goat pig hen donkey"),
    "wild animal": _words("wolf bear fox lion tiger elephant zebra giraffe monkey deer"),
    "pet": _words("hamster kitten puppy goldfish"),
    "instrument": _words("violin piano drum cello accordion xylophone organ keyboard"),
    "string instrument": _words("guitar banjo ukulele lute mandolin harp"),
    "wind instrument": _words("flute trumpet saxophone clarinet trombone oboe bugle"),
    "vehicle": _words("car truck bus van tractor motorcycle taxi minibus"),
    "boat": _words("canoe kayak ferry yacht raft sailboat"),
    "fruit": _words("apple banana pear peach orange plum mango melon grape cherry"),
    "vegetable": _words("carrot onion potato cabbage cucumber pepper pumpkin turnip"),
    "dessert": _words("cake pie pudding cookie muffin doughnut brownie"),
    "drink": _words("coffee tea lemonade milk juice beer wine water"),
    "clothing": _words("jacket shirt dress coat sweater skirt scarf uniform raincoat"),
    "headgear": _words("cap helmet turban beret bonnet"),
    "tool": _words("hammer screwdriver saw wrench drill shovel axe rake chisel"),
    "furniture": _words("chair table sofa desk wardrobe bed bookcase stool cupboard"),
    "toy": _words("doll kite puzzle yo-yo teddy_bear spinning_top"),
    "jewellery": _words("ring necklace bracelet brooch earring"),
    "flower": _words("rose tulip lily daisy orchid sunflower daffodil violet"),
    "tree": _words("oak pine maple birch willow palm cedar"),
    "publication": _words("novel newspaper magazine dictionary comic cookbook"),
    "container": _words("box basket bucket suitcase barrel jar backpack"),
    "device": _words("laptop camera phone radio printer television"),
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
OTHER_PEOPLE = _words(
    "teacher nurse farmer lawyer waiter baker butcher librarian pilot sailor soldier tourist student journalist barber "
    "tailor cashier postman clown judge shepherd magician politician secretary janitor"
)

#: Noun -> another word for it in every sentence here.
SYNONYMS: tuple[tuple[str, str], ...] = tuple(
    (a.replace("_", " "), b.replace("_", " "))
    for a, b in (
        pair.split("=")
        for pair in (
            "doctor=physician child=kid lawyer=attorney author=writer policeman=police_officer student=pupil baby=infant "
            "boss=manager friend=pal robber=thief sailor=seaman farmer=grower teacher=instructor customer=client "
            "car=automobile bicycle=bike sofa=couch photo=picture present=gift shop=store movie=film truck=lorry "
            "stone=rock rug=carpet trousers=pants letter=note phone=telephone house=home road=street jacket=coat "
            "dish=plate cap=hat mug=cup bucket=pail jewel=gem curtain=drape cushion=pillow suitcase=travel_bag "
            "tale=story fence=railing error=mistake task=job prize=award plan=scheme garbage=trash meal=dinner "
            "soldier=trooper nurse=caregiver pig=hog rabbit=bunny donkey=mule ship=vessel aeroplane=plane engine=motor"
        ).split()
    )
)

INDOORS = tuple(
    p.replace("_", " ")
    for p in (
        "in_the_kitchen in_the_library in_the_museum in_the_gym in_the_supermarket in_the_living_room in_the_classroom "
        "in_the_hallway in_the_basement in_the_cafe in_the_attic in_the_bedroom in_the_office in_the_theatre"
    ).split()
)
OUTDOORS = tuple(
    p.replace("_", " ")
    for p in (
        "in_the_park on_the_beach in_the_garden in_the_forest on_the_street in_a_field by_the_river in_the_desert "
        "on_the_mountain by_the_lake in_the_car_park in_the_meadow on_the_lawn in_the_vineyard"
    ).split()
)
WEEKDAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = _words("January February March April May June July August September October November December")

COLOURS = _words("red blue green yellow white black brown grey pink purple orange")
NUMBERS = _words("two three four five six seven eight nine ten")

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
