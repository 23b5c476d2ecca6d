"""The words in which self-supervised questions are asked and answered.

Two lists of polar adjectives, verbs and nouns (written for this project) give weak labels of sentiment; the label
sets hold the words in which public benchmarks want their answers, so that a decoder can speak them.
"""

from __future__ import annotations

# ruff: noqa: SIM905

POSITIVE = frozenset(
    """admirable adorable amazing amusing attractive beautiful beautifully beloved best brave bright brilliant
    brilliantly charm charming cheerful clever comfortable compelling confident delicious delight delighted delightful
    dazzling eager elegant enjoy enjoyable enjoyed entertaining excellent exceptional exciting exquisite fabulous fascinating
    favorite favourite fine flawless fresh friendly fun funny generous gentle genius genuine gifted glad glorious good
    graceful great gripping happily happiness happy heartwarming heroic hilarious honest hope hopeful impressive
    inspiring intelligent interesting inventive joy joyful kind kindly laugh laughed laughter lively love loved lovely
    loving magnificent marvellous marvelous masterpiece memorable merry moving nice noble outstanding passionate
    peaceful perfect perfectly playful pleasant pleased pleasing pleasure powerful praised pretty proud pure radiant
    refreshing remarkable rich rewarding romantic satisfying sincere skilful smart smile smiled smiling solid sparkling
    splendid strong stunning stylish sublime success successful superb sweet talented tender terrific thoughtful thrilled
    thrilling touching triumph triumphant unforgettable uplifting vibrant vivid warm warmth welcome wise witty
    wonderful wonderfully worthy acclaimed celebrated""".split()
)
NEGATIVE = frozenset(
    """abandoned absurd afraid angry annoying anxious appalling awful awkward bad badly bitter bland bleak bored boring
    broken brutal careless cheap clumsy cold confused confusing corrupt coward criticized criticised cruel crude dead deadly
    defeat depressing despair desperate destroyed dirty disappointed disappointing disappointment disaster disastrous
    disgust disgusting dismal disturbing dreadful dreary dull empty evil excessive fail failed failing fails failure false
    fear feeble flawed foolish forced frightful gloomy grief grim gross guilty harsh hate hated hateful horrible
    horrid horror hostile hurt ignorant inadequate incoherent inferior lack lacks lame lazy lifeless lonely
    lost loud mediocre melancholy mess miserable misery mistake monotonous nasty nonsense obnoxious offensive pain painful
    pathetic pity pointless poor poorly pretentious ridiculous rotten rude ruin ruined sad sadly selfish shallow
    shame shameful shock sick silly sloppy slow sorrow sorry stale stupid suffer suffered suffering tedious terrible terribly
    terrified terror tired tiresome tragedy tragic ugly unable unbearable uneven unfortunate unfortunately unfunny
    unhappy uninteresting unpleasant useless vile violent vulgar waste wasted weak weary wicked worse worst worthless
    wretched wrong""".split()
)
NEGATORS = frozenset("not no never nor hardly cannot without nothing neither n't don't didn't isn't wasn't".split())
FUNCTION_WORDS = frozenset(
    """a an the of in on at to for by with from and or but as is are was were be been has have had it its this that
    these those he she they his her their which who also then there not no so very just only""".split()
)
OPPOSITES = {
    "is": "is not", "was": "was not", "are": "are not", "were": "were not", "can": "cannot", "will": "will not",
    "had": "had not", "has": "has not", "could": "could not", "would": "would not", "first": "last", "last": "first",
    "more": "less", "less": "more", "before": "after", "after": "before", "always": "never", "never": "always",
    "all": "none", "many": "few", "few": "many", "large": "small", "small": "large", "old": "new", "new": "old",
    "north": "south", "south": "north", "east": "west", "west": "east", "high": "low", "low": "high", "good": "bad",
    "bad": "good", "male": "female", "man": "woman", "woman": "man", "early": "late", "late": "early", "best": "worst",
    "up": "down", "down": "up", "most": "least", "long": "short", "short": "long", "young": "old", "north-east": "south-west",
    "with": "without", "won": "lost", "lost": "won", "began": "ended", "started": "stopped", "born": "buried",
    "inside": "outside", "above": "below", "below": "above", "true": "false", "increased": "decreased", "rich": "poor",
    "opened": "closed", "closed": "opened", "increase": "decrease", "everyone": "nobody", "everything": "nothing",
}  # fmt: skip
BINARY = (
    ("yes", "no"), ("true", "false"), ("positive", "negative"), ("entailment", "not_entailment"),
    ("equivalent", "not_equivalent"), ("duplicate", "not_duplicate"), ("acceptable", "unacceptable"),
    ("choice1", "choice2"), ("good", "bad"), ("right", "wrong"), ("same", "different"), ("True", "False"),
)  # fmt: skip
TERNARY = (("entailment", "neutral", "contradiction"), ("yes", "maybe", "no"), ("true", "unknown", "false"))
