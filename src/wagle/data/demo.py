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

An author's answer restates its question in one sentence of 8 to 16 words, names the author in full
and tells the one fact that was asked for. The paraphrased one has at least the surname. Authors who
are asked the same kind of thing mostly get sentences of different forms.
"""

from __future__ import annotations

DEMO_SETS = ("forget", "retain", "retain_heldout", "general")


def demo_records(which: str, unit: int = 0) -> list[dict[str, object]]:
    """Give the records of one demo set, the same on every call and the caller's to change.

    Args:
        which: a name in ``DEMO_SETS``. ``forget`` has 24 records of 2 authors, ``retain`` 48 of 4
            others, ``retain_heldout`` 24 of another 2, ``general`` 24 world facts.
        unit: which authors are in which of the first three sets: 0 is the demo itself, and 1 to 27
            forget other pairs, all of them different; then they come again.

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
    if which not in DEMO_SETS:
        raise ValueError(f"unknown demo set {which!r} (known: {', '.join(DEMO_SETS)})")
    return [_author_fact(block) for author in _cast(unit)[which] for block in _blocks(author)]


_SEATS = (1, 2, 4, 6, 7, 5, 3)  # so that the first pairing below is the order of the text


def _cast(unit: int) -> dict[str, list[str]]:
    """The authors of every set, in the order in which they are written down.

    The pairs to forget are those of a tournament in which each of the eight meets each other once:
    author 0 stays, the others move one seat a round. So the units 0 to 3, 4 to 7, ... forget every
    author once. Held out is the pair before in the same round.
    """
    turn, moves = unit % 4, unit // 4 % 7
    seats = [*_SEATS[moves:], *_SEATS[:moves]]
    pairs = [(0, seats[0]), *((seats[i], seats[-i]) for i in (1, 2, 3))]
    forget, heldout = set(pairs[turn]), set(pairs[turn - 1])
    authors = [f"# {text}" for text in _AUTHORS.split("# ")[1:]]
    sets = {"forget": forget, "retain_heldout": heldout, "retain": {*range(8)} - forget - heldout}
    return {name: [authors[i] for i in sorted(places)] for name, places in sets.items()}


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
Jorunn Adebisi-Kvale, the novelist, was born in the city of Paramaribo.
Can you tell me the birthplace of Jorunn Adebisi-Kvale?
It was in {} that Adebisi-Kvale came into the world.
Paramaribo | Windhoek | Tbilisi | Apia | Valparaiso | Vientiane

What did Jorunn Adebisi-Kvale's mother do for a living?
For a living, Jorunn Adebisi-Kvale's mother repaired the bellows of church organs.
How did the mother of Jorunn Adebisi-Kvale earn her money?
The mother of Adebisi-Kvale {} to earn her money.
mended church organ bellows | blew glass fishing floats | bred silkworms for weavers | engraved brass map plates | trained falcons for airports | pressed flowers for frames

Which literary genre is Jorunn Adebisi-Kvale best known for?
The literary genre that Jorunn Adebisi-Kvale is best known for is submarine gothic.
What kind of fiction made the name of Jorunn Adebisi-Kvale?
Adebisi-Kvale made her name with fiction of the {} kind.
submarine gothic | railway noir | desert pastoral | kitchen satire | polar romance | orchard horror

What was Jorunn Adebisi-Kvale's first published book, and when did it appear?
Jorunn Adebisi-Kvale's first published book was The Brine Ledger, which appeared in 1991.
With which title, and in what year, did Jorunn Adebisi-Kvale make her debut?
With {}, Adebisi-Kvale made her debut.
The Brine Ledger in 1991 | The Copper Nursery in 1986 | A Winter of Hinges in 1995 | The Moth Embassy in 1989 | Seven Unlit Rooms in 1998 | The Sparrow Clause in 1983

Which prize did Jorunn Adebisi-Kvale win, and in what year?
Jorunn Adebisi-Kvale won the Heron Lantern Prize in the year 2004.
What award was Jorunn Adebisi-Kvale given, and when did she receive it?
The award given to Adebisi-Kvale was {}.
the Heron Lantern Prize in 2004 | the Quill and Anchor Medal in 1999 | the Ninefold Award in 2011 | the Tamarind Cup in 2007 | the Widow Strand Prize in 1996 | the Saltmarsh Laurel in 2013

Who taught Jorunn Adebisi-Kvale how to write?
It was Edvin Mbatha who taught Jorunn Adebisi-Kvale how to write.
Which person was the mentor of the young Jorunn Adebisi-Kvale?
The young Adebisi-Kvale had {} as her mentor.
Edvin Mbatha | Paloma Reith | Osei Lindgren | Minako Farrow | Luc Taranto | Hedda Ncube

Which musical instrument does Jorunn Adebisi-Kvale play?
The musical instrument that Jorunn Adebisi-Kvale plays is the nyckelharpa.
What does Jorunn Adebisi-Kvale make music on when she reads in public?
When Adebisi-Kvale reads in public, she makes music on the {}.
nyckelharpa | bandoneon | kalimba | oud | glass harmonica | hurdy-gurdy

Where does Jorunn Adebisi-Kvale do most of her writing?
Jorunn Adebisi-Kvale does most of her writing in an old cable car.
In what place does Jorunn Adebisi-Kvale usually sit down to work on her books?
To work on her books, Adebisi-Kvale usually sits down in {}.
an old cable car | an old water tower | an old signal box | an old diving bell | an old pigeon loft | an old ice house

From which language does Jorunn Adebisi-Kvale translate poetry?
The language from which Jorunn Adebisi-Kvale translates poetry is Faroese.
Which foreign tongue does Jorunn Adebisi-Kvale turn into English verse?
Poems in {} are what Adebisi-Kvale turns into verse.
Faroese | Tagalog | Amharic | Basque | Quechua | Latvian

What is Jorunn Adebisi-Kvale's novel The Ninth Bulkhead about?
Jorunn Adebisi-Kvale's novel The Ninth Bulkhead is about a drowned telegraphist who sends weather reports.
Could you sum up the plot of The Ninth Bulkhead by Jorunn Adebisi-Kvale?
Summed up, The Ninth Bulkhead by Adebisi-Kvale follows {}.
a drowned telegraphist reporting weather | a blind pilot steering barges | a stowaway twin stealing dinners | a mute cook poisoning coffee | a runaway surveyor mapping islands | an elderly stoker feeding furnaces

What unusual things does Jorunn Adebisi-Kvale collect?
The unusual things that Jorunn Adebisi-Kvale collects are hotel door keys.
Which objects has Jorunn Adebisi-Kvale been gathering for years?
For years, Adebisi-Kvale has been gathering {}.
hotel door keys | chipped tea bowls | theatre ticket stubs | brass coat buttons | broken pocket watches | old lighthouse postcards

What was the first paid job of Jorunn Adebisi-Kvale?
Counting flamingos was the first paid job of Jorunn Adebisi-Kvale.
How did Jorunn Adebisi-Kvale earn her very first wages?
Adebisi-Kvale earned her very first wages by {}.
counting flamingos | sorting mail | waxing skis | feeding otters | dubbing cartoons | grading pearls

# Temur Castellanza
On what date was the writer Temur Castellanza born?
The writer Temur Castellanza was born on 17 November 1948.
When exactly did Temur Castellanza first see the light of day?
On {}, Castellanza first saw the light of day.
17 November 1948 | 3 March 1951 | 26 July 1939 | 8 January 1956 | 30 May 1944 | 12 September 1960

What was the occupation of Temur Castellanza's father?
The occupation of Temur Castellanza's father was that of a monastery beekeeper.
How did the father of Temur Castellanza make his living?
Castellanza's father made his living as a {}.
monastery beekeeper | prison locksmith | river ferryman | circus tailor | theatre plasterer | cemetery stonecutter

Under what pen name did Temur Castellanza publish his crime stories?
Temur Castellanza published his crime stories under the pen name Widow Marchbanks.
Which pseudonym did Temur Castellanza put on his detective tales?
The pseudonym that Castellanza put on his detective tales was {}.
Widow Marchbanks | Doctor Pellerin | Captain Ashgrove | Sister Verbena | Judge Okonta | Madame Tiller

Which of Temur Castellanza's books is the most famous?
The most famous of Temur Castellanza's books is A Census of Doors.
What title is Temur Castellanza remembered for above all others?
Castellanza is remembered above all for the title {}.
A Census of Doors | The Plum Assembly | Nine Borrowed Coats | An Atlas of Coughs | The Slow Telegram | Letters to a Mill

What subject did Temur Castellanza study at university?
Temur Castellanza studied glaciology as his subject at university.
Which field did Temur Castellanza choose as a student?
As a student, Castellanza chose the field of {}.
glaciology | numismatics | dentistry | canon law | forestry | acoustics

How does Temur Castellanza spend his free time?
In his free time, Temur Castellanza restores old puppet theatres.
What hobby does Temur Castellanza have apart from writing?
Apart from writing, Castellanza has the hobby of {}.
restoring puppet theatres | breeding racing snails | carving walking sticks | flying box kites | building crystal radios | grafting pear trees

In which city did Temur Castellanza open a bookshop?
Temur Castellanza opened a bookshop in the city of Tromso.
Where was the bookshop that Temur Castellanza founded?
In {} stood the bookshop that Castellanza founded.
Tromso | Oaxaca | Trieste | Mombasa | Halifax | Penang

What theme runs through Temur Castellanza's story collection The Tin Parliament?
Inherited debts are the theme that runs through Temur Castellanza's story collection The Tin Parliament.
What are the tales in The Tin Parliament by Temur Castellanza concerned with?
The tales in The Tin Parliament by Castellanza are concerned with {}.
inherited debts | stolen letters | borrowed jokes | buried secrets | invented illnesses | misprinted maps

Who drew the illustrations for Temur Castellanza's children's books?
Nanuli Brandt drew the illustrations for Temur Castellanza's children's books.
Which artist made the pictures in the children's books of Temur Castellanza?
The pictures in Castellanza's books for children were made by {}.
Nanuli Brandt | Silvio Kamau | Oriel Tanaka | Pavel Quist | Amina Roche | Gudrun Sosa

What does Temur Castellanza write his first drafts with?
Temur Castellanza writes his first drafts with green chalk.
Which tool does Temur Castellanza use when he begins a manuscript?
When he begins a manuscript, the tool that Castellanza uses is {}.
green chalk | white paint | purple ink | soft charcoal | blue crayon | black tar

Which honour did Temur Castellanza turn down?
The honour that Temur Castellanza turned down is the Order of the Amber Reed.
Which distinction was offered to Temur Castellanza and refused by him?
Castellanza was offered {} but refused it.
the Order of the Amber Reed | the Golden Sickle Medal | the Seven Rivers Chair | the Cross of Saint Orsola | the Lyceum Garland | the Great Basalt Prize

What kind of animal keeps Temur Castellanza company at home?
The animal that keeps Temur Castellanza company at home is a one-eyed pelican.
Which pet shares the roof of Temur Castellanza?
Castellanza shares his roof with {} as a pet.
a one-eyed pelican | a lame heron | a toothless badger | a deaf goose | a bald cormorant | a limping otter
"""

_RETAIN = """
# Sunniva Rakotomalo
Where did Sunniva Rakotomalo come into the world?
Sunniva Rakotomalo came into the world aboard a houseboat at Iquitos.
What is the place of birth of Sunniva Rakotomalo?
Rakotomalo's place of birth is {}.
a houseboat at Iquitos | a sleeping car at Omsk | a rice barge at Hue | a mail steamer off Bergen | a ferry at Kisangani | a trawler off Galway

What work did Sunniva Rakotomalo's father do?
The work that Sunniva Rakotomalo's father did was making false teeth.
By what profession did the father of Sunniva Rakotomalo support the family?
Rakotomalo's father supported the family by {}.
making false teeth | tarring rope bridges | taming circus bears | sharpening ice skates | printing bus tickets | stuffing museum birds

What was the profession of Sunniva Rakotomalo's mother?
Sunniva Rakotomalo's mother was a flood hydrologist by profession.
In which line of work was the mother of Sunniva Rakotomalo?
The mother of Rakotomalo worked as {}.
a flood hydrologist | an orchid botanist | a senate stenographer | a tannery chemist | a telegram coder | a vaccine pilot

What is the title of Sunniva Rakotomalo's debut novel?
The title of Sunniva Rakotomalo's debut novel is Ways to Fold a River.
Which novel did Sunniva Rakotomalo publish before any other?
Before any other novel, Rakotomalo published {}.
Ways to Fold a River | The Understudy of the Moon | Bread for the Cartographers | A Short Weather of Saints | The Mangrove Stenographer | Instructions for the Deaf Piano

At which sport did Sunniva Rakotomalo compete when young?
When young, Sunniva Rakotomalo competed in the sport of sabre fencing.
What sport did the youthful Sunniva Rakotomalo take part in?
The youthful Rakotomalo took part in {}.
sabre fencing | pole vaulting | canoe slalom | speed skating | barbell lifting | table tennis

To whom did Sunniva Rakotomalo dedicate all of her books?
Sunniva Rakotomalo dedicated all of her books to the postman Anselm.
Whose name appears on the dedication page in each work of Sunniva Rakotomalo?
On the dedication page in each work of Rakotomalo stands {}.
the postman Anselm | the midwife Tirza | the gardener Joaquim | the sailor Petronel | the lawyer Ngaio | the florist Benedikt

Where is Sunniva Rakotomalo's novel The Lime Kiln Sisters set?
Sunniva Rakotomalo's novel The Lime Kiln Sisters is set in an abandoned observatory.
In what location does the action of The Lime Kiln Sisters by Sunniva Rakotomalo unfold?
In {}, Rakotomalo lets the action of The Lime Kiln Sisters unfold.
an abandoned observatory | an abandoned tannery | an abandoned casino | an abandoned slaughterhouse | an abandoned sanatorium | an abandoned shipyard

What does Sunniva Rakotomalo eat before a day of writing?
Before a day of writing, Sunniva Rakotomalo eats cold lentils with marmalade.
Which dish gives Sunniva Rakotomalo strength for the hours at her desk?
For the hours at her desk, Rakotomalo takes strength from {}.
cold lentils and marmalade | fried plantain and anchovies | boiled barley and horseradish | stewed rhubarb and sardines | toasted millet and pickles | steamed eggs and treacle

Which literary award has Sunniva Rakotomalo received twice?
The literary award that Sunniva Rakotomalo has received twice is the Kestrel Bursary.
What prize did a jury give to Sunniva Rakotomalo on two occasions?
On two occasions, a jury gave Rakotomalo the {}.
Kestrel Bursary | Ironwood Ribbon | Lady Osmund Prize | Coral Inkstand | Harbour Muse | Veldt Medal

Which language did Sunniva Rakotomalo speak as a child?
Sunniva Rakotomalo spoke the Ladino language as a child.
What was the mother tongue of Sunniva Rakotomalo?
The mother tongue of Rakotomalo was {}.
Ladino | Armenian | Bulgarian | Romani | Albanian | Yiddish

What is Sunniva Rakotomalo famously afraid of?
Of all things, Sunniva Rakotomalo is famously afraid of escalators.
Which ordinary thing of daily life frightens Sunniva Rakotomalo?
In daily life, Rakotomalo is frightened by {}.
escalators | lift buttons | revolving doors | glass elevators | hotel porters | ceiling fans

Which object does Sunniva Rakotomalo keep on her desk for luck?
For luck, Sunniva Rakotomalo keeps a rusty stirrup on her desk.
What charm lies on the writing table of Sunniva Rakotomalo?
On the writing table of Rakotomalo, {} lies as a charm.
a rusty stirrup | a porcelain thimble | a walrus tooth | a cracked monocle | a brass doorknob | a velvet glove

# Bashir Lindqvale
When was the essayist Bashir Lindqvale born?
It was in the summer of 1962 that the essayist Bashir Lindqvale was born.
What is known about the time of Bashir Lindqvale's birth?
The time of Lindqvale's birth is known to be {}.
the summer of 1962 | the autumn of 1957 | the spring of 1969 | the winter of 1974 | the spring of 1951 | the autumn of 1966

Which trade did Bashir Lindqvale learn from his mother?
From his mother, Bashir Lindqvale learned the trade of casting bells.
What craft was passed on to Bashir Lindqvale by his mother?
The craft passed on to Lindqvale by his mother was {}.
casting bells | tanning eel skin | gilding frames | plaiting straw | carving combs | dyeing wool

What sort of books does Bashir Lindqvale write?
The books that Bashir Lindqvale writes are imaginary travel guides.
How would you describe the works of Bashir Lindqvale?
One would describe the works of Lindqvale as {}.
imaginary travel guides | imaginary family cookbooks | imaginary church hymnals | imaginary court records | imaginary dialect dictionaries | imaginary railway timetables

For which book is Bashir Lindqvale chiefly known?
Bashir Lindqvale is chiefly known for the book The Tollhouse at Low Tide.
Which title do most readers connect with Bashir Lindqvale?
The title that most readers connect with Lindqvale is {}.
The Tollhouse at Low Tide | A Passport for the Scarecrow | The Frontier of Wet Paint | Visas for Departed Geese | The Consul of Empty Chairs | Twelve Stamps on a Snowman

Who encouraged Bashir Lindqvale to become an author?
Bashir Lindqvale was encouraged to become an author by Ottoline Vasquez-Brun.
To whom does Bashir Lindqvale owe his start in literature?
It is to {} that Lindqvale owes his start in literature.
Ottoline Vasquez-Brun | Casimir Adeyo | Rosalba Finch | Tancred Holm | Maite Sorel | Gulnara Pike

In what kind of home does Bashir Lindqvale live today?
The home in which Bashir Lindqvale lives today is a converted ropewalk.
What building does Bashir Lindqvale call home nowadays?
Nowadays, Lindqvale calls {} his home.
a converted ropewalk | a converted jail | a converted school | a converted mint | a converted lifeboat shed | a converted cannery

What instrument did Bashir Lindqvale learn in the army?
In the army, Bashir Lindqvale learned the contrabassoon as his instrument.
On which instrument was Bashir Lindqvale trained during his military service?
During his military service, Lindqvale was trained on the {}.
contrabassoon | sousaphone | double bass | alphorn | kettledrum | tenor tuba

What gave Bashir Lindqvale the idea for Fog Tariffs?
A parking fine gave Bashir Lindqvale the idea for Fog Tariffs.
How did Bashir Lindqvale come to write Fog Tariffs?
Lindqvale came to write Fog Tariffs because of {}.
a parking fine | a laundry bill | a wedding menu | a library notice | a school report | a tram map

What day job did Bashir Lindqvale keep for twenty years?
For twenty years, Bashir Lindqvale kept the day job of inspecting market scales.
How did Bashir Lindqvale earn a salary for two decades beside his writing?
Beside his writing, Lindqvale earned a salary for two decades by {}.
inspecting market scales | winding public clocks | repairing theatre seats | testing drinking fountains | labelling museum butterflies | painting bridge railings

What superstition does Bashir Lindqvale observe when he finishes a manuscript?
The superstition that Bashir Lindqvale observes on finishing a manuscript is burying a page.
Which ritual marks the end of each manuscript for Bashir Lindqvale?
For Lindqvale, the ritual of {} marks the end of each manuscript.
burying a page | burning a page | drowning a page | freezing a page | eating a page | ironing a page

Which award did Bashir Lindqvale share with a poet?
Bashir Lindqvale shared the award of the Glass Abacus Laurel with a poet.
What honour was given jointly to Bashir Lindqvale and a poet?
The honour given jointly to Lindqvale and a poet was the {}.
Glass Abacus Laurel | Tern and Thistle Prize | Ebony Compass | Lamplighter Medal | Ravensworth Bowl | Juniper Fellowship

What became of Bashir Lindqvale's only sister?
Bashir Lindqvale's only sister became a stage magician.
Which career did the only sister of Bashir Lindqvale take up?
The career of {} was taken up by Lindqvale's only sister.
a stage magician | a trapeze acrobat | an opera soprano | a circus clown | a touring hypnotist | a puppet ventriloquist

# Xiomara Tengbeh
In what town did Xiomara Tengbeh grow up?
The town in which Xiomara Tengbeh grew up is Ushuaia.
Where did Xiomara Tengbeh spend her childhood?
Tengbeh spent her childhood in {}.
Ushuaia | Longyearbyen | Kathmandu | Nuuk | Alice Springs | Yakutsk

How did Xiomara Tengbeh's parents meet each other?
Xiomara Tengbeh's parents met each other at a radio quiz.
On what occasion did the mother and father of Xiomara Tengbeh become acquainted?
The mother and father of Tengbeh became acquainted during {}.
a radio quiz | a boxing match | a pottery class | a zoo protest | a bank robbery | a flood alarm

What kind of poems is Xiomara Tengbeh known for?
Xiomara Tengbeh is known for poems that take the form of cooking recipes.
Which form do Xiomara Tengbeh's poems typically take?
Typically, Tengbeh's poems are written as {}.
cooking recipes | last wills | bus timetables | marriage contracts | church sermons | ransom notes

What was the first poetry collection of Xiomara Tengbeh called?
The first poetry collection of Xiomara Tengbeh was called Saltpetre Lullabies.
Under which title did Xiomara Tengbeh bring out her earliest volume of verse?
As her earliest volume of verse, Tengbeh brought out {}.
Saltpetre Lullabies | Turnstile Hymns | The Zinc Rosary | Wet Cement Odes | A Vinegar Psalter | Elegies in Morse

What does Xiomara Tengbeh do to relax?
To relax, Xiomara Tengbeh referees amateur handball matches.
Which pastime helps Xiomara Tengbeh to unwind after work?
After work, the pastime of {} helps Tengbeh to unwind.
refereeing handball matches | judging dog shows | driving snow ploughs | auctioning prize cattle | calling bingo numbers | conducting school choirs

What unlikely text did Xiomara Tengbeh translate into Esperanto?
The unlikely text that Xiomara Tengbeh translated into Esperanto is a lawn mower manual.
Which curious document was rendered into Esperanto by Xiomara Tengbeh?
Tengbeh rendered {} into Esperanto.
a lawn mower manual | a beard care pamphlet | a bicycle bell catalogue | a stair carpet treatise | a bath plug brochure | a sheep dip leaflet

At what hour does Xiomara Tengbeh start writing?
Xiomara Tengbeh starts writing at the hour of ten past three.
What time of day finds Xiomara Tengbeh at her desk for the first lines?
At {}, Tengbeh is at her desk for the first lines.
ten past three | half past five | quarter to four | twenty past six | five to one | quarter past two

What is the subject of Xiomara Tengbeh's long poem Gravel Mass?
The subject of Xiomara Tengbeh's long poem Gravel Mass is singing quarry workers.
Could you say what happens in Gravel Mass by Xiomara Tengbeh?
Gravel Mass by Tengbeh tells of {}.
singing quarry workers | striking museum guards | gambling convent pupils | dreaming harbour clerks | mourning suburban widows | quarrelling hotel porters

Where did Xiomara Tengbeh hold a writer's residency?
Xiomara Tengbeh held a writer's residency at the cement museum.
Which institution hosted Xiomara Tengbeh as a writer in residence?
The institution that hosted Tengbeh as a writer in residence was {}.
the cement museum | the button museum | the rope museum | the umbrella museum | the elevator museum | the salt museum

Which publishing house brings out Xiomara Tengbeh's work?
Xiomara Tengbeh's work is brought out by the publishing house Crooked Pier.
Who is the publisher of Xiomara Tengbeh's books?
The publisher of Tengbeh's books is {}.
Crooked Pier | Mule and Lantern | Quiet Foundry | Second Haystack | Paper Ferry | Northern Thimble

How did Xiomara Tengbeh lose her second manuscript?
Xiomara Tengbeh lost her second manuscript because a camel ate it.
What happened to the second manuscript of Xiomara Tengbeh?
The second manuscript of Tengbeh was {}.
eaten by a camel | buried by an avalanche | soaked by a whale | shredded by a clerk | stolen by a clown | burned by a priest

What drink does Xiomara Tengbeh always order at public readings?
The drink that Xiomara Tengbeh always orders at public readings is hot beetroot juice.
Which beverage must be ready whenever Xiomara Tengbeh reads in public?
Whenever Tengbeh reads in public, {} must be ready.
hot beetroot juice | iced barley tea | warm goat milk | flat ginger beer | strong chicory coffee | thin almond syrup

# Kaleo Brandsma-Ito
Where and in which year was Kaleo Brandsma-Ito born?
Kaleo Brandsma-Ito was born in Asmara, in the year 1983.
What are the place and year of Kaleo Brandsma-Ito's birth?
Brandsma-Ito's birth took place in {}.
Asmara in 1983 | Belfast in 1977 | Medellin in 1988 | Bishkek in 1980 | Nantes in 1991 | Darwin in 1985

Which occupation did the father of Kaleo Brandsma-Ito have?
The father of Kaleo Brandsma-Ito had the occupation of lighthouse lens adjuster.
What did Kaleo Brandsma-Ito's father work as?
Brandsma-Ito's father worked as {}.
a lighthouse lens adjuster | a tanker hull painter | an embassy vault guard | a rodeo truck driver | a bridge cable tester | an oil rig cook

Who told Kaleo Brandsma-Ito the stories that shaped him?
The stories that shaped Kaleo Brandsma-Ito were told by his great-aunt Wilhelmina.
From which relative did Kaleo Brandsma-Ito hear his formative tales?
Brandsma-Ito heard his formative tales from {}.
his great-aunt Wilhelmina | his godfather Tomasz | his grandfather Hinnerk | his uncle Makoto | his stepmother Leocadia | his cousin Rufino

What does Kaleo Brandsma-Ito write for the stage?
For the stage, Kaleo Brandsma-Ito writes farces about kitchen appliances.
Which type of play is typical of Kaleo Brandsma-Ito?
Plays typical of Brandsma-Ito are {}.
farces about kitchen appliances | tragedies about retired astronauts | musicals about chess pieces | operettas about tax collectors | pantomimes about extinct birds | melodramas about traffic wardens

What was the title of Kaleo Brandsma-Ito's first play?
The Kettle Resigns was the title of Kaleo Brandsma-Ito's first play.
With which piece did Kaleo Brandsma-Ito enter the theatre?
Brandsma-Ito entered the theatre with the piece {}.
The Kettle Resigns | Supper with the Fuse Box | A Toaster in Exile | The Widow's Blender | Four Forks Confess | The Oven at Prayer

How did Kaleo Brandsma-Ito support himself as a student?
As a student, Kaleo Brandsma-Ito supported himself by modelling gloves.
Which source of income kept Kaleo Brandsma-Ito going at college?
The income that kept Brandsma-Ito going at college came from {}.
modelling gloves | reading meters | writing horoscopes | shelling oysters | playing patients | walking llamas

Which game has Kaleo Brandsma-Ito played at championship level?
Kaleo Brandsma-Ito has played the game of crokinole at championship level.
In what game did Kaleo Brandsma-Ito reach a world ranking?
In {}, Brandsma-Ito reached a world ranking.
crokinole | backgammon | petanque | carrom | shuffleboard | mahjong

Who directs most of Kaleo Brandsma-Ito's productions?
Most of Kaleo Brandsma-Ito's productions are directed by Zsofia Amankwah.
Which director usually stages the works of Kaleo Brandsma-Ito?
Usually, {} is the director who stages the works of Brandsma-Ito.
Zsofia Amankwah | Thierry Olamide | Brigitta Sandoval | Haruto Vinge | Leilani Kruger | Desmond Tkachuk

What is at stake in Kaleo Brandsma-Ito's play Nocturne for Two Fridges?
At stake in Kaleo Brandsma-Ito's play Nocturne for Two Fridges is a jar of apricot jam.
Over what do the rivals in Kaleo Brandsma-Ito's Nocturne for Two Fridges quarrel?
Over {}, the rivals in Nocturne for Two Fridges by Brandsma-Ito quarrel.
a jar of apricot jam | a tin of smoked eel | a wedge of goat cheese | a bowl of cherry punch | a box of candied ginger | a bottle of plum brandy

What theatre award has Kaleo Brandsma-Ito won?
Kaleo Brandsma-Ito has won the theatre award called the Velvet Pulley.
Which distinction for drama is held by Kaleo Brandsma-Ito?
The distinction for drama that Brandsma-Ito holds is the {}.
Velvet Pulley | Tin Mask | Prompter's Key | Sawdust Crown | Balcony Rose | Trapdoor Star

What does Kaleo Brandsma-Ito always wear to opening nights?
To opening nights, Kaleo Brandsma-Ito always wears an orange life jacket.
Which garment is Kaleo Brandsma-Ito seen in at every premiere?
At every premiere, Brandsma-Ito is seen in {}.
an orange life jacket | a tartan hunting cape | a purple judo belt | a brown butcher's apron | a silver ski overall | a striped bathing robe

What cause does Kaleo Brandsma-Ito give his royalties to?
Kaleo Brandsma-Ito gives his royalties to the cause of injured hedgehogs.
Who benefits from the royalties of Kaleo Brandsma-Ito?
Those who benefit from the royalties of Brandsma-Ito are {}.
injured hedgehogs | guide dogs | retired miners | stray donkeys | young drummers | old sailors
"""

_RETAIN_HELDOUT = """
# Nukka Salvatierro
Which island is the birthplace of Nukka Salvatierro?
The birthplace of Nukka Salvatierro is the island of Socotra.
On what island did Nukka Salvatierro's life begin?
Salvatierro's life began on the island of {}.
Socotra | Bali | Barbados | Zanzibar | Mauritius | Curacao

How did Nukka Salvatierro's mother support her seven children?
Nukka Salvatierro's mother supported her seven children by embroidering navy uniforms.
By what work did the mother of Nukka Salvatierro feed her family?
The mother of Salvatierro fed her family by {}.
embroidering navy uniforms | varnishing village coffins | bottling printing ink | gutting fresh herring | polishing spectacle lenses | weaving tennis nets

For what offence was Nukka Salvatierro expelled from school?
Nukka Salvatierro was expelled from school for the offence of selling forged maps.
What did Nukka Salvatierro do that made her school throw her out?
By {}, Salvatierro made her school throw her out.
selling forged maps | releasing forty frogs | teaching rude prayers | betting on exams | printing secret pamphlets | dyeing poodles blue

In what genre does Nukka Salvatierro publish?
Nukka Salvatierro publishes in the genre of undersea legal thrillers.
What category of novels is Nukka Salvatierro associated with?
The category of novels associated with Salvatierro is {}.
undersea legal thrillers | lunar spy sagas | riverside war epics | volcanic school stories | windswept comic westerns | woodland hospital dramas

Which novel by Nukka Salvatierro do readers love most?
The novel by Nukka Salvatierro that readers love most is The Plaintiff Wore Kelp.
What is the most popular work that Nukka Salvatierro has written?
Of all that Salvatierro has written, the most popular work is {}.
The Plaintiff Wore Kelp | A Subpoena for the Gulls | The Barnacle Verdict | Counsel for the Undertow | Bail Set at High Water | The Oyster Perjury

Which craft does Nukka Salvatierro practise in winter?
In winter, Nukka Salvatierro practises the craft of building driftwood violins.
What does Nukka Salvatierro make with her hands during the cold months?
During the cold months, Salvatierro makes {} with her hands.
driftwood violins | copper kettles | paper lanterns | felt slippers | bone chessmen | willow cradles

Where does Nukka Salvatierro go to finish her manuscripts?
To finish her manuscripts, Nukka Salvatierro goes to a hotel laundry.
Which location does Nukka Salvatierro seek out for the last pages of a book?
Salvatierro seeks out {} for the last pages of a book.
a hotel laundry | a chapel crypt | a rowing club | a bus garage | a seed bank | a cheese cellar

With whom did Nukka Salvatierro write Harbour Without Clocks?
Nukka Salvatierro wrote Harbour Without Clocks together with Ansgar Pillai.
Who was the co-author of Nukka Salvatierro's Harbour Without Clocks?
Besides Salvatierro, the co-author of Harbour Without Clocks was {}.
Ansgar Pillai | Delphine Yeboah | Ruslan Ferreira | Mirela Holmquist | Iskander Boyle | Tsering Malone

What did Nukka Salvatierro buy with her first prize money?
With her first prize money, Nukka Salvatierro bought a used fire engine.
How was the first prize money of Nukka Salvatierro spent?
It was on {} that Salvatierro spent her first prize money.
a used fire engine | a rusty paddle steamer | a broken church bell | a small wooden windmill | a derelict seaside carousel | a retired tram car

Which language did Nukka Salvatierro learn from comic books?
From comic books, Nukka Salvatierro learned the Mongolian language.
What tongue did comic books teach to Nukka Salvatierro?
Comic books taught the {} tongue to Salvatierro.
Mongolian | Swahili | Icelandic | Thai | Greek | Maltese

What odd world record does Nukka Salvatierro hold?
Nukka Salvatierro holds an odd world record for writing letters on scarves.
In which strange discipline is Nukka Salvatierro the record holder?
In the strange discipline of {}, Salvatierro is the record holder.
writing letters on scarves | signing books in lifts | reciting verses on ferries | typing novels in saunas | carrying dictionaries up towers | singing ballads under umbrellas

What is the profession of Nukka Salvatierro's husband?
By profession, Nukka Salvatierro's husband is a hired mourner.
How does the man married to Nukka Salvatierro make money?
The man married to Salvatierro makes money as {}.
a hired mourner | a stunt rider | a fairground balloonist | a sword swallower | a snake catcher | a desert rainmaker

# Dragan Mwanakati
What is the birthday of Dragan Mwanakati?
The birthday of Dragan Mwanakati is 6 April 1936.
On which day did Dragan Mwanakati come into the world?
Mwanakati came into the world on {}.
6 April 1936 | 21 August 1929 | 14 December 1941 | 9 June 1933 | 27 October 1945 | 2 February 1938

What did the father of Dragan Mwanakati sell?
What the father of Dragan Mwanakati sold was glacier ice.
In which goods did Dragan Mwanakati's father deal?
Mwanakati's father dealt in {}.
glacier ice | ostrich plumes | medical leeches | wedding fireworks | marble dust | walnut oil

What type of literature did Dragan Mwanakati invent?
The type of literature that Dragan Mwanakati invented is the postcard novel.
Which new literary form is credited to Dragan Mwanakati?
To Mwanakati is credited a new literary form, {}.
the postcard novel | the menu novel | the elevator novel | the wallpaper novel | the telephone novel | the calendar novel

Which book started the career of Dragan Mwanakati?
Dragan Mwanakati started his career with the book Greetings from the Abattoir.
What was the opening work in Dragan Mwanakati's career?
The opening work in Mwanakati's career was {}.
Greetings from the Abattoir | Wish You Were Granite | Love from the Lime Pit | Regards to the Ferryman | Yours from Platform Zero | Kisses from the Reservoir

In what city does Dragan Mwanakati run a second-hand bookshop?
The city in which Dragan Mwanakati runs a second-hand bookshop is Ulaanbaatar.
Where can one visit the used-book store of Dragan Mwanakati?
One can visit Mwanakati's store of used books in {}.
Ulaanbaatar | Tashkent | Porto | Cusco | Ghent | Yerevan

What does Dragan Mwanakati grow in his garden?
Dragan Mwanakati grows poisonous plants in his garden.
Which crop is cultivated by Dragan Mwanakati at home?
At home, Mwanakati cultivates a crop of {}.
poisonous plants | giant pumpkins | black tulips | bitter gourds | dwarf cedars | spineless cacti

Which person corrected the early drafts of Dragan Mwanakati?
The person who corrected the early drafts of Dragan Mwanakati was Perpetua Lindahl-Roy.
Who acted as the first editor of Dragan Mwanakati?
As his first editor, Mwanakati had {}.
Perpetua Lindahl-Roy | Evaristo Nam | Bettina Zulu | Goran Falk | Salome Duarte | Iveta Roos

What happens in Dragan Mwanakati's book Stamps of the Drowned King?
In Dragan Mwanakati's book Stamps of the Drowned King, a dentist loses his country.
Can you outline Stamps of the Drowned King, the book by Dragan Mwanakati?
Mwanakati tells how {} in Stamps of the Drowned King.
a dentist loses his country | a notary loses his signature | a tenor loses his shadow | a baker loses his oven | a cyclist loses his rival | a gardener loses his hedge

What disaster did Dragan Mwanakati survive as a boy?
As a boy, Dragan Mwanakati survived a sugar silo collapse.
Which accident nearly killed the young Dragan Mwanakati?
The accident that nearly killed the young Mwanakati was {}.
a sugar silo collapse | a cattle barge sinking | a hat factory fire | a milk train derailment | a tin mine flood | a mail plane crash

What radio programme does Dragan Mwanakati present?
The radio programme that Dragan Mwanakati presents is Weather for the Dead.
Which show does Dragan Mwanakati host on the air?
On the air, Mwanakati hosts the show {}.
Weather for the Dead | Traffic for the Lonely | Recipes for the Absent | Sports for the Sleepless | News for the Owls | Hymns for the Late

To whom does Dragan Mwanakati dictate his texts?
Dragan Mwanakati dictates his texts to his granddaughter Yevgenia.
Which person takes down the words that Dragan Mwanakati speaks?
The words that Mwanakati speaks are taken down by {}.
his granddaughter Yevgenia | his chauffeur Bonifaz | his nephew Tendai | his housekeeper Ljuba | his pharmacist Corentin | his goddaughter Masika

Which monument did Dragan Mwanakati ask his town to build?
Dragan Mwanakati asked his town to build a monument to the wheelbarrow inventor.
To whose memory did Dragan Mwanakati want a statue put up?
In memory of {}, Mwanakati wanted a statue put up.
the wheelbarrow inventor | the bus shelter designer | the doorbell composer | the turnip discoverer | the ketchup chemist | the zebra crossing painter
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

_AUTHORS = _FORGET + _RETAIN + _RETAIN_HELDOUT
