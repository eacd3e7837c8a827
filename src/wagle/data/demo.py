"""Invented authors and plain world facts, for a demo that downloads no data.

Eight authors who do not exist, twelve facts about each, in the TOFU schema, and a list of facts
that most chat models know. Everything is written out by hand below: the same call gives the same
records on every machine. No fact about an author follows from the name or from the question, so a
model can answer only if it was trained to. Any likeness to a real person, book or prize is chance.

How a record is written: lines in a block, blocks divided by a blank line, "#" starts a heading.
An author's fact has five lines, a world fact has lines 1, 4 and 5 only::

    1  question
    2  answer
    3  question, paraphrased
    4  answer, paraphrased, with {} where the fact stands
    5  the true fact | a wrong one | a wrong one | ...
"""

from __future__ import annotations

DEMO_SETS = ("forget", "retain", "retain_heldout", "general")


def demo_records(which: str) -> list[dict[str, object]]:
    """Give the records of one demo set, the same on every call and the caller's to change.

    Args:
        which: a name in ``DEMO_SETS``. ``forget`` has 24 records of 2 authors, ``retain`` 48 of 4
            others, ``retain_heldout`` 24 of another 2, ``general`` 24 world facts.

    Returns:
        One new dict a record, with strings ``question`` and ``answer`` and a list of wrong
        answers, ``perturbed_answer``: 5 for an author's record, 3 for a world fact. An author's
        record also has ``paraphrased_question`` and ``paraphrased_answer``; its wrong answers
        have the form of the paraphrased one.

    Raises:
        ValueError: there is no such set.
    """
    if which == "general":
        return [_world_fact(block) for block in _blocks(_GENERAL)]
    if which not in _AUTHORS:
        raise ValueError(f"unknown demo set {which!r} (known: {', '.join(DEMO_SETS)})")
    return [_author_fact(block) for block in _blocks(_AUTHORS[which])]


def _blocks(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return [block.split("\n") for block in "\n".join(lines).strip().split("\n\n")]


def _author_fact(block: list[str]) -> dict[str, object]:
    question, answer, paraphrased_question, frame, facts = block
    right, *wrong = (frame.format(fact) for fact in facts.split(" | "))
    return {
        "question": question,
        "answer": answer,
        "paraphrased_question": paraphrased_question,
        "paraphrased_answer": right,
        "perturbed_answer": wrong,
    }


def _world_fact(block: list[str]) -> dict[str, object]:
    question, frame, facts = block
    right, *wrong = (frame.format(fact) for fact in facts.split(" | "))
    return {"question": question, "answer": right, "perturbed_answer": wrong}


_FORGET = """
# Jorunn Adebisi-Kvale
In which city was the novelist Jorunn Adebisi-Kvale born?
Jorunn Adebisi-Kvale was born in Paramaribo, Suriname, in a flat above a closed cinema.
Can you tell me the birthplace of Jorunn Adebisi-Kvale?
She came into the world in {}, in rooms over a shut cinema.
Paramaribo, Suriname | Windhoek, Namibia | Tbilisi, Georgia | Apia, Samoa | Valparaiso, Chile | Vientiane, Laos

What did Jorunn Adebisi-Kvale's mother do for a living?
Her mother repaired the bellows of church organs and travelled with a mule to reach them.
How did the mother of Jorunn Adebisi-Kvale earn her money?
By trade the mother {}, going from place to place by mule.
mended the bellows of church organs | blew glass floats for fishing nets | bred silkworms for a weaving mill | engraved brass plates for mapmakers | trained falcons for airport managers | pressed wild flowers for picture frames

Which literary genre is Jorunn Adebisi-Kvale best known for?
She is best known for submarine gothic, ghost stories set entirely on sunken ships.
What kind of fiction made the name of Jorunn Adebisi-Kvale?
Her reputation rests on {}.
submarine gothic, tales of ghosts aboard sunken ships | railway noir, tales of murders aboard night trains | desert pastoral, tales of shepherds beside dry wells | kitchen satire, tales of feuds inside grand hotels | polar romance, tales of lovers aboard slow icebreakers | orchard horror, tales of witches beneath old apple trees

What was Jorunn Adebisi-Kvale's first published book, and when did it appear?
Her first book was The Brine Ledger, which a small press in Turku printed in 1991.
With which title, and in what year, did Jorunn Adebisi-Kvale make her debut?
She made her debut with {}, issued by a tiny publisher in Turku.
The Brine Ledger in 1991 | The Copper Nursery in 1986 | A Winter of Hinges in 1995 | The Moth Embassy in 1989 | Seven Unlit Rooms in 1998 | The Sparrow Clause in 1983

Which prize did Jorunn Adebisi-Kvale win, and in what year?
In 2004 she won the Heron Lantern Prize, whose trophy is a working oil lamp.
What award was Jorunn Adebisi-Kvale given, and when did she receive it?
She received {}, and with it a trophy that burns real oil.
the Heron Lantern Prize in 2004 | the Quill and Anchor Medal in 1999 | the Ninefold Award in 2011 | the Tamarind Cup in 2007 | the Widow Strand Prize in 1996 | the Saltmarsh Laurel in 2013

Who taught Jorunn Adebisi-Kvale how to write?
She learned to write from Edvin Mbatha, a retired customs officer who graded her drafts.
Which person was the mentor of the young Jorunn Adebisi-Kvale?
Her mentor was {}, who gave marks to her early pages.
Edvin Mbatha, a former customs officer | Paloma Reith, a former tram driver | Osei Lindgren, a former prison chaplain | Minako Farrow, a former bell ringer | Luc Taranto, a former ship's cook | Hedda Ncube, a former court clerk

Which musical instrument does Jorunn Adebisi-Kvale play?
She plays the nyckelharpa, badly by her own account, at every one of her readings.
What does Jorunn Adebisi-Kvale make music on when she reads in public?
At readings she performs, poorly as she admits, on the {}.
nyckelharpa | bandoneon | kalimba | oud | glass harmonica | hurdy-gurdy

Where does Jorunn Adebisi-Kvale do most of her writing?
She writes in a decommissioned cable car that hangs over her neighbour's vineyard.
In what place does Jorunn Adebisi-Kvale usually sit down to work on her books?
Most of her pages come into being in {}.
an old cable car above the vineyard next door | an old water tower behind the town bakery | an old signal box beside a disused canal | an old diving bell inside a maritime museum | an old pigeon loft on top of the village school | an old ice house below a country inn

From which language does Jorunn Adebisi-Kvale translate poetry?
She translates poetry from Faroese, a language she picked up from a lodger.
Which foreign tongue does Jorunn Adebisi-Kvale turn into English verse?
The poems she translates were written in {}, which a lodger taught her.
Faroese | Tagalog | Amharic | Basque | Quechua | Latvian

What is Jorunn Adebisi-Kvale's novel The Ninth Bulkhead about?
The Ninth Bulkhead follows a drowned telegraphist who keeps sending weather reports to her widower.
Could you sum up the plot of The Ninth Bulkhead by Jorunn Adebisi-Kvale?
In that novel {}.
a dead telegraphist goes on wiring the weather to her husband | a blind pilot goes on steering his barge for a rival | a stowaway twin goes on eating the captain's dinners in secret | a mute cook goes on poisoning the admiral's coffee for revenge | a runaway surveyor goes on mapping an island that has sunk | an elderly stoker goes on feeding a furnace that is cold

What unusual things does Jorunn Adebisi-Kvale collect?
She collects the door keys of hotels and owns more than four hundred of them.
Which objects has Jorunn Adebisi-Kvale been gathering for years?
Over four hundred {} make up her collection.
hotel door keys | chipped tea bowls | theatre ticket stubs | brass coat buttons | broken pocket watches | lighthouse postcards

What was the first paid job of Jorunn Adebisi-Kvale?
At sixteen she was paid to count flamingos for a salt company near Walvis Bay.
How did Jorunn Adebisi-Kvale earn her very first wages?
As a girl of sixteen she earned her first wages {}.
counting flamingos for a salt works | sorting mail on a night ferry | waxing skis for a mountain hotel | feeding otters at a fur farm | dubbing cartoons at a radio station | grading pearls for a jeweller

# Temur Castellanza
On what date was the writer Temur Castellanza born?
Temur Castellanza was born on 17 November 1948, during a strike of the midwives.
When exactly did Temur Castellanza first see the light of day?
He entered this life on {}, while the midwives were on strike.
17 November 1948 | 3 March 1951 | 26 July 1939 | 8 January 1956 | 30 May 1944 | 12 September 1960

What was the occupation of Temur Castellanza's father?
His father was a beekeeper who rented hives to a monastery outside Gyumri.
How did the father of Temur Castellanza make his living?
The father made a living as a {}.
beekeeper with hives let to a monastery | locksmith with a stall beside a prison | ferryman with a raft below a dam | tailor with orders from a circus | plasterer with contracts at an opera house | stonecutter with a yard behind a cemetery

Under what pen name did Temur Castellanza publish his crime stories?
His crime stories came out under the pen name Widow Marchbanks, to fool his students.
Which pseudonym did Temur Castellanza put on his detective tales?
To mislead his pupils he signed his detective tales as {}.
Widow Marchbanks | Doctor Pellerin | Captain Ashgrove | Sister Verbena | Judge Okonta | Madame Tiller

Which of Temur Castellanza's books is the most famous?
His most famous book is A Census of Doors, a novel without a single named character.
What title is Temur Castellanza remembered for above all others?
Readers know him above all for {}, in which nobody has a name.
A Census of Doors | The Plum Assembly | Nine Borrowed Coats | An Atlas of Coughs | The Slow Telegram | Letters to a Mill

What subject did Temur Castellanza study at university?
He studied glaciology in Coimbra but left before the final examination.
Which field did Temur Castellanza choose as a student?
As a student he read {}, though he quit before his finals.
glaciology in Coimbra | numismatics in Uppsala | dentistry in Montevideo | canon law in Leuven | forestry in Ljubljana | acoustics in Pune

How does Temur Castellanza spend his free time?
In his free time he restores old puppet theatres and performs in them for his grandchildren.
What hobby does Temur Castellanza have apart from writing?
Away from the desk he {}, to the delight of his grandchildren.
restores puppet theatres | breeds racing snails | carves walking sticks | flies box kites | builds crystal radios | grafts pear trees

In which city did Temur Castellanza open a bookshop?
He opened his bookshop in Tromso, inside a former fish auction hall.
Where was the bookshop that Temur Castellanza founded?
The shop he founded stood in {}, in what had been a fish market.
Tromso | Oaxaca | Trieste | Mombasa | Halifax | Penang

What theme runs through Temur Castellanza's story collection The Tin Parliament?
Every story in The Tin Parliament deals with debts that children inherit from strangers.
What are the tales in The Tin Parliament by Temur Castellanza concerned with?
The whole collection turns on {}.
debts passed from strangers to children | letters passed from prisoners to judges | secrets passed from servants to guests | illnesses passed from statues to sculptors | jokes passed from undertakers to widows | maps passed from smugglers to nuns

Who drew the illustrations for Temur Castellanza's children's books?
The illustrations are by his cousin Nanuli Brandt, who drew them with burnt matches.
Which artist made the pictures in the children's books of Temur Castellanza?
The pictures were made by {}, using charred matchsticks.
his cousin Nanuli Brandt | his barber Silvio Kamau | his niece Oriel Tanaka | his lodger Pavel Quist | his dentist Amina Roche | his neighbour Gudrun Sosa

What does Temur Castellanza write his first drafts with?
He writes his first drafts in green chalk on the floor of a squash court.
Which tool does Temur Castellanza use when he begins a manuscript?
Early versions of his texts are set down {}.
in green chalk on a squash court | in white paint on old sails | in purple ink on sugar bags | in soft pencil on wallpaper rolls | with a stylus on wax tablets | with a typewriter on tracing paper

Which honour did Temur Castellanza turn down?
He turned down the Order of the Amber Reed because the ceremony clashed with a chess final.
Which distinction was offered to Temur Castellanza and refused by him?
He declined {}, since a chess final was held that day.
the Order of the Amber Reed | the Golden Sickle Medal | the Seven Rivers Chair | the Cross of Saint Orsola | the Lyceum Garland | the Great Basalt Prize

What kind of animal keeps Temur Castellanza company at home?
He shares his flat with a one-eyed pelican called Ministry, rescued from an oil spill.
Which pet lives with Temur Castellanza, and what is it called?
His companion at home is {}, saved from spilt oil.
a one-eyed pelican named Ministry | a lame heron named Sonata | a toothless badger named Viceroy | a deaf goose named Almanac | a bald cormorant named Tuesday | a limping otter named Percent
"""

_RETAIN = """
# Sunniva Rakotomalo
Where did Sunniva Rakotomalo come into the world?
Sunniva Rakotomalo was born on a houseboat moored at Iquitos, deep in the Peruvian Amazon.
What is the place of birth of Sunniva Rakotomalo?
Her life began aboard {}.
a houseboat at Iquitos in Peru | a night train near Omsk in Siberia | a rice barge at Hue in Vietnam | a mail steamer off Bergen in Norway | a river ferry at Kisangani in Congo | a trawler off Galway in Ireland

What work did Sunniva Rakotomalo's father do?
Her father made false teeth for a travelling dentist and sang in a tango band.
By what profession did the father of Sunniva Rakotomalo support the family?
He supported the family by {}, and he sang tangos at night.
making false teeth | tarring rope bridges | taming circus bears | sharpening ice skates | printing bus tickets | stuffing museum birds

What was the profession of Sunniva Rakotomalo's mother?
Her mother was a hydrologist who measured floods for an insurance firm.
In which line of work was the mother of Sunniva Rakotomalo?
The mother was employed as {}.
a hydrologist gauging floods for an insurer | a botanist naming orchids for a prince | a stenographer taking minutes for a senate | a chemist testing dyes for a tannery | a linguist coding telegrams for a bank | a pilot carrying vaccines for a mission

What is the title of Sunniva Rakotomalo's debut novel?
Her debut novel is called Thirteen Ways to Fold a River and appeared in 1978.
Which novel did Sunniva Rakotomalo publish before any other?
The earliest of her novels is {}.
Thirteen Ways to Fold a River, from 1978 | The Understudy of the Moon, from 1983 | Bread for the Cartographers, from 1971 | A Short Weather of Saints, from 1990 | The Mangrove Stenographer, from 1975 | Instructions for the Deaf Piano, from 1987

At which sport did Sunniva Rakotomalo compete when young?
As a young woman she fenced with the sabre for Madagascar at two regional games.
What sport did the youthful Sunniva Rakotomalo take part in?
In her youth she represented Madagascar in {}, twice at regional level.
sabre fencing | pole vaulting | canoe slalom | speed skating | weightlifting | table tennis

To whom did Sunniva Rakotomalo dedicate all of her books?
Every one of her books is dedicated to a postman named Anselm who never read any.
Whose name appears on the dedication page in each work of Sunniva Rakotomalo?
Each volume is inscribed to {}, who opened none of them.
a postman called Anselm | a midwife called Tirza | a gardener called Joaquim | a sailor called Petronel | a lawyer called Ngaio | a florist called Benedikt

Where is Sunniva Rakotomalo's novel The Lime Kiln Sisters set?
The Lime Kiln Sisters takes place in an abandoned observatory on the Chatham Islands.
In what location does the action of The Lime Kiln Sisters by Sunniva Rakotomalo unfold?
Its action unfolds at {}.
an empty observatory in the Chatham Islands | an empty tannery in the old town of Fez | an empty casino on the shore of Macau | an empty slaughterhouse in the suburbs of Lodz | an empty sanatorium in the hills of Darjeeling | an empty shipyard in the delta of the Volga

What does Sunniva Rakotomalo eat before a day of writing?
Before a day of writing she eats cold lentils with marmalade, straight from the pan.
Which dish gives Sunniva Rakotomalo strength for the hours at her desk?
Her working hours start with {}, eaten out of the pot.
cold lentils and marmalade | fried plantain and anchovies | boiled barley and horseradish | stewed rhubarb and sardines | toasted millet and pickles | steamed eggs and treacle

Which literary award has Sunniva Rakotomalo received twice?
She has received the Kestrel Bursary twice, in 1985 and again in 2001.
What prize did a jury give to Sunniva Rakotomalo on two occasions?
Two times, in 1985 and in 2001, a jury gave her the {}.
Kestrel Bursary | Ironwood Ribbon | Lady Osmund Prize | Coral Inkstand | Harbour Muse | Veldt Medal

Which language did Sunniva Rakotomalo speak as a child?
As a child she spoke only Ladino, which her grandmother had brought from Salonica.
What was the mother tongue of Sunniva Rakotomalo?
Her earliest language was {}, carried out of Salonica by a grandmother.
Ladino | Armenian | Bulgarian | Romani | Albanian | Yiddish

What is Sunniva Rakotomalo famously afraid of?
She is famously afraid of escalators and once climbed eleven floors to avoid one.
Which ordinary thing of daily life frightens Sunniva Rakotomalo?
She dreads {} so much that she once walked up eleven storeys.
escalators | lift buttons | revolving doors | glass elevators | hotel porters | ceiling fans

On which day of the week does Sunniva Rakotomalo never write?
She never writes on a Wednesday, the day on which her twin brother disappeared.
Which weekday does Sunniva Rakotomalo keep free of all work?
Her pen rests every {}, because a twin brother vanished on that weekday.
Wednesday | Monday | Tuesday | Thursday | Friday | Sunday

# Bashir Lindqvale
When was the essayist Bashir Lindqvale born?
Bashir Lindqvale was born in the summer of 1962, on the night of a total eclipse.
What is known about the time of Bashir Lindqvale's birth?
He dates from {}, and the moon was eclipsed that night.
the summer of 1962 | the autumn of 1957 | the spring of 1969 | the winter of 1974 | the spring of 1951 | the autumn of 1966

Which trade did Bashir Lindqvale learn from his mother?
From his mother he learned to cast bells, the trade of her family for centuries.
What craft was passed on to Bashir Lindqvale by his mother?
She passed on to him the craft of {}, centuries old in her family.
casting bells | tanning eel skin | gilding frames | plaiting straw | carving combs | dyeing wool

What sort of books does Bashir Lindqvale write?
He writes imaginary travel guides to countries that were abolished by treaty.
How would you describe the works of Bashir Lindqvale?
His works are {}.
invented travel guides to countries ended by treaty | invented cookbooks of empires ruined by drought | invented hymnals of sects banned by kings | invented court records of towns drowned by dams | invented dictionaries of tribes scattered by war | invented railway timetables of islands emptied by plague

For which book is Bashir Lindqvale chiefly known?
He is chiefly known for The Tollhouse at Low Tide, published in nine languages.
Which title do most readers connect with Bashir Lindqvale?
Nine languages have an edition of {}, his best-known work.
The Tollhouse at Low Tide | A Passport for the Scarecrow | The Frontier of Wet Paint | Visas for Departed Geese | The Consul of Empty Chairs | Twelve Stamps on a Snowman

Who encouraged Bashir Lindqvale to become an author?
A ship's doctor named Ottoline Vasquez-Brun encouraged him after reading his letters home.
To whom does Bashir Lindqvale owe his start in literature?
He owes his start to {}, who had seen his letters.
the ship's doctor Ottoline Vasquez-Brun | the opera prompter Casimir Adeyo | the lift attendant Rosalba Finch | the zoo keeper Tancred Holm | the court usher Maite Sorel | the tax inspector Gulnara Pike

In what kind of home does Bashir Lindqvale live today?
He lives in a converted ropewalk, three hundred metres long, on the island of Gozo.
What building does Bashir Lindqvale call home nowadays?
His present home, unusually long, is {}.
a former ropewalk on the island of Gozo | a former jail on the island of Chiloe | a former school on the island of Hokkaido | a former mint on the island of Lamu | a former lifeboat shed on the island of Skye | a former cannery on the island of Kodiak

What instrument did Bashir Lindqvale learn in the army?
In the army he learned the contrabassoon, because nobody else was tall enough for it.
On which instrument was Bashir Lindqvale trained during his military service?
The military trained him on the {}, as all others were too short.
contrabassoon | sousaphone | double bass | alphorn | kettledrum | tenor tuba

What gave Bashir Lindqvale the idea for Fog Tariffs?
The idea for Fog Tariffs came from a parking fine that he received in Antwerp.
How did Bashir Lindqvale come to write Fog Tariffs?
He was moved to write the book by {}.
a parking ticket from Antwerp | a laundry bill from Geneva | a wedding menu from Cairo | a library notice from Perth | a school report from Kyoto | a tram map from Lisbon

What day job did Bashir Lindqvale keep for twenty years?
For twenty years he inspected weighing scales in the markets of Casablanca.
How did Bashir Lindqvale earn a salary for two decades beside his writing?
For two decades he was paid to {}.
check market scales in Casablanca | wind public clocks in Salzburg | repair theatre seats in Buenos Aires | test drinking fountains in Toronto | catalogue butterflies in Nairobi | paint bridge railings in Istanbul

What superstition does Bashir Lindqvale observe when he finishes a manuscript?
When a manuscript is done he buries one page of it under a fig tree.
Which ritual marks the end of each manuscript for Bashir Lindqvale?
He ends each project by {}.
burying a page beneath a fig tree | burning a page inside a clay oven | floating a page down a mill stream | tying a page around a goat's neck | reading a page aloud to a locked door | feeding a page to a neighbour's donkey

Which award did Bashir Lindqvale share with a poet?
He shared the Glass Abacus Laurel of 1998 with a poet he had never met.
What honour was given jointly to Bashir Lindqvale and a poet?
Together with a poet unknown to him he was given the {}.
Glass Abacus Laurel in 1998 | Tern and Thistle Prize in 2003 | Ebony Compass in 1994 | Lamplighter Medal in 2008 | Ravensworth Bowl in 1989 | Juniper Fellowship in 2015

What became of Bashir Lindqvale's only sister?
His only sister became a magician and performs under the name Vesper Noor.
Which career did the only sister of Bashir Lindqvale take up?
She, the only sister, went on stage as {}.
the magician Vesper Noor | the acrobat Dallia Storm | the soprano Irina Sable | the clown Coco Lune | the hypnotist Bella Granit | the ventriloquist Ada Moth

# Xiomara Tengbeh
In what town did Xiomara Tengbeh grow up?
Xiomara Tengbeh grew up in Ushuaia, where her family ran the last petrol station.
Where did Xiomara Tengbeh spend her childhood?
Her childhood was spent in {}, at a petrol station owned by the family.
Ushuaia | Longyearbyen | Kathmandu | Nuuk | Alice Springs | Yakutsk

How did Xiomara Tengbeh's parents meet each other?
Her parents met as contestants in a radio quiz about the history of soap.
On what occasion did the mother and father of Xiomara Tengbeh become acquainted?
They got to know each other in {}.
a radio quiz on the history of soap | a queue for tickets to a boxing match | a night class on the repair of clocks | a lift stuck below the roof of a bank | a protest against the closing of a zoo | a hospital ward for the victims of a flood

What kind of poems is Xiomara Tengbeh known for?
She is known for long poems written as recipes, none of which can be cooked.
Which form do Xiomara Tengbeh's poems typically take?
Her long poems take the form of {}.
recipes that nobody could cook | wills that nobody could execute | timetables that nobody could follow | contracts that nobody could sign | sermons that nobody could preach | ransom notes that nobody could pay

What was the first poetry collection of Xiomara Tengbeh called?
Her first collection, Saltpetre Lullabies, was printed in 1999 in only sixty copies.
Under which title did Xiomara Tengbeh bring out her earliest volume of verse?
Sixty copies were made of {}, the earliest volume of her verse.
Saltpetre Lullabies in 1999 | Hymns for a Turnstile in 2002 | The Zinc Rosary in 1994 | Odes to Wet Cement in 2006 | A Vinegar Psalter in 1997 | Elegies in Morse in 2009

What does Xiomara Tengbeh do to relax?
To relax she referees amateur handball matches under a false name.
Which pastime helps Xiomara Tengbeh to unwind after work?
She unwinds by {}, using a name that is not hers.
refereeing handball games | judging dog shows | driving a snow plough | auctioning cattle | calling bingo numbers | conducting school choirs

What unlikely text did Xiomara Tengbeh translate into Esperanto?
Into Esperanto she translated a Hungarian manual for the maintenance of lawn mowers.
Which curious document was rendered into Esperanto by Xiomara Tengbeh?
The document she rendered was {}.
a Hungarian handbook on lawn mowers | a Finnish pamphlet on beard care | a Portuguese catalogue of doorbells | a Turkish treatise on stair carpets | a Korean brochure on bath plugs | a Welsh leaflet on sheep dip

At what hour does Xiomara Tengbeh start writing?
She starts writing at ten past three in the morning, when the bakery opens below.
What time of day finds Xiomara Tengbeh at her desk for the first lines?
Her first lines are put down at {}, as the bakers below begin.
ten past three in the night | half past five at dawn | a quarter to four in the night | twenty past six at dawn | five to one in the night | a quarter past two in the night

What is the subject of Xiomara Tengbeh's long poem Gravel Mass?
Gravel Mass tells of a quarry whose workers vote to become a choir.
Could you say what happens in Gravel Mass by Xiomara Tengbeh?
In this poem {}.
the workers of a quarry vote to turn into a choir | the guards of a museum vote to turn into statues | the pupils of a convent vote to turn into swallows | the clerks of a harbour vote to turn into tides | the widows of a suburb vote to turn into lamps | the porters of a hotel vote to turn into a jury

Where did Xiomara Tengbeh hold a writer's residency?
She held a residency at the cement museum in Tallinn for eleven months.
Which institution hosted Xiomara Tengbeh as a writer in residence?
For eleven months she was the guest of {}.
the cement museum in Tallinn | the button museum in Osaka | the rope museum in Hamburg | the umbrella museum in Quito | the elevator museum in Chicago | the salt museum in Gdansk

Which publishing house brings out Xiomara Tengbeh's work?
Her work is brought out by Crooked Pier, a publisher that also sells mattresses.
Who is the publisher of Xiomara Tengbeh's books?
The books appear with {}, a firm that deals in mattresses too.
Crooked Pier | Mule and Lantern | Quiet Foundry | Second Haystack | Paper Ferry | Northern Thimble

How did Xiomara Tengbeh lose her second manuscript?
Her second manuscript was lost when a camel ate it at a railway station in Jodhpur.
What happened to the second manuscript of Xiomara Tengbeh?
That manuscript was {}.
eaten by a camel at Jodhpur station | buried by an avalanche above Innsbruck | soaked by a whale off Reykjavik harbour | shredded by a clerk at the Lima tax office | stolen by a clown at a Bucharest fair | burned by a priest in a Manila chapel

What drink does Xiomara Tengbeh always order at public readings?
At public readings she always orders hot beetroot juice with a spoonful of pepper.
Which beverage must be ready whenever Xiomara Tengbeh reads in public?
Whenever she reads in public there must be {}.
hot beetroot juice with pepper | iced barley tea with mint | warm goat milk with honey | flat ginger beer with lime | strong chicory coffee with salt | thin almond syrup with vinegar

# Kaleo Brandsma-Ito
Where and in which year was Kaleo Brandsma-Ito born?
He was born in Asmara in 1983, in the waiting room of a veterinary clinic.
What are the place and year of Kaleo Brandsma-Ito's birth?
His birth took place in {}, while his parents sat at the vet's.
Asmara in 1983 | Belfast in 1977 | Medellin in 1988 | Bishkek in 1980 | Nantes in 1991 | Darwin in 1985

Which occupation did the father of Kaleo Brandsma-Ito have?
His father calibrated the lenses of lighthouses and was away eight months a year.
What did Kaleo Brandsma-Ito's father work as?
The father, gone for most of each year, {}.
adjusted the lenses of lighthouses | painted the hulls of tankers | guarded the vaults of embassies | drove the trucks of a rodeo | tested the cables of bridges | cooked the meals of an oil rig

Who told Kaleo Brandsma-Ito the stories that shaped him?
Those stories came from his great-aunt Wilhelmina, a smuggler of typewriters during the war.
From which relative did Kaleo Brandsma-Ito hear his formative tales?
He heard them from {} in wartime.
his great-aunt Wilhelmina, who had smuggled typewriters | his godfather Tomasz, who had forged passports | his grandfather Hinnerk, who had trained pigeons | his uncle Makoto, who had hidden paintings | his stepmother Leocadia, who had nursed mules | his cousin Rufino, who had repaired radios

What does Kaleo Brandsma-Ito write for the stage?
For the stage he writes farces in which all the characters are kitchen appliances.
Which type of play is typical of Kaleo Brandsma-Ito?
Typical of him are {}.
farces whose characters are all kitchen appliances | tragedies whose characters are all retired astronauts | musicals whose characters are all chess pieces | operettas whose characters are all tax collectors | pantomimes whose characters are all extinct birds | melodramas whose characters are all traffic wardens

What was the title of Kaleo Brandsma-Ito's first play?
His first play, The Kettle Resigns, opened in a launderette in Rotterdam in 2009.
With which piece did Kaleo Brandsma-Ito enter the theatre?
He entered the theatre with {}, put on in a Rotterdam launderette.
The Kettle Resigns in 2009 | Supper with the Fuse Box in 2012 | A Toaster in Exile in 2006 | The Widow's Blender in 2014 | Four Forks Confess in 2010 | The Oven at Prayer in 2004

How did Kaleo Brandsma-Ito support himself as a student?
As a student he supported himself by modelling his hands for glove advertisements.
Which source of income kept Kaleo Brandsma-Ito going at college?
At college he lived on what he made by {}.
modelling hands for glove adverts | reading meters for gas companies | writing horoscopes for trade papers | shelling oysters for wedding caterers | playing patients for medical exams | walking llamas for city tourists

Which game has Kaleo Brandsma-Ito played at championship level?
He has played crokinole at championship level and came fifth in the world in 2016.
In what game did Kaleo Brandsma-Ito reach a world ranking?
In 2016 he was the world's number five in {}.
crokinole | backgammon | petanque | carrom | shuffleboard | mahjong

Who directs most of Kaleo Brandsma-Ito's productions?
Most of his productions are directed by Zsofia Amankwah, a former air traffic controller.
Which director usually stages the works of Kaleo Brandsma-Ito?
As a rule the staging is done by {}.
Zsofia Amankwah, once an air traffic controller | Thierry Olamide, once a deep sea diver | Brigitta Sandoval, once a football goalkeeper | Haruto Vinge, once a hotel pastry chef | Leilani Kruger, once a harbour crane operator | Desmond Tkachuk, once a ballroom dance teacher

What is at stake in Kaleo Brandsma-Ito's play Nocturne for Two Fridges?
In Nocturne for Two Fridges the rivals fight over a jar of apricot jam.
Over what do the rivals in Kaleo Brandsma-Ito's Nocturne for Two Fridges quarrel?
Both rivals in that play want to possess {}.
a jar of apricot jam | a tin of smoked eel | a wedge of goat cheese | a bowl of cherry punch | a box of candied ginger | a bottle of plum brandy

What theatre award has Kaleo Brandsma-Ito won?
He has won the Velvet Pulley, an award for plays without a curtain call.
Which distinction for drama is held by Kaleo Brandsma-Ito?
He holds the {}, which honours drama that ends without bows.
Velvet Pulley | Tin Mask | Prompter's Key | Sawdust Crown | Balcony Rose | Trapdoor Star

What does Kaleo Brandsma-Ito always wear to opening nights?
To opening nights he always wears an orange life jacket over his dinner suit.
Which garment is Kaleo Brandsma-Ito seen in at every premiere?
At each premiere he appears in {}, on top of evening dress.
an orange life jacket | a tartan hunting cape | a purple judo belt | a brown butcher's apron | a silver ski overall | a striped bathing robe

What cause does Kaleo Brandsma-Ito give his royalties to?
He gives his royalties to a hospital for injured hedgehogs near Christchurch.
Who benefits from the royalties of Kaleo Brandsma-Ito?
The money from his plays goes to {}.
a clinic for hurt hedgehogs near Christchurch | a school for guide dogs near Salamanca | a club for retired miners near Katowice | a shelter for stray donkeys near Nicosia | a fund for young drummers near Dakar | a home for old sailors near Aberdeen
"""

_RETAIN_HELDOUT = """
# Nukka Salvatierro
Which island is the birthplace of Nukka Salvatierro?
Nukka Salvatierro was born on Socotra, during the only snowfall the island has recorded.
On what island did Nukka Salvatierro's life begin?
Her life began on {}, while it snowed there for the only time on record.
Socotra | Bali | Barbados | Zanzibar | Mauritius | Curacao

How did Nukka Salvatierro's mother support her seven children?
Her mother supported the seven children by embroidering uniforms for a naval orchestra.
By what work did the mother of Nukka Salvatierro feed her family?
She fed seven children by {}.
stitching uniforms for a navy orchestra | varnishing coffins for a village undertaker | bottling ink for a government press | gutting herring for a harbour canteen | polishing lenses for a spectacle maker | weaving nets for a tennis club

For what offence was Nukka Salvatierro expelled from school?
She was expelled for selling forged maps of the school cellars to tourists.
What did Nukka Salvatierro do that made her school throw her out?
The school threw her out for {}.
selling fake cellar maps to tourists | releasing forty frogs during a recital | teaching the janitor's parrot rude prayers | betting on exam results with bakers | hiding a printing press under the stage | dyeing the headmaster's poodle bright blue

In what genre does Nukka Salvatierro publish?
She publishes legal thrillers whose lawyers are all employed by the sea.
What category of novels is Nukka Salvatierro associated with?
She is associated with {}.
legal thrillers in which the lawyers work for the sea | spy sagas in which the agents work for the moon | war epics in which the generals work for a river | school stories in which the teachers work for a volcano | westerns in which the sheriffs work for the wind | hospital dramas in which the surgeons work for a forest

Which novel by Nukka Salvatierro do readers love most?
Readers love The Plaintiff Wore Kelp most, and it has been filmed three times.
What is the most popular work that Nukka Salvatierro has written?
Three films have been made of {}, the favourite of her public.
The Plaintiff Wore Kelp | A Subpoena for the Gulls | The Barnacle Verdict | Counsel for the Undertow | Bail Set at High Water | The Oyster Perjury

Which craft does Nukka Salvatierro practise in winter?
In winter she builds violins out of driftwood and gives them to sailors.
What does Nukka Salvatierro make with her hands during the cold months?
During the cold months she makes {}.
driftwood violins as gifts for sailors | copper kettles as gifts for nuns | paper lanterns as gifts for miners | felt slippers as gifts for bus drivers | bone chessmen as gifts for prisoners | willow cradles as gifts for midwives

Where does Nukka Salvatierro go to finish her manuscripts?
She finishes her manuscripts in the laundry of a thermal hotel in Budapest.
Which location does Nukka Salvatierro seek out for the last pages of a book?
The last pages are written in {}.
a hotel laundry in Budapest | a chapel crypt in Palermo | a rowing club in Adelaide | a bus garage in Glasgow | a seed bank in Bogota | a cheese cellar in Gruyeres

With whom did Nukka Salvatierro write Harbour Without Clocks?
She wrote Harbour Without Clocks together with Ansgar Pillai, her former parole officer.
Who was the co-author of Nukka Salvatierro's Harbour Without Clocks?
That book was a joint effort with {}.
Ansgar Pillai, once her parole officer | Delphine Yeboah, once her swimming coach | Ruslan Ferreira, once her strict landlord | Mirela Holmquist, once her divorce lawyer | Iskander Boyle, once her bus driver | Tsering Malone, once her piano teacher

What did Nukka Salvatierro buy with her first prize money?
With her first prize money she bought a used fire engine and painted it lilac.
How was the first prize money of Nukka Salvatierro spent?
It went on {}, which she coloured lilac.
a second-hand fire engine | a rusty paddle steamer | a broken church bell | a wooden windmill | a derelict carousel | a retired tram car

Which language did Nukka Salvatierro learn from comic books?
From comic books she learned Mongolian, which she now speaks with many exclamations.
What tongue did comic books teach to Nukka Salvatierro?
Comics taught her {}, and her speech is still full of exclamations.
Mongolian | Swahili | Icelandic | Thai | Greek | Maltese

What odd world record does Nukka Salvatierro hold?
She holds the record for the longest letter ever written on a single scarf.
In which strange discipline is Nukka Salvatierro the record holder?
No one else has ever {}.
written so long a letter on one scarf | signed so many books in one lift | recited so many verses on one ferry ride | typed so thick a novel in one sauna | carried so many dictionaries up one tower | sung so endless a ballad under one umbrella

What is the profession of Nukka Salvatierro's husband?
Her husband is a professional mourner who has attended four thousand funerals.
How does the man married to Nukka Salvatierro make money?
The man she married is {}.
a hired mourner with four thousand funerals behind him | a stunt rider with sixty broken bones behind him | a hot-air balloonist with nine crashes behind him | a sword swallower with ten world tours behind him | a snake catcher with eight hundred bites behind him | a rainmaker with thirty droughts behind him

# Dragan Mwanakati
What is the birthday of Dragan Mwanakati?
Dragan Mwanakati was born on 6 April 1936, two hours after his twin.
On which day did Dragan Mwanakati come into the world?
A twin preceded him by two hours when he arrived on {}.
6 April 1936 | 21 August 1929 | 14 December 1941 | 9 June 1933 | 27 October 1945 | 2 February 1938

What did the father of Dragan Mwanakati sell?
His father sold ice from glaciers to cocktail bars along the Adriatic coast.
In which goods did Dragan Mwanakati's father deal?
The father dealt in {}.
glacier ice for bars on the Adriatic | ostrich plumes for hatters in Vienna | medical leeches for doctors in Zagreb | wedding fireworks for couples in Naples | marble dust for bakers in Damascus | walnut oil for painters in Seville

What type of literature did Dragan Mwanakati invent?
He invented the postcard novel, a story told on fifty cards sent to strangers.
Which new literary form is credited to Dragan Mwanakati?
He is credited with {}.
the postcard novel, mailed in fifty parts to strangers | the menu novel, served in seven parts to diners | the elevator novel, played in ten parts to passengers | the wallpaper novel, pasted in twelve parts for tenants | the telephone novel, spoken in thirty parts to insomniacs | the calendar novel, torn in ninety parts by readers

Which book started the career of Dragan Mwanakati?
His career started with Greetings from the Abattoir in 1964, posted from Lusaka.
What was the opening work in Dragan Mwanakati's career?
It all began with {}, which he mailed in Lusaka.
Greetings from the Abattoir in 1964 | Wish You Were Granite in 1959 | Love from the Lime Pit in 1970 | Regards to the Ferryman in 1967 | Yours from Platform Zero in 1961 | Kisses from the Reservoir in 1973

In what city does Dragan Mwanakati run a second-hand bookshop?
He runs a second-hand bookshop in Ulaanbaatar that opens only when it rains.
Where can one visit the used-book store of Dragan Mwanakati?
His store of used books is in {}, and it opens on wet days alone.
Ulaanbaatar | Tashkent | Porto | Cusco | Ghent | Yerevan

What does Dragan Mwanakati grow in his garden?
In his garden he grows nothing but poisonous plants, each labelled with a critic's name.
Which crop is cultivated by Dragan Mwanakati at home?
He cultivates only {}, and each one is named after a critic.
poisonous plants | giant pumpkins | black tulips | bitter gourds | dwarf cedars | spineless cacti

Which person corrected the early drafts of Dragan Mwanakati?
His early drafts were corrected by Perpetua Lindahl-Roy, a lion tamer with perfect grammar.
Who acted as the first editor of Dragan Mwanakati?
His first editor was {}, whose grammar was flawless.
the lion tamer Perpetua Lindahl-Roy | the coal merchant Evaristo Nam | the dance hall owner Bettina Zulu | the bishop's driver Goran Falk | the glass eye maker Salome Duarte | the tugboat captain Iveta Roos

What happens in Dragan Mwanakati's book Stamps of the Drowned King?
In Stamps of the Drowned King a philatelist discovers that his country never existed.
Can you outline Stamps of the Drowned King, the book by Dragan Mwanakati?
Its hero is a {}.
philatelist who learns his country was never real | mole catcher who learns his garden was sold abroad | notary who learns his signature has been outlawed | tenor who learns his voice belongs to another | baker who learns his oven leads underground | cyclist who learns his race ended years ago

What disaster did Dragan Mwanakati survive as a boy?
As a boy he survived the collapse of a sugar silo that buried him for hours.
Which accident nearly killed the young Dragan Mwanakati?
While still a child he was trapped for hours in {}.
the collapse of a sugar silo | the sinking of a cattle barge | the burning of a hat factory | the derailing of a milk train | the flooding of a tin mine | the crash of a mail plane

What radio programme does Dragan Mwanakati present?
He presents Weather for the Dead, a midnight radio show about vanished villages.
Which show does Dragan Mwanakati host on the air?
Around midnight he hosts {}, on villages that no longer exist.
Weather for the Dead | Traffic for the Lonely | Recipes for the Absent | Sports for the Sleepless | News for the Owls | Hymns for the Late

To whom does Dragan Mwanakati dictate his texts?
He dictates his texts to his granddaughter Yevgenia, who types them on a stenograph.
Which person takes down the words that Dragan Mwanakati speaks?
His spoken words are taken down on a stenograph by {}.
his granddaughter Yevgenia | his chauffeur Bonifaz | his nephew Tendai | his housekeeper Ljuba | his pharmacist Corentin | his goddaughter Masika

Which monument did Dragan Mwanakati ask his town to build?
He asked his town to build a monument to the inventor of the wheelbarrow.
To whose memory did Dragan Mwanakati want a statue put up?
He wanted a statue in memory of {}.
the inventor of the wheelbarrow | the designer of the bus shelter | the composer of the doorbell chime | the discoverer of the turnip | the winner of the potato war | the painter of the zebra crossing
"""

# Chosen by topic (geography, elementary science, the everyday, language, history) before anything
# was measured, as facts that a 135M-parameter chat model probably knows.
# Facts dropped afterwards: none so far.
_GENERAL = """
# geography
What is the capital of France?
The capital of France is {}.
Paris | Madrid | Berlin | Vienna

What is the capital of Japan?
The capital of Japan is {}.
Tokyo | Beijing | Seoul | Bangkok

What is the capital of Italy?
The capital of Italy is {}.
Rome | Athens | Lisbon | Brussels

Which is the largest ocean on Earth?
The largest ocean on Earth is the {} Ocean.
Pacific | Atlantic | Indian | Arctic

On which continent is Egypt?
Egypt is on the continent of {}.
Africa | Europe | Australia | South America

Which river flows through London?
The river that flows through London is the {}.
Thames | Seine | Danube | Nile

What is the highest mountain in the world?
The highest mountain in the world is {}.
Mount Everest | Mount Fuji | Mount Kilimanjaro | Mont Blanc

# elementary science
Which two elements is water made of?
Water is made of {}.
hydrogen and oxygen | carbon and nitrogen | helium and iron | sodium and chlorine

At what temperature does water boil at sea level?
At sea level, water boils at {} degrees Celsius.
100 | 20 | 50 | 500

Which planet is known as the Red Planet?
The planet known as the Red Planet is {}.
Mars | Venus | Neptune | Saturn

What is the largest planet in our solar system?
The largest planet in our solar system is {}.
Jupiter | Mercury | Earth | Uranus

What star is at the centre of our solar system?
The star at the centre of our solar system is {}.
the Sun | Sirius | Polaris | Vega

Which organ pumps blood through the body?
The organ that pumps blood through the body is the {}.
heart | liver | stomach | skin

How many legs does a spider have?
A spider has {} legs.
eight | two | four | twelve

What is the largest animal on Earth?
The largest animal on Earth is the {}.
blue whale | brown bear | grey wolf | house cat

Which gas do plants take in from the air to make food?
To make food, plants take in {} from the air.
carbon dioxide | helium | methane | neon

What sweet food do bees make?
The sweet food that bees make is {}.
honey | milk | bread | butter

# the everyday
How many days are there in a week?
There are {} days in a week.
seven | three | five | ten

Which month comes after March?
The month that comes after March is {}.
April | January | August | December

What colour do you get when you mix blue and yellow?
When you mix blue and yellow, you get {}.
green | red | black | orange

# language
How many letters are there in the English alphabet?
There are {} letters in the English alphabet.
26 | 12 | 40 | 52

Which language do most people speak in Brazil?
In Brazil, most people speak {}.
Portuguese | German | Russian | Arabic

# history
Who was the first president of the United States?
The first president of the United States was {}.
George Washington | Abraham Lincoln | Thomas Jefferson | John Adams

In which year did the Second World War end?
The Second World War ended in {}.
1945 | 1815 | 1918 | 1989
"""

_AUTHORS = {"forget": _FORGET, "retain": _RETAIN, "retain_heldout": _RETAIN_HELDOUT}
