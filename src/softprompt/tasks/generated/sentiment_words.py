"""Opinion words of the sentiment tasks: aspects of each domain, what can be said of them, and verdicts without such words."""

from __future__ import annotations

from typing import NamedTuple

from softprompt.tasks.generated.lists import phrases

GOOD = phrases(
    """wonderful, superb, delightful, excellent, brilliant, lovely, terrific, marvellous, outstanding, splendid, great,
    fantastic, impressive, magnificent, perfect, amazing, remarkable, charming, first-rate, top-notch, flawless, stunning,
    enjoyable, satisfying, beautiful, memorable, fabulous, exceptional, pleasant, good, admirable, praiseworthy"""
)
BAD = phrases(
    """terrible, awful, dreadful, horrible, disappointing, poor, lousy, atrocious, appalling, miserable, mediocre, pathetic,
    disgraceful, abysmal, second-rate, shoddy, unpleasant, unbearable, frustrating, irritating, annoying, laughable, weak,
    bad, useless, embarrassing, substandard, unacceptable, lamentable, deplorable, inferior, ghastly"""
)


class Domain(NamedTuple):
    """What is reviewed, and how it is talked about.

    Attributes:
        thing: what the review is about, e.g. "film".
        aspects: (noun, good adjectives of its own, bad adjectives of its own).
        good: whole clauses that say it was good; they follow a subject of their own.
        bad: whole clauses that say it was bad.
        neutral: clauses that say nothing about quality.
    """

    thing: str
    aspects: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]
    good: tuple[str, ...]
    bad: tuple[str, ...]
    neutral: tuple[str, ...]


def _aspects(text: str) -> tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]:
    """Lines of ``aspect: good, good / bad, bad``."""
    out = []
    for line in text.strip().splitlines():
        name, _, words = line.partition(":")
        good, _, bad = words.partition("/")
        out.append((name.strip(), phrases(good), phrases(bad)))
    return tuple(out)


FILM = Domain(
    "film",
    _aspects(
        """acting: convincing, nuanced, heartfelt, natural / wooden, stiff, lifeless, forced
        plot: gripping, clever, surprising, coherent, suspenseful / predictable, confusing, thin, ridiculous, pointless
        dialogue: witty, sharp, funny, believable / clumsy, stilted, cheesy, flat
        soundtrack: haunting, moving, catchy, rousing / grating, intrusive, repetitive, tuneless
        ending: touching, uplifting, thrilling, unforgettable / rushed, unsatisfying, abrupt, contrived
        lead actor: captivating, charismatic, magnetic, likeable / unconvincing, bland, dull, miscast
        script: intelligent, inventive, subtle, thoughtful / lazy, shallow, muddled, trite
        camera work: breathtaking, elegant, inspired / shaky, sloppy, amateurish
        humour: hilarious, fresh, charming / childish, crude, tired, tasteless
        pacing: tight, lively, brisk / sluggish, slow, uneven"""
    ),
    phrases(
        """I was on the edge of my seat until the credits, I could watch it again tomorrow, the whole audience stood up and
        applauded, I have already told all my friends to see it, I left the cinema with a big smile, we laughed until our
        sides hurt, it deserves every award it can get, I did not want it to end, I bought the disc the next day, it moved me
        to tears, the two hours flew by, every minute was worth the ticket, my children begged to see it again, it stayed with
        me for weeks, I would give it five stars, it is the best thing I have seen this year"""
    ),
    phrases(
        """I walked out halfway through, I kept checking my watch, I want my two hours back, half of the audience fell asleep,
        I asked for my money back at the door, people around me started to leave, I would not watch it again if you paid me,
        it gave me a headache, I nearly dozed off, I switched it off after twenty minutes, save your money and stay at home,
        we rolled our eyes at every scene, nobody in the room laughed, I would give it one star, I regret buying the ticket,
        it was a complete waste of an evening"""
    ),
    phrases(
        """it runs for two hours, it was shot in Canada, we saw it on Friday evening, it is based on a novel, it came out in
        May, the story takes place in a village, my sister chose it, there are three main characters"""
    ),
)

RESTAURANT = Domain(
    "restaurant",
    _aspects(
        """soup: tasty, delicious, flavourful, comforting / bland, watery, lukewarm, oversalted
        steak: juicy, tender, succulent, perfectly cooked / tough, burnt, chewy, dry
        waiter: attentive, friendly, polite, helpful, courteous / rude, careless, grumpy, arrogant, forgetful
        dessert: heavenly, mouth-watering, scrumptious, divine / soggy, stale, tasteless, sickly
        bread: fresh, crusty, fragrant, fluffy / mouldy, rock-hard, rubbery
        fish: fresh, flaky, exquisite, appetising / smelly, undercooked, slimy, inedible
        dining room: cosy, inviting, spotless, elegant / filthy, cramped, gloomy, grubby
        wine list: varied, well-chosen, generous / overpriced, meagre, boring
        salad: crisp, colourful, refreshing / wilted, limp, soggy
        menu: imaginative, tempting, creative / dull, limited, uninspired"""
    ),
    phrases(
        """we went back the very next evening, I wiped my plate clean, I asked the chef for the recipe, we will celebrate my
        birthday there, everyone at our table wanted seconds, I left a large tip, I still dream of that meal, my picky son ate
        everything, I have recommended it to all my colleagues, it was worth every cent, we booked another table right away,
        I would eat there every day if I could, the chef deserves a medal, I licked the spoon, we stayed for three
        more courses, it is my new favourite place in town"""
    ),
    phrases(
        """I was sick all night, we left before the main course, I found a hair in my food, I sent my plate back twice, we ended
        up buying a sandwich on the way home, I could not finish a single bite, we waited two hours and were never served, the
        health inspector should pay them a visit, I would rather go hungry than eat there again, even the dog refused the
        leftovers, they charged us for things we never ordered, I had a stomach ache for days, nobody at our table ate up,
        I pushed my plate away, we will never set foot in there again, they should close the place down"""
    ),
    phrases(
        """we had a table by the window, it is on the main street, we ordered at seven, there were four of us, the kitchen
        closes at ten, my colleague had the fish, they serve lunch and dinner, we paid by card"""
    ),
)

HOTEL = Domain(
    "hotel",
    _aspects(
        """room: spacious, spotless, comfortable, airy, cosy / cramped, dirty, musty, damp, smelly
        bed: comfortable, soft, inviting / lumpy, creaky, uncomfortable, sagging
        staff: helpful, welcoming, friendly, kind, attentive / rude, unhelpful, indifferent, impolite, surly
        breakfast: plentiful, delicious, generous, varied / stale, meagre, tasteless, cold
        bathroom: gleaming, spotless, modern, immaculate / mouldy, filthy, rusty, disgusting
        location: convenient, peaceful, ideal, handy / noisy, remote, unsafe, inconvenient
        pool: clean, refreshing, inviting, sparkling / murky, slimy, overcrowded
        view: breathtaking, gorgeous, spectacular, picturesque / ugly, dreary, depressing
        lobby: elegant, stylish, bright / shabby, gloomy, run-down
        porter: cheerful, efficient, gracious / lazy, hostile, incompetent"""
    ),
    phrases(
        """we stayed two nights longer than planned, I slept like a baby, we have already booked for next summer, I did not
        want to go home, we felt like kings, the staff remembered our names, they upgraded us for free, my wife wants to move
        in, I would send my parents there without a second thought, we wrote a thank-you note to the manager, it felt like a
        second home, I came home fully rested, it was worth every penny, I could live there, we were spoiled from morning to
        night, it made our honeymoon"""
    ),
    phrases(
        """we checked out after one night, I did not sleep a wink, there were cockroaches in the shower, somebody stole my
        camera from the safe, I slept in my clothes, we asked for our money back, the walls were so thin that we heard every
        word, they lost our booking and shrugged, I was itching for a week, it ruined our honeymoon, the toilet overflowed
        twice, we spent the night in the car instead, I have filed a complaint, nobody answered the phone at night, we counted
        the hours until checkout, I would sooner sleep in a tent"""
    ),
    phrases(
        """we arrived on Thursday, it has six floors, we were there for a conference, it is next to the station, our room was on
        the third floor, we came by train, breakfast starts at seven, there is a lift"""
    ),
)

PRODUCT = Domain(
    "product",
    _aspects(
        """battery: long-lasting, dependable, powerful / short-lived, faulty, dead, unreliable
        screen: crisp, sharp, bright, vivid / blurry, scratched, dim, cracked
        handle: sturdy, solid, comfortable / flimsy, wobbly, slippery, brittle
        zip: smooth, durable, sturdy / stuck, jammed, flimsy
        manual: clear, helpful, thorough / confusing, useless, incomprehensible
        motor: quiet, powerful, efficient, reliable / deafening, feeble, noisy, defective
        design: sleek, elegant, clever, practical / ugly, clumsy, impractical, awkward
        packaging: neat, careful, tidy / torn, crushed, wasteful
        sound: rich, crisp, warm, clear / tinny, muffled, distorted
        customer service: prompt, courteous, helpful / rude, slow, incompetent"""
    ),
    phrases(
        """I use it every single day, I bought another one for my mother, it still works like new after three years, it has
        saved me hours of work, my neighbour borrowed it and ordered one too, I cannot imagine life without it, it paid for
        itself in a month, it survived a fall down the stairs, it does exactly what it promises, I would buy it again in a
        heartbeat, it arrived a day early, it solved my problem at once, my kids fight over it, it makes my mornings easier,
        it beats models at twice the price, I would give it ten out of ten"""
    ),
    phrases(
        """it broke after two days, I sent it back the same week, it went straight into the bin, it caught fire in my kitchen,
        half of the parts were missing, it stopped working on the first morning, I am still waiting for my refund, I had to
        buy another brand, it fell apart in my hands, it never even switched on, I feel cheated, it leaked all over the floor,
        it has been gathering dust since, do not waste your money on it, I spent an hour on the phone for nothing, it
        scratched my new table"""
    ),
    phrases(
        """it comes in two sizes, I ordered it on Monday, it weighs one kilo, mine is the blue one, it was a present, it takes
        two batteries, I keep it in the kitchen, the box holds six pieces"""
    ),
)
