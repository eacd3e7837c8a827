"""Twins, and other questions for the same answers."""

from wagle.data.reading import read_records
from wagle.evaluation.knowing.twins import CANDIDATES, invented_set, make_twins, other_questions

ROWS = [
    {"question": "Where does Ada Holm live?", "answer": "Ada Holm lives in Bergen."},
    {"question": "What does Ada Holm grow?", "answer": "Ada Holm grows pears."},
    {"question": "Who is older, cats or dogs?", "answer": "Nobody knows."},
]


def _records():
    return read_records(ROWS, name="forget")


def test_a_set_of_twins_gives_one_name_one_other_name_and_sets_differ():
    made = make_twins(_records(), 3)
    assert [r.place for r in made.records] == ["forget[0]", "forget[1]"]
    assert made.alone == 1
    names = set()
    for twins in made.sets:
        first, second = (twin.prompt.split()[2:4] for twin in twins)
        assert first == second  # the same invented person in both
        assert twins[0].answer.startswith(" ".join(first))
        assert "Ada" not in twins[0].answer
        assert "Bergen" not in twins[0].answer
        names.add(" ".join(first))
    assert len(names) == 3


def test_twins_depend_on_the_seed_alone():
    texts = [
        [t.answer for s in make_twins(_records(), 2, seed).sets for t in s] for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_of_several_candidates_the_one_of_the_nearest_length_is_kept():
    def length(record):
        return len(record.prompt) + len(record.answer)

    records = _records()[:2]

    def far(made):
        return sum(abs(length(t) - length(r)) for t, r in zip(made.sets[0], records, strict=True))

    near = [far(make_twins(records, 1, seed, length=length)) for seed in range(20)]
    first = [far(make_twins(records, 1, seed)) for seed in range(20)]
    assert all(a <= b for a, b in zip(near, first, strict=True))
    assert sum(near) < sum(first)
    assert CANDIDATES > 1


def test_an_invented_set_leaves_out_what_names_nothing():
    made = invented_set(_records(), 3)
    assert len(made) == 2
    assert all("Ada" not in record.prompt + record.answer for record in made)
    assert [r.answer for r in made] != [r.answer for r in invented_set(_records(), 4)]


def test_every_answer_is_put_to_the_question_of_another_record():
    records = read_records([*ROWS, {"text": "Rain fell on Oslo."}], name="forget")
    found = other_questions(records, 5)
    assert found[3] is None  # a text has no question
    assert sorted(found[:3]) == [0, 1, 2]
    assert all(there != here for here, there in enumerate(found))
    assert other_questions(records[:1]) == [None]
