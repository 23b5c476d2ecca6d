"""Words with two senses: for each sense a gloss and sentences in which only that sense fits. "{n}" is a person's name."""

from __future__ import annotations

from typing import NamedTuple


class Sense(NamedTuple):
    """A sense of a word: its gloss and sentences that show it."""

    gloss: str
    uses: tuple[str, ...]


class Ambiguous(NamedTuple):
    """A word and its two senses."""

    word: str
    senses: tuple[Sense, Sense]


def _sense(line: str) -> Sense:
    gloss, *uses = (part.strip() for part in line.split("|"))
    return Sense(gloss, tuple(uses))


def _words(text: str) -> tuple[Ambiguous, ...]:
    out = []
    for block in text.strip().split("\n\n"):
        word, first, second = (line.strip() for line in block.strip().splitlines())
        out.append(Ambiguous(word, (_sense(first), _sense(second))))
    return tuple(out)


AMBIGUOUS: tuple[Ambiguous, ...] = _words(
    """
    bank
    a place that keeps and lends money | {n} opened an account at the bank | the bank refused to lend {n} a cent | {n} works as a clerk in a bank | robbers emptied the safe of the bank | the bank raised its interest rates again
    the land along a river | {n} sat on the bank and watched the boats | the river rose over its bank | willows grew along the bank of the stream | {n} pulled the canoe up on the bank | ducks were sleeping on the muddy bank

    bat
    a small flying animal of the night | a bat flew out of the cave at dusk | {n} found a bat asleep in the attic | the bat hung upside down from the beam | a bat finds its way by echo | the owl chased a bat across the night sky
    a club for hitting a ball | {n} swung the bat and missed the ball | the player broke his bat in the last inning | {n} bought a wooden bat for the match | she held the bat with both hands at the plate | the ball cracked off the bat into the crowd

    bark
    the skin of a tree | {n} peeled the bark off the birch | beetles live under the bark of the oak | the bark of the old pine was rough | deer had eaten the bark from the trunk | {n} carved a heart into the bark
    the sound a dog makes | the bark of the terrier woke {n} | {n} heard a loud bark behind the gate | the puppy has a high bark | one bark from the guard dog scared the thief | the dog greeted {n} with a happy bark

    spring
    the season after winter | the tulips bloom every spring | {n} was born in the spring of that year | in spring the days grow longer | {n} plants the beans in early spring | birds return from the south in spring
    a coil of metal | a spring in the mattress was broken | {n} oiled the rusty spring of the clock | the spring pushed the lid open | the toy jumps because of a spring inside | the mechanic replaced the spring of the brake

    match
    a small stick for making fire | {n} struck a match to light the candle | the last match in the box was wet | a burning match fell on the carpet | {n} lit the stove with a match | one match was enough to start the fire
    a game between two sides | the match ended without a goal | {n} won the tennis match in two sets | thousands watched the match in the stadium | the referee stopped the match because of rain | {n} scored twice in the match

    seal
    an animal of the sea | a seal was lying on the ice | the seal dived after a fish | {n} photographed a seal on the rocks | the baby seal called for its mother | the shark chased a seal through the bay
    a stamp that closes a letter | {n} broke the seal and read the letter | the king pressed his seal into the wax | the document bears the seal of the city | the envelope had a red seal | without the royal seal the order was worthless

    crane
    a tall bird | a crane stood on one leg in the marsh | {n} saw a crane fly over the lake | the crane built its nest in the reeds | the crane caught a frog with its beak | a flock was led by an old crane
    a machine for lifting | the crane lifted the beams onto the roof | {n} operates a crane in the harbour | a crane unloaded the containers | the crane on the building site collapsed | {n} climbed into the cabin of the crane

    pen
    a tool for writing | {n} signed the letter with a blue pen | the pen ran out of ink | {n} lent me a pen for the exam | she chewed the end of her pen | the pen left a stain on the paper
    a fenced place for animals | the pigs broke out of their pen | {n} cleaned the pen of the sheep | the goat jumped over the fence of its pen | the farmer built a new pen for the geese | the calves were led back to the pen

    club
    a group of people with an interest | {n} joined a chess club | the club meets every Thursday | members of the club pay a small fee | {n} was elected chair of the rowing club | the hiking club planned a trip
    a heavy stick | the caveman carried a wooden club | {n} was hit with a club | the giant swung his club at the knight | the guard grabbed a club from the wall | they found a stone axe and a club in the grave

    bow
    a weapon for arrows | {n} drew the bow and aimed at the target | the archer strung his bow | an arrow flew from the bow | the hunter carried a bow and a knife | {n} learned to shoot with a bow
    a knot of ribbon | {n} tied the ribbon in a bow | the present had a golden bow on top | she wore a red bow in her hair | the bow of her apron came undone | {n} decorated the parcel with a silk bow

    date
    a day of the calendar | {n} wrote the date at the top of the page | the date of the wedding has changed | what is the date today, asked {n} | the contract has no date on it | {n} circled the date in the calendar
    a sweet fruit of a palm | {n} ate a dried date with the coffee | a date is sweet and sticky | she took the stone out of the date | the baker put a chopped date into the cake | {n} offered me a date from the bowl

    fan
    a device that moves air | {n} switched on the fan because of the heat | the fan on the ceiling turned slowly | the fan cools the computer | it was so hot that {n} slept beside a fan | the blades of the fan were dusty
    somebody who admires | {n} is a fan of the singer | a fan asked the actor for an autograph | every fan in the stadium cheered | {n} has been a fan of the team since school | a young fan waited outside the dressing room

    file
    a collection of papers or data | {n} saved the file on the computer | the lawyer opened the file of the case | the file was too large to send | {n} deleted the wrong file | a thick file lay on the desk of the judge
    a tool for smoothing | {n} smoothed the metal with a file | the prisoner cut the bars with a file | a file and a hammer lay on the workbench | {n} shaped her nails with a file | the carpenter rounded the edge with a file

    key
    a thing that opens a lock | {n} turned the key in the lock | the key to the cellar is lost | {n} left the key under the mat | the jailer carried a heavy key | without the key we could not open the door
    a button to press on a piano or computer | {n} pressed the wrong key on the keyboard | one key of the piano is stuck | hit any key to continue | {n} struck a black key and then a white one | the typewriter is missing a key

    letter
    a message on paper | {n} posted the letter this morning | the letter took a week to arrive | {n} received a letter from an old friend | she tore the letter into pieces | the postman brought a letter for {n}
    a sign of the alphabet | the first letter of the alphabet is a | {n} spelled the name letter by letter | the word ends with a silent letter | every sentence starts with a capital letter | the child wrote the letter backwards

    light
    not heavy | the suitcase was so light that {n} carried it with one finger | feathers are light | {n} packed a light tent for the hike | the new bicycle is strong but light | she lifted the light box without effort
    pale in colour | {n} painted the room light blue | she has light hair and green eyes | the curtains were light yellow | {n} wore a light grey suit | the skin of the apple is light green

    mouse
    a small animal | the cat caught a mouse in the barn | a mouse ate the cheese | {n} screamed when a mouse ran across the floor | the owl swallowed a mouse | there is a mouse behind the fridge
    a device for a computer | {n} clicked with the mouse on the icon | the mouse needs a new battery | {n} moved the mouse and the screen lit up | she plugged the mouse into the laptop | the left button of the mouse is broken

    nail
    a pin of metal | {n} hammered a nail into the wall | the picture hangs on a nail | a rusty nail punctured the tyre | the carpenter held a nail between his lips | the board was fixed with a single nail
    the hard end of a finger | {n} broke a nail while climbing | she painted the nail of her thumb red | the nail of his big toe turned blue | {n} bit a nail during the film | dirt was stuck under the nail of his finger

    palm
    a tree of warm countries | {n} slept in the shade of a palm | coconuts fell from the palm | a palm grew beside the beach hotel | the storm bent the palm to the ground | a monkey climbed up the palm
    the inside of the hand | {n} held the coin in the palm of one hand | the fortune teller looked at her palm | he wiped his sweaty palm on his trousers | the ladybird crawled across {n}'s palm | she slapped the table with her palm

    pitcher
    a jug | {n} filled the pitcher with lemonade | the waiter put a pitcher of water on the table | the pitcher slipped and broke | {n} poured milk from the pitcher | ice cubes floated in the pitcher
    a player who throws the ball | the pitcher threw a fast ball | {n} is the best pitcher of the team | the pitcher struck out three batters | the coach replaced the tired pitcher | the crowd cheered for the pitcher

    plant
    a living thing with leaves | {n} watered the plant on the balcony | the plant has yellow flowers | the plant died because it got no sun | {n} moved the plant to a bigger pot | insects ate the leaves of the plant
    a factory | the plant builds two hundred cars a day | {n} works the night shift at the plant | the chemical plant was closed after the accident | smoke rose from the plant | the plant employs a thousand workers

    ring
    a piece of jewellery for a finger | {n} put the ring on her finger | the ring has a small diamond | {n} lost the wedding ring in the sea | he bought a silver ring for his fiancee | the thief took a ring and a necklace
    a place where boxers fight | the boxer climbed into the ring | both fighters met in the middle of the ring | {n} was knocked out in the ring | after twelve rounds he left the ring as champion | the referee stood in the ring between the boxers

    rock
    a kind of music | {n} plays rock on an electric guitar | the band mixes jazz and rock | rock was played at the festival all night | {n} prefers rock to opera | the radio station plays rock from the seventies
    a piece of stone | {n} threw a rock into the pond | the climber held on to the rock | a rock fell on the road | the ship hit a rock in the fog | {n} found a fossil inside the rock

    sink
    to go down in water | the boat began to sink in the storm | stones sink and wood floats | {n} watched the coin sink to the bottom | the ship will sink if it is overloaded | the wreck continued to sink into the mud
    a basin for washing | the dirty plates are in the sink | {n} washed the cup in the sink | the plumber repaired the sink | hot water ran into the kitchen sink | {n} brushed her teeth over the sink

    trunk
    the nose of an elephant | the elephant sprayed water with its trunk | the baby elephant held its mother's tail with its trunk | with its trunk the animal picked up a peanut | {n} touched the trunk of the elephant | the elephant raised its trunk and trumpeted
    the space for luggage in a car | {n} put the bags into the trunk of the car | the spare tyre is in the trunk | the trunk would not close because of the skis | police found stolen goods in the trunk of the taxi | {n} locked the trunk and drove off

    watch
    a small clock for the wrist | {n} looked at the watch and ran for the bus | the watch stopped at noon | {n} got a gold watch for his birthday | the strap of the watch is leather | her watch is five minutes slow
    to look at | {n} likes to watch birds in the garden | they watch the news every evening | the children watch the puppets dance | {n} went to watch the parade | we watch the sun go down

    wave
    a moving ridge of water | a wave knocked {n} off the surfboard | a huge wave hit the ship | the wave washed the sandcastle away | the surfer waited for the perfect wave | {n} jumped over a small wave at the beach
    a movement of the hand | {n} greeted me with a wave | the queen gave the crowd a friendly wave | with a wave of his hand he sent them away | the child answered with a shy wave | {n} said goodbye with a wave from the train

    yard
    the ground around a house | the children play in the yard | {n} parked the bicycle in the yard | the dog buried a bone in the yard | {n} swept the leaves in the yard | there is an apple tree in our yard
    a measure of length | {n} bought one yard of silk | a yard is three feet | the rope is a yard too short | {n} missed the target by a yard | the tailor needs another yard of cloth

    board
    a flat piece of wood | {n} nailed a board over the window | one board of the floor creaks | the shelf is a simple board | {n} sawed the board in half | a loose board fell off the fence
    the group that leads a company | the board fired the director | {n} was elected to the board | the board meets four times a year | the board approved the budget | {n} presented the plan to the board

    branch
    an arm of a tree | {n} sawed off a dead branch | a bird sang on the branch | the branch broke under the snow | an apple hung from the lowest branch | {n} tied the swing to a thick branch
    a local office of a company | the bank opened a branch in our town | {n} manages the branch in the north | the branch has only three employees | our branch is closed on Mondays | {n} was moved to another branch of the firm

    bulb
    a glass thing that gives light | {n} screwed in a new bulb | the bulb in the hall has burnt out | a bare bulb hung from the ceiling | the bulb flickered and went dark | {n} switched the lamp off before changing the bulb
    the root of some flowers | {n} planted a tulip bulb in the garden | the bulb sprouted in March | squirrels dug up the bulb | the bulb of a lily looks like an onion | {n} put each bulb ten centimetres into the soil

    bill
    a paper that says what to pay | {n} asked the waiter for the bill | the bill for the repair was high | {n} forgot to pay the phone bill | they shared the bill at the restaurant | the electricity bill arrived today
    the beak of a bird | the duck has a yellow bill | the pelican caught a fish in its bill | the bird cleaned its feathers with its bill | the bill of the toucan is huge | the goose nipped {n} with its bill

    cell
    a room in a prison | the prisoner was locked in a cell | {n} spent the night in a cell | the cell had a tiny window with bars | two men shared the cell in jail | the guard unlocked the cell
    the smallest part of a living thing | {n} looked at a blood cell under the microscope | every cell has a wall or membrane | the virus enters the cell | the cell divides in two | a nerve cell can be very long

    chest
    the front of the body | {n} felt a pain in the chest | the doctor listened to his chest | he crossed his arms over his chest | a medal was pinned on her chest | {n} has a broad chest and strong arms
    a large box | the pirates buried the chest of gold | {n} keeps old letters in a wooden chest | the lid of the chest was locked | the blankets are in the chest at the foot of the bed | {n} found a chest full of coins

    court
    a place where judges decide | the court found him guilty | {n} was called to court as a witness | the court will hear the case in May | the lawyer spoke before the court | the thief appeared in court
    a ground for playing | {n} booked the tennis court for an hour | the players walked onto the court | the basketball court has a new floor | {n} ran across the court to reach the ball | rain made the clay court slippery

    deck
    a floor of a ship | the sailors scrubbed the deck | {n} stood on the deck and looked at the sea | waves washed over the deck | the captain came on deck | {n} was seasick and stayed on the deck
    a set of playing cards | {n} shuffled the deck | the magician took a card from the deck | one ace is missing from the deck | {n} cut the deck and dealt | we need a second deck for this game

    glass
    something to drink from | {n} filled the glass with water | the waiter dropped a glass | {n} raised a glass and made a toast | there was lipstick on the glass | she drank a whole glass of juice
    the clear material of windows | the door is made of glass | {n} replaced the broken glass in the window | the roof of the station is steel and glass | light fell through the coloured glass of the church | the vase is blown from glass

    hood
    the part of a coat that covers the head | {n} pulled up the hood because of the rain | the jacket has a warm hood | the monk hid his face under a hood | her hood slipped off her hair | a hood protects the ears from the wind
    the cover of an engine | {n} opened the hood to check the engine | smoke came from under the hood of the car | the cat slept on the warm hood of the truck | the mechanic closed the hood | the stone dented the hood of the taxi

    horn
    a hard point on an animal's head | the goat hurt {n} with its horn | the rhino lost its horn in a fight | the bull has one broken horn | the ram scratched its horn on a tree | hunters kill the rhino for its horn
    a device that makes a warning sound | the driver blew the horn at the crossing | {n} pressed the horn of the car | the horn of the ship sounded in the fog | a loud horn startled the cyclist | the taxi driver honked his horn

    jam
    a sweet spread of fruit | {n} put jam on the toast | the jam is made from strawberries | a jar of jam stood on the breakfast table | {n} cooked jam from plums | the doughnut is filled with jam
    many cars that cannot move | {n} was stuck in a jam on the motorway | the accident caused a jam ten miles long | we sat in the jam for two hours | {n} missed the flight because of a jam | every Friday there is a jam on the bridge

    lead
    a heavy grey metal | the pipes were made of lead | lead is poisonous | {n} melted a piece of lead | the roof of the church is covered with lead | the diver wore a belt of lead
    a rope for a dog | {n} put the dog on the lead | the puppy pulled at its lead | dogs must be kept on a lead in the park | the lead slipped out of {n}'s hand and the dog ran off | {n} bought a collar and a lead

    log
    a piece of a tree | {n} put another log on the fire | the cabin was built log by log | a log floated down the river | {n} split the log with an axe | they sat on a log in the forest
    a record of what happened | the captain wrote the storm into the log | {n} keeps a log of every flight | the log shows who entered the building | the nurse noted the time in the log | the error was written to the log of the server

    mole
    an animal that digs | a mole dug tunnels under the lawn | the mole is almost blind | {n} saw a mole push up the earth | the garden was ruined by a mole | the mole eats worms under the ground
    a dark spot on the skin | {n} has a mole on her cheek | the doctor removed a mole from his back | the mole on his neck has grown | she hid the mole with make-up | a small mole above her lip made her famous

    note
    a short written message | {n} left a note on the fridge | the note said that dinner was ready | {n} passed a note to her neighbour in class | the thief left a note at the scene | she scribbled a note on a napkin
    a tone in music | the singer held the last note | {n} played a wrong note on the flute | the song begins on a low note | she could not reach the highest note | the trumpet repeated one note

    organ
    a part of the body | the heart is an organ | {n} needed a donor for the organ | the liver is the largest organ inside the body | surgeons transplanted the organ | the organ failed after the infection
    an instrument with pipes | {n} plays the organ in church | the organ has two thousand pipes | the sound of the organ filled the cathedral | a famous composer wrote music for the organ | {n} pressed the pedals of the organ

    pipe
    a tube for water or gas | the pipe under the street burst | {n} repaired a leaking pipe | gas flows through the pipe | the plumber replaced the pipe in the bathroom | water dripped from the pipe
    a thing for smoking tobacco | grandfather smoked a pipe after dinner | {n} filled the pipe with tobacco | the detective lit his pipe | the smell of his pipe hung in the room | {n} knocked the ash out of the pipe

    pool
    a place for swimming | {n} swam ten lengths in the pool | the hotel has a heated pool | the children jumped into the pool | the pool was drained in winter | the lifeguard sat beside the pool
    a game with balls and a cue | {n} played pool in the bar | they bet money on a game of pool | {n} is good at darts and pool | the pool table stood in the back room | he learned to play pool from his uncle

    sentence
    a punishment by a judge | the judge passed a sentence of five years | {n} served his sentence in prison | the sentence was reduced after an appeal | the thief got a mild sentence | {n} wept when the sentence was announced
    words that make a statement | {n} read the sentence aloud | the sentence has no verb | the teacher wrote a sentence on the blackboard | this sentence is too long, said the editor | {n} translated every sentence of the poem

    stamp
    a small paper on a letter | {n} stuck a stamp on the envelope | the stamp shows the queen | {n} collects every stamp from France | a rare stamp was sold for a fortune | the postcard was sent without a stamp
    to put the foot down hard | {n} began to stamp with anger | horses stamp when they are nervous | do not stamp on the floor, said the neighbour | the fans clap and stamp in the stadium | the children stamp through the puddles

    table
    a piece of furniture | {n} laid the plates on the table | the table has four legs | we sat around the table and ate | the cat jumped on the kitchen table | {n} booked a table by the window
    numbers in rows and columns | the table on page nine shows the prices | {n} added a column to the table | the results are listed in the table below | the table compares five countries | the figures in the first row of the table are wrong

    tie
    a strip of cloth around the neck | {n} wore a striped tie to the interview | he loosened his tie after work | the tie does not suit the shirt | {n} bought a silk tie for the wedding | the waiter straightened his tie
    an equal result | the game ended in a tie | a tie was enough for the team to stay first | the vote was a tie, ten to ten | after a tie they played another round | {n} scored late and saved a tie

    toast
    bread made brown by heat | {n} spread butter on the toast | the toast was burnt black | {n} eats two slices of toast for breakfast | the smell of toast came from the kitchen | he dipped the toast into the egg
    words said before drinking | {n} proposed a toast to the bride | everyone raised a glass for the toast | the best man gave a funny toast | after the toast they drank champagne | {n} ended the speech with a toast

    wood
    the material of trees | the chair is made of wood | {n} chopped wood for the stove | the door of solid wood was heavy | {n} carved a horse out of wood | wood burns better when it is dry
    a small forest | {n} got lost in the wood | foxes live in the wood behind the farm | a path leads through the wood | {n} picked mushrooms in the wood | the castle lies hidden in a dark wood

    cold
    an illness with a running nose | {n} caught a cold and stayed in bed | a cold spread through the whole class | {n} is sneezing because of a cold | the cold lasted for a week | honey and lemon help against a cold
    low temperature | {n} shivered from the cold | the cold froze the lake | we came in from the cold and made tea | the tent did not keep out the cold | plants must be protected from the cold

    bridge
    a way across water | {n} walked over the bridge | the bridge crosses the river | the old bridge was washed away | a train crossed the bridge | boats pass under the bridge
    a card game | {n} plays bridge every Tuesday | four people are needed for bridge | she learned bridge from a book of card games | they met for tea and a round of bridge | {n} and her partner won at bridge
    """
)
