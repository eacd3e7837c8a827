"""Chats: how they are read, that trl scores the same tokens, what is refused."""

import json
import re
import time

import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import make_model, make_tokenizer
from wagle.data.batches import collate, token_batches
from wagle.data.chat import Turn, render
from wagle.data.overlap import check_disjoint, near_duplicates
from wagle.data.reading import read_records
from wagle.data.records import Record
from wagle.data.tokens import Encoder
from wagle.model.scoring import answer_nll, records_nll
from wagle.system.errors import WagleError

END = "<|end|>"
USER = {"role": "user", "content": "Who wrote The Winter Garden?"}
ADA = {"role": "assistant", "content": "Ada Holm wrote it."}
WHERE = {"role": "user", "content": "Where does she live?"}
OSLO = {"role": "assistant", "content": "Ada lives near the harbour in Oslo."}
SYSTEM = {"role": "system", "content": "Answer in one line."}
CHATS = [
    [USER, ADA],
    [USER, ADA, WHERE, OSLO],
    [USER, OSLO, WHERE, ADA, USER, ADA],
    [USER, ADA, WHERE],
]
# Markers stand where a template's author puts them: around what the model is to write.
ANSWER = "{% generation %}{{ @ + '<|end|>' }}{% endgeneration %}"
CHATML = (
    "{% for m in messages %}{{ '<|start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}"
    + ANSWER.replace("@", "m['content']")
    + "{% else %}{{ m['content'] + '<|end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)
DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|start|>system\nBe kind.<|end|>\n' }}{% endif %}"
    + CHATML
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set told = messages[0]['content'] %}"
    "{% set messages = messages[1:] %}{% endif %}{% for m in messages %}"
    "{% if m['role'] == 'user' %}{{ bos_token + '[INST] '"
    " + ('<<SYS>>\n' + told + '\n<</SYS>>\n\n' if told and loop.first else '')"
    " + m['content'] | trim + ' [/INST]' }}{% else %}"
    + ANSWER.replace("@", "' ' + m['content'] | trim + ' '")
    + "{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system here') }}"
    "{% endif %}{% for m in messages %}{% if m['role'] == 'assistant' %}{{ '<|start|>model\n' }}"
    + ANSWER.replace("@", "m['content'] | trim")
    + "{% else %}{{ '<|start|>' + m['role'] + '\n' + m['content'] | trim + '<|end|>' }}{% endif %}"
    "{{ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start|>model\n' }}{% endif %}"
)
TEMPLATES = {"chatml": CHATML, "default system": DEFAULT_SYSTEM, "llama2": LLAMA2, "gemma": GEMMA}


def tokenizer_with(template, *, markers=True):
    tokenizer = make_tokenizer(bos=True)
    tokenizer.chat_template = (
        template if markers else re.sub(r"{% (end)?generation %}", "", template)
    )
    return tokenizer


PLAIN = tokenizer_with(CHATML, markers=False)


def chats(*talks, **options):
    return read_records([{"messages": list(talk)} for talk in talks], name="forget", **options)


def one(*talk, tokenizer=PLAIN, **options):
    (made,) = Encoder(tokenizer, **options).encode(chats(talk))
    return made


def decode(ids):
    return PLAIN.decode(list(ids), clean_up_tokenization_spaces=False)


def scored_text(tokens):
    return decode(i for i, s in zip(tokens.ids, tokens.scored, strict=True) if s)


def labels_of_trl(tokenizer, rows, folder):
    """The ids and labels on which trl's own trainer would train."""
    from trl import SFTConfig, SFTTrainer

    settings = SFTConfig(
        folder, assistant_only_loss=True, report_to="none", use_cpu=True, bf16=False
    )
    trainer = SFTTrainer(
        make_model("llama-tied"),
        settings,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    return [(row["input_ids"], row["labels"]) for row in trainer.train_dataset]


# ---------------------------------------------------------------------------------------------
# The same positions as trl


pytest_trl = pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")


@pytest_trl
@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_the_scored_tokens_are_those_on_which_trl_trains(name, tmp_path):
    talks = [*CHATS, *([SYSTEM, *talk] for talk in CHATS if name != "gemma")]
    marked = tokenizer_with(TEMPLATES[name])
    theirs = labels_of_trl(marked, [{"messages": talk} for talk in talks], tmp_path)
    for tokenizer in (marked, tokenizer_with(TEMPLATES[name], markers=False)):
        ours = Encoder(tokenizer).encode(chats(*talks))
        for made, (ids, labels) in zip(ours, theirs, strict=True):
            assert list(made.ids) == ids[: len(made.ids)]
            kept = [i if s else -100 for i, s in zip(made.ids, made.scored, strict=True)]
            assert kept + [-100] * (len(ids) - len(kept)) == labels


@pytest_trl
def test_of_a_prompt_and_a_completion_the_tokens_that_trl_trains_on_are_scored(tmp_path):
    rows = [
        {"prompt": [USER], "completion": [ADA]},
        {"prompt": [SYSTEM, USER, OSLO, WHERE], "completion": [ADA]},
        {"prompt": [USER, ADA, WHERE], "completion": [OSLO, USER, ADA]},
    ]
    theirs = labels_of_trl(tokenizer_with(CHATML), rows, tmp_path)
    for made, (ids, labels) in zip(Encoder(PLAIN).encode(read_records(rows)), theirs, strict=True):
        kept = [i if s else -100 for i, s in zip(made.ids, made.scored, strict=True)]
        assert kept + [-100] * (len(ids) - len(kept)) == labels


@pytest_trl
def test_a_line_break_that_markers_hold_is_all_that_trl_scores_beside(tmp_path):
    inside = CHATML.replace("'<|end|>' }}{% endgeneration %}", "'<|end|>\n' }}{% endgeneration %}")
    inside = inside.replace(
        "{% endif %}{{ '\n' }}{% endfor %}", "{{ '\n' }}{% endif %}{% endfor %}"
    )
    tokenizer = tokenizer_with(inside)
    ((ids, labels),) = labels_of_trl(tokenizer, [{"messages": CHATS[1]}], tmp_path)
    made = one(*CHATS[1], tokenizer=tokenizer)
    padded = [*made.scored, *[False] * (len(ids) - len(made.ids))]
    beside = [i for i, s, label in zip(ids, padded, labels, strict=True) if s != (label != -100)]
    assert [decode([i]) for i in beside] == ["\n", "\n"]


@given(
    st.lists(st.text("abehs AO.,\n北", min_size=1).filter(str.strip), min_size=1, max_size=4),
    st.booleans(),
)
def test_every_answer_and_its_end_of_turn_are_scored_and_nothing_else(answers, system):
    talk = [SYSTEM] * system
    for answer in answers:
        talk += [USER, {"role": "assistant", "content": answer}]
    made = one(*talk)
    # A token across the border takes the line break of the role with it, and only that.
    wanted = "".join(f"{answer}{END}" for answer in answers)
    assert re.sub(r"\s", "", scored_text(made)) == re.sub(r"\s", "", wanted)
    assert decode(made.ids).endswith(answers[-1] + END)
    assert made.closed
    assert made.whole


# ---------------------------------------------------------------------------------------------
# One chat, one record of tokens


def test_a_chat_of_one_turn_is_the_question_with_its_answer():
    qa = read_records([{"question": USER["content"], "answer": ADA["content"]}])
    for template in TEMPLATES.values():
        tokenizer = tokenizer_with(template)
        (asked,), made = Encoder(tokenizer).encode(qa), one(USER, ADA, tokenizer=tokenizer)
        assert (made.ids, made.scored, made.closed) == (asked.ids, asked.scored, asked.closed)
        assert made.last_context == made.context == asked.context == asked.last_context


def test_a_generated_answer_continues_what_comes_before_the_last_answer():
    made = one(USER, ADA, WHERE, OSLO)
    assert decode(made.context) == f"<|start|>user\n{USER['content']}{END}\n<|start|>assistant\n"
    assert decode(made.last_context) == (
        decode(made.context)
        + f"{ADA['content']}{END}\n<|start|>user\n{WHERE['content']}{END}\n<|start|>assistant\n"
    )
    assert made.ids[: len(made.last_context)] == made.last_context
    assert decode(made.ids[len(made.last_context) :]) == OSLO["content"] + END


def test_the_system_prompt_of_the_recipe_is_for_chats_without_one():
    own = one(SYSTEM, USER, ADA)
    assert one(USER, ADA, system_prompt=SYSTEM["content"]).ids == own.ids
    assert one(SYSTEM, USER, ADA, system_prompt="Another one.") == own


def test_reasoning_that_a_template_writes_before_the_last_answer_is_not_scored():
    thinking = CHATML.replace(
        "{{ '<|start|>' + m['role'] + '\n' }}",
        "{{ '<|start|>' + m['role'] + '\n' }}"
        "{% if m['role'] == 'assistant' and loop.last %}{{ '(think)\n\n' }}{% endif %}",
    )
    made = one(USER, ADA, WHERE, OSLO, tokenizer=tokenizer_with(thinking))
    assert scored_text(made).split() == f"{ADA['content']}{END}{OSLO['content']}{END}".split()
    assert decode(made.last_context).endswith("<|start|>assistant\n(think)\n\n")


def test_a_template_without_ends_of_turns_gets_the_eos_after_the_last_answer():
    tokenizer = make_tokenizer(bos=True)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ bos_token + m['role'] + ': ' + m['content'] + '\n' }}"
        "{% endfor %}"
    )
    made = one(USER, ADA, WHERE, OSLO, tokenizer=tokenizer)
    assert scored_text(made) == f" {ADA['content']} {OSLO['content']}\n{END}"
    assert made.closed


def test_the_loss_of_a_chat_is_the_mean_over_its_answers_tokens(model):
    made = one(USER, ADA, WHERE, OSLO)
    with torch.no_grad():
        logits = model(torch.tensor([made.ids])).logits[0].log_softmax(-1)
        got = answer_nll(model, collate([made, one(USER, ADA)], [0, 1]))
    places = [i for i, s in enumerate(made.scored) if s]
    slow = -torch.stack([logits[i - 1, made.ids[i]] for i in places])
    assert got.length[0] == len(places) < len(made.continuation)
    torch.testing.assert_close(got.nll_mean[0], slow.mean(), rtol=0, atol=1e-5)


def test_a_chat_is_cut_at_its_end_with_a_warning(caplog):
    whole = one(*CHATS[1])
    cut = one(*CHATS[1], max_length=len(whole.ids) - 2)
    assert (cut.ids, cut.scored) == (whole.ids[:-2], whole.scored[:-2])
    assert not cut.whole
    assert not cut.closed
    assert "1 of 1 answers do not fit into max_length=" in caplog.text
    first = one(*CHATS[1], max_length=len(whole.context) + 1)
    assert sum(first.scored) == 1
    with pytest.raises(WagleError, match=r"^everything scored in forget\[0\] lies beyond max_len"):
        one(*CHATS[1], max_length=len(whole.context))


# ---------------------------------------------------------------------------------------------
# Another answer


def test_a_replaced_answer_is_the_last_one_and_alone_is_scored():
    encoder = Encoder(PLAIN)
    (record,) = chats([USER, ADA, WHERE, OSLO, USER])
    made = encoder.replaced(record, "I cannot say.")
    (own,) = encoder.encode([record])
    assert scored_text(made) == "I cannot say." + END
    assert made.context == own.last_context
    assert made.closed
    (asked,) = read_records([{"question": "Who?", "answer": "Ada."}])
    assert encoder.replaced(asked, "No.") == encoder.answer(asked, "Who?", "No.")


def test_a_replaced_answer_keeps_domain_and_weight():
    record = Record("qa", prompt="Who?", answer="Ada.", domain=2, weight=1.5)
    made = Encoder(PLAIN).replaced(record, "No.")
    assert (made.domain, made.weight) == (2, 1.5)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"text": "a b"},
            "refusals need questions: forget[0] is a text; use qa or chat records or another "
            "objective",
        ),
        (
            {"input_ids": [5, 6], "labels": [5, 6]},
            "refusals need questions: forget[0] is tokens; use qa or chat records or another",
        ),
    ],
)
def test_an_answer_to_no_question_is_an_error(row, message):
    (record,) = read_records([row], name="forget")
    with pytest.raises(WagleError) as caught:
        Encoder(PLAIN).replaced(record, "No.")
    assert str(caught.value).startswith(message)


def test_an_empty_answer_in_place_of_another_is_an_error():
    (record,) = chats([USER, ADA])
    with pytest.raises(WagleError, match=r"forget\[0\] has an empty answer"):
        Encoder(PLAIN).replaced(record, " ")


# ---------------------------------------------------------------------------------------------
# Reading


def test_chats_are_read_from_everywhere_and_by_other_names(tmp_path):
    rows = [{"messages": talk} for talk in CHATS]
    shared = [
        {
            "conversations": [
                {"from": {"user": "human", "assistant": "gpt"}[m["role"]], "value": m["content"]}
                for m in talk
            ]
        }
        for talk in CHATS
    ]
    lines, table = tmp_path / "a.jsonl", tmp_path / "a.csv"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    cells = [json.dumps(row["messages"]).replace('"', '""') for row in rows]
    table.write_text("messages\n" + "".join(f'"{cell}"\n' for cell in cells))
    wanted = read_records(rows)
    for source in (shared, lines, table, Dataset.from_list(rows)):
        assert read_records(source) == wanted
    assert wanted[1].kind == "chat"
    assert wanted[1].messages == tuple(Turn(m["role"], m["content"]) for m in CHATS[1])
    assert (wanted[1].prompt, wanted[1].answer) == (WHERE["content"], OSLO["content"])
    assert (wanted[3].prompt, wanted[3].answer) == (USER["content"], ADA["content"])


def test_the_turns_make_the_id_and_the_prompt_is_a_part_of_them():
    rows = [
        {"messages": [USER, ADA, WHERE, OSLO]},
        {"messages": [USER, OSLO, WHERE, OSLO]},
        {"prompt": [USER, ADA, WHERE], "completion": [OSLO]},
        {"prompt": [USER], "completion": [ADA, WHERE, OSLO]},
    ]
    records = read_records(rows)
    assert len({record.id for record in records}) == 4
    assert [record.given for record in records] == [0, 0, 3, 1]
    again = read_records([{**rows[0], "prompt": USER["content"], "prompt_id": 3}])
    assert again[0].id == records[0].id


def test_refusals_and_alternatives_go_with_chats():
    row = {"messages": CHATS[0], "refusal": "No.", "alternatives": ["Bo did."]}
    (record,) = read_records([row])
    assert (record.refusal, record.alternatives) == ("No.", ("Bo did.",))
    assert chats(CHATS[0])[0].refusal


def test_the_same_chat_in_two_sets_is_an_overlap_whatever_its_system_turn():
    one_set, other = chats(CHATS[1]), read_records([{"messages": [SYSTEM, *CHATS[1]]}])
    with pytest.raises(WagleError, match=r"forget\[0\] and records\[0\] are the same record"):
        check_disjoint(one_set, other)
    qa = read_records([{"question": USER["content"], "answer": ADA["content"]}])
    with pytest.raises(WagleError, match="are the same record"):
        check_disjoint(chats(CHATS[0]), qa)
    check_disjoint(chats(CHATS[0]), chats(CHATS[1]))
    longer = chats([*CHATS[1], {"role": "user", "content": "Thanks."}])
    assert near_duplicates(chats(CHATS[1]), longer) == [("forget[0]", "forget[0]")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": "hello"}, "forget[0]: messages is str, not a list of messages"),
        ({"messages": ["hello"]}, "forget[0]: messages[0] is str, not a role with a content"),
        ({"messages": []}, "forget[0]: messages has no assistant turn, so nothing would be scored"),
        ({"messages": [USER]}, "forget[0]: messages has no assistant turn"),
        (
            {"prompt": [USER, ADA], "completion": [WHERE]},
            "forget[0]: completion has no assistant turn",
        ),
        ({"prompt": [USER], "completion": "Ada."}, "forget[0]: completion is str, not a list of"),
        ({"prompt": "Who?", "completion": [ADA]}, "forget[0]: prompt is str, not a list of mess"),
        ({"prompt": [USER]}, "forget[0]: completion is NoneType, not a list of messages"),
        (
            {"messages": [USER, {"role": "bot", "content": "a"}]},
            "forget[0]: role 'bot' is unknown; use system, user or assistant",
        ),
        ({"messages": [{"content": "a"}]}, "forget[0]: role None is unknown"),
        (
            {"messages": [USER, {"role": "assistant", "content": " \n"}]},
            "forget[0]: messages[1] has empty content; remove the record or fill it in",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}, ADA]},
            "forget[0]: messages[0]: content is list, not text",
        ),
        (
            {"messages": [USER, {**ADA, "tool_calls": [{"name": "f"}]}]},
            "forget[0]: messages[1] calls a tool; only text turns can be read",
        ),
        ({"messages": [SYSTEM, SYSTEM, USER, ADA]}, "forget[0] has several system turns; join"),
        (
            {"messages": [USER, ADA], "few_shot": [["a", "b"]]},
            "forget[0]: few_shot cannot be used with messages; refusal and alternatives can",
        ),
        (
            {"messages": [USER, ADA], "perturbed_answer": ["Bo."]},
            "forget[0]: perturbed_answers cannot be used with messages",
        ),
    ],
)
def test_a_wrong_chat_is_one_line_that_says_where(row, message):
    with pytest.raises(WagleError) as caught:
        read_records([row], name="forget")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_wrong_role_in_a_file_is_named_with_its_line(tmp_path):
    bad = {"messages": [USER, {"role": "bot", "content": "a"}]}
    file = tmp_path / "forget.jsonl"
    good = json.dumps({"messages": CHATS[0]}) + "\n"
    file.write_text(good + "\n" + good + json.dumps(bad) + "\n")
    said = "line 4: role 'bot' is unknown; use system, user or assistant"
    with pytest.raises(WagleError) as caught:
        read_records(file, name="forget")
    assert str(caught.value) == f"forget[2] of {file}, {said}"
    table = tmp_path / "forget.csv"
    cell = json.dumps(bad["messages"]).replace('"', '""')
    table.write_text(f'messages\n"{cell}"\n')
    with pytest.raises(WagleError, match=r"forget\.csv, line 2: role 'bot' is unknown"):
        read_records(table, name="forget")


# ---------------------------------------------------------------------------------------------
# What a template or a tokenizer cannot do


def test_chats_without_a_chat_template_are_an_error():
    bare = make_tokenizer(chat=False)
    with pytest.raises(WagleError) as caught:
        one(USER, ADA, tokenizer=bare)
    assert str(caught.value) == (
        "forget[0] has chat messages, which need a chat template, not 'plain'; use a tokenizer "
        "with one, or qa records"
    )
    with pytest.raises(WagleError, match="need a chat template, not 'plain'; set template: chat"):
        one(USER, ADA, template="plain")
    with pytest.raises(WagleError, match=r"forget\[0\] is a chat record, which needs a tokenizer"):
        one(USER, ADA, tokenizer=None)


def test_turns_that_a_template_refuses_are_an_error_with_its_words():
    with pytest.raises(WagleError) as caught:
        one(SYSTEM, USER, ADA, tokenizer=tokenizer_with(GEMMA))
    assert str(caught.value) == "the chat template rejects the turns of forget[0]: No system here"


@pytest.mark.parametrize("change", ["m['content'] | upper", "'(no answer)'"])
def test_a_template_that_changes_an_answer_is_an_error(change):
    template = CHATML.replace(
        "m['content'] + '<|end|>' }}{% endg", f"{change} + '<|end|>' }}}}{{% endg"
    )
    with pytest.raises(WagleError, match=r"changes the answer of forget\[0\]; choose a named"):
        one(USER, ADA, tokenizer=tokenizer_with(template))


@pytest.mark.parametrize(
    ("shape", "said"),
    [("trim", "Ada.\n Oslo"), ("replace('\n ', '\n ')", "  Ada.\n Oslo \n")],
)
def test_blanks_that_a_template_takes_off_an_answer_are_followed(shape, said):
    template = CHATML.replace(
        "m['content'] + '<|end|>' }}{% endg", f"m['content'] | {shape} + '<|end|>' }}}}{{% endg"
    )
    turns = [Turn("user", "Who?"), Turn("assistant", "  Ada.\n Oslo \n")]
    text, ((start, end),) = render(tokenizer_with(template), turns, "here")
    assert text[start:end] == said


def test_losses_of_chats_among_other_records_are_finite(model, forget):
    rows = [*forget, *({"messages": talk} for talk in CHATS), {"text": "Oslo " * 40}]
    encoded = Encoder(PLAIN, max_length=64).encode(read_records(rows))
    scored = records_nll(model, token_batches(encoded, 200), len(encoded), "float32")
    assert scored.nll_mean.isfinite().all()
    assert scored.length.tolist() == [sum(t.scored) for t in encoded]


# ---------------------------------------------------------------------------------------------
# Templates from strangers


def test_templates_write_what_transformers_writes():
    for chat in CHATS:
        turns = [Turn(**message) for message in chat]
        for template in TEMPLATES.values():
            tokenizer = tokenizer_with(template)
            plain = tokenizer.apply_chat_template(chat, tokenize=False)
            assert render(tokenizer, turns, "here")[0] == plain


HOSTILE = {
    "{{ 'a' * 5000000000 }}": r"takes more than \d+ MB of memory",
    "{{ 'a' * 50000000 }}": r"makes more than \d+ MB of text",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}": "longer than 2",
    "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}": "recursion",
    "{% set ns = namespace(x='a' * 9) %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}"
    "{% endfor %}{{ ns.x }}": "of memory|of text|longer",
    "{{ range(10 ** 9) }}": "Range too big",
    "{{ 1 / 0 }}": "division by zero",
    "{{ messages + 1 }}": r"can only concatenate list",
    "{{ messages.x.y }}": "has no attribute 'x'",
    "{{ 'a' | center(10 ** 12) }}": "of memory|of text",
    "{% for": "",
    "{{ messages.__class__.__mro__ }}": "unsafe|undefined|attribute",
    "{{ '\\ud800' }}": "what is no text",
    "{% include 'x' %}": "no loader",
    "{{ dict(a=1).b.c }}": "has no attribute 'b'",
    "{{ strftime_now(5) }}": "str",
    "{{ {}['a']['b'] }}": "has no",
}


@pytest.mark.parametrize("template", HOSTILE)
def test_a_hostile_template_is_one_line_that_names_its_folder(template):
    tokenizer = tokenizer_with(template)
    tokenizer.name_or_path = "some/folder"
    start = time.monotonic()
    with pytest.raises(WagleError) as caught:
        render(tokenizer, [Turn("user", "Who?"), Turn("assistant", "Ada.")], "forget[0]")
    said = str(caught.value)
    assert re.match(
        r"the chat template of some/folder (fails on|rejects) the turns of forget\[0\]: .*", said
    )
    assert re.search(HOSTILE[template], said), said
    assert "\n" not in said
    assert len(said) < 500
    assert time.monotonic() - start < 60  # of the processor's time, it had three seconds


def test_a_changed_template_is_used_at_once():
    tokenizer = tokenizer_with(CHATML)
    turns = [Turn("user", "Who?"), Turn("assistant", "Ada.")]
    first = render(tokenizer, turns, "here")[0]
    tokenizer.chat_template = DEFAULT_SYSTEM
    assert render(tokenizer, turns, "here")[0] == "<|start|>system\nBe kind.<|end|>\n" + first
