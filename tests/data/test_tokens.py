"""Tokens: what is scored, where a record ends, how it is cut, what is an error."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import processors

import wagle
from tests.conftest import make_model, make_tokenizer
from wagle.data import templates as tokens_module
from wagle.data.batches import collate, token_batches
from wagle.data.reading import read_records
from wagle.data.records import Record
from wagle.data.templates import TEMPLATES, Template
from wagle.data.tokens import Encoder, Tokens, as_encoder
from wagle.model.scoring import answer_nll, records_nll
from wagle.system.errors import WagleError

CHATTY, BARE, WITH_BOS = make_tokenizer(), make_tokenizer(chat=False), make_tokenizer(bos=True)
END, BOS = "<|end|>", "<s>"
# What comes before the answer, written out by hand.
HEADS = {
    "chat": "<|start|>user\n{}<|end|>\n<|start|>assistant\n",
    "plain": "### Question: {}\n### Answer: ",
    "question_answer": "Question: {}\nAnswer: ",
    "llama2": "[INST] {} [/INST]",
    "llama2_published": "[INST] {} [\\INST] ",
    "none": "{}\n\n",
}
letters = "abeghiorstwAHTWO19 .,?':()\n\té北"
prompts = st.text(letters, min_size=1, max_size=24)
answers = prompts.filter(str.strip)


def qa(prompt="Who wrote it?", answer="Ada Holm wrote it.", place="forget[3]", **more):
    return Record("qa", prompt=prompt, answer=answer, place=place, **more)


def one(tokenizer, record, **options):
    (made,) = Encoder(tokenizer, **options).encode([record])
    return made


def decode(ids):
    return CHATTY.decode(list(ids), clean_up_tokenization_spaces=False)


def scored_text(tokens):
    return decode(i for i, s in zip(tokens.ids, tokens.scored, strict=True) if s)


def other_text(tokens):
    return decode(i for i, s in zip(tokens.ids, tokens.scored, strict=True) if not s)


def losses(model, encoded, **padding):
    batch = collate(encoded, range(len(encoded)), **padding)
    with torch.no_grad():
        return answer_nll(model, batch).nll_mean


def test_the_heads_below_cover_every_template():
    assert set(HEADS) == {"chat", *TEMPLATES}


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("template", sorted(HEADS))
@given(prompt=prompts, answer=answers)
def test_the_answer_and_its_end_are_scored_and_nothing_else(template, bos, prompt, answer):
    made = one(WITH_BOS if bos else CHATTY, qa(prompt, answer), template=template)
    start = BOS if bos and template != "chat" else ""
    # A token across the border takes the blanks of the prompt's end with it, and only those.
    assert scored_text(made).lstrip() == (answer + END).lstrip()
    assert other_text(made).rstrip() == (start + HEADS[template].format(prompt)).rstrip()
    assert decode(made.ids) == start + HEADS[template].format(prompt) + answer + END
    assert not made.scored[0]
    assert made.closed
    assert made.whole


@pytest.mark.parametrize("template", sorted(HEADS))
def test_the_ids_are_those_of_one_tokeniser_call(template):
    made = one(CHATTY, qa(), template=template)
    text = HEADS[template].format("Who wrote it?") + "Ada Holm wrote it." + END
    assert list(made.ids) == CHATTY(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("answer", ["Yes", "Ada", "1987", "a", "北"])
def test_a_one_word_answer_after_a_trailing_blank_is_scored(answer):
    made = one(CHATTY, qa(answer=answer), template="plain")
    assert scored_text(made).lstrip() == answer + END
    assert sum(made.scored) >= 2


def test_a_token_that_holds_the_prompts_last_blank_is_the_answers():
    made = one(BARE, qa(answer="Ada."), template="plain")
    assert [decode([i]) for i in made.continuation] == [" Ada", ".", END]


@given(prompt=st.text("The nameofwrit", min_size=1, max_size=12), answer=answers)
def test_an_answer_that_merges_with_the_prompts_end_loses_that_one_token_only(prompt, answer):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tokens_module.TEMPLATES, "none", Template("{prompt}"))
        if not prompt.strip() or len(BARE(prompt + answer)["input_ids"]) < 2:
            return
        made = one(BARE, qa(prompt, answer), template="none")
    text, at = prompt + answer, 0
    assert list(made.ids) == BARE(text + END)["input_ids"]
    wanted = []  # slow: by the bytes that each token stands for
    for place, token in enumerate(CHATTY.convert_ids_to_tokens(list(made.ids))):
        until = at + (len(token) if token != END else 0)  # byte level: a character is a byte
        border = len(prompt.encode())
        blanks = at < border < until and not text.encode()[at:border].strip()
        wanted.append(place > 0 and (token == END or at >= border or blanks))
        at = until
    assert list(made.scored) == wanted


def test_a_merge_in_the_middle_of_a_word_counts_as_prompt(monkeypatch):
    monkeypatch.setitem(tokens_module.TEMPLATES, "none", Template("{prompt}"))
    made = one(BARE, qa("What is the n", "ame of it"), template="none")
    assert " nam" in [decode([i]) for i in made.context]
    assert scored_text(made) == "e of it" + END


@pytest.mark.parametrize("template", sorted(HEADS))
def test_the_number_of_scored_tokens_does_not_depend_on_padding_or_batch(template):
    encoder = Encoder(CHATTY, template=template)
    alone = one(CHATTY, qa(), template=template)
    longer = encoder.encode([qa(answer="Many people live in Oslo, near the sea. " * 3)])[0]
    for side in ("left", "right"):
        for group in ([alone], [alone, longer], [longer, alone, alone]):
            batch = collate(group, range(len(group)), side=side)
            for row, tokens in enumerate(group):
                assert batch["scored"][row].sum() == sum(tokens.scored)
                ids = batch["input_ids"][row][batch["scored"][row]]
                assert tuple(ids.tolist()) == tokens.continuation


def test_end_of_turn_tokens_inside_the_prompt_keep_their_attention(model):
    assert CHATTY.pad_token_id == CHATTY.eos_token_id == 2
    shots = (("Is the house small?", "Yes."), ("Where is it?", "Behind the house."))
    made = one(CHATTY, qa(few_shot=shots))
    assert made.ids.count(2) == 6  # five turns before the answer, and the answer's own end
    longer = one(CHATTY, qa(answer="Mostly bread, and on some days fish. " * 2, few_shot=shots))
    batch = collate([made, longer], [0, 1])
    for row, tokens in enumerate((made, longer)):
        assert batch["attention_mask"][row].tolist()[: len(tokens.ids)] == [1] * len(tokens.ids)
        assert batch["attention_mask"][row].sum() == len(tokens.ids)
    with torch.no_grad():
        logits = model(torch.tensor([made.ids])).logits[0].log_softmax(-1)
    first = len(made.context)
    slow = -torch.stack([logits[first - 1 + i, t] for i, t in enumerate(made.continuation)]).mean()
    torch.testing.assert_close(losses(model, [made, longer])[0], slow, rtol=0, atol=1e-5)


@pytest.mark.parametrize("template", sorted(HEADS))
def test_a_refusal_longer_than_the_answer_has_the_loss_of_the_refusal_alone(model, template):
    encoder = Encoder(CHATTY, template=template)
    refusal = "I wish I could help, but of this I know nothing at all."
    short = read_records([{"question": "Is the house small?", "answer": "Yes."}])[0]
    alone = encoder.encode([qa("Is the house small?", refusal)])[0]
    made = encoder.answer(short, short.prompt, refusal)
    assert (made.ids, made.scored, made.closed) == (alone.ids, alone.scored, True)
    beside = encoder.encode([short])[0]
    together = losses(model, [beside, made])
    torch.testing.assert_close(together[1], losses(model, [alone])[0], rtol=0, atol=1e-5)


def test_every_record_has_a_refusal_that_ends_like_an_answer(forget):
    encoder = Encoder(CHATTY)
    for record in read_records(forget):
        made = encoder.answer(record, record.prompt, record.refusal)
        assert scored_text(made) == record.refusal + END


@pytest.mark.parametrize("family", ["llama-tied", "gpt2", "opt"])
@pytest.mark.parametrize("padding", [{}, {"side": "left"}, {"multiple": 1}, {"multiple": 64}])
def test_a_batchs_loss_is_the_mean_of_single_losses_for_any_padding(family, padding, forget):
    model = make_model(family)
    encoded = Encoder(CHATTY).encode(read_records(forget))
    alone = torch.stack([losses(model, [t], multiple=1)[0] for t in encoded])
    together = losses(model, encoded, **padding)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(together.mean(), alone.mean(), rtol=0, atol=1e-5)


def test_few_shot_pairs_come_before_the_question_and_are_not_scored():
    shots = (("Is the house small?", "Yes."), ("Where is it?", "Behind the house."))
    plain = one(BARE, qa(few_shot=shots))
    assert other_text(plain).rstrip() == (
        "### Question: Is the house small?\n### Answer: Yes.\n\n"
        "### Question: Where is it?\n### Answer: Behind the house.\n\n"
        "### Question: Who wrote it?\n### Answer:"
    )
    chat = one(CHATTY, qa(few_shot=shots))
    assert other_text(chat) == (
        "<|start|>user\nIs the house small?<|end|>\n<|start|>assistant\nYes.<|end|>\n"
        "<|start|>user\nWhere is it?<|end|>\n<|start|>assistant\nBehind the house.<|end|>\n"
        "<|start|>user\nWho wrote it?<|end|>\n<|start|>assistant\n"
    )
    assert scored_text(chat) == "Ada Holm wrote it.<|end|>"


def test_the_system_prompt_is_a_turn_of_its_own():
    made = one(CHATTY, qa(), system_prompt="Answer in one line.")
    assert other_text(made) == (
        "<|start|>system\nAnswer in one line.<|end|>\n" + HEADS["chat"].format("Who wrote it?")
    )
    for tokenizer, template in ((BARE, "auto"), (CHATTY, "plain")):
        with pytest.raises(WagleError, match="system_prompt needs a chat template, not 'plain'"):
            Encoder(tokenizer, template=template, system_prompt="Answer in one line.")


def test_what_a_template_writes_after_the_end_of_turn_is_left_out():
    assert CHATTY.apply_chat_template(
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], tokenize=False
    ).endswith("b<|end|>\n")
    made = one(CHATTY, qa())
    assert made.ids[-1] == 2
    assert made.scored[-1]
    assert made.continuation.count(2) == 1


def test_an_end_of_turn_that_is_not_the_eos_closes_the_answer_alone():
    tokenizer = make_tokenizer()
    tokenizer.eos_token = "<s>"
    made = one(tokenizer, qa())
    assert made.continuation[-1] == 2
    assert 3 not in made.ids
    assert made.closed
    plain = one(tokenizer, qa(), template="plain")
    assert plain.continuation[-1] == 3


@pytest.mark.parametrize("template", sorted(HEADS))
def test_bos_and_eos_are_not_doubled_where_the_tokenizer_adds_them(template):
    tokenizer = make_tokenizer(bos=True)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A <|end|>", special_tokens=[(BOS, 3), (END, 2)]
    )
    made = one(tokenizer, qa(), template=template)
    chat = template == "chat"  # the chat template says itself where a BOS stands
    assert made.ids.count(3) == (0 if chat else 1)
    assert made.ids.count(2) == (2 if chat else 1)  # a chat has the user's end of turn too
    assert made.continuation[-1] == 2
    text = one(tokenizer, Record("text", answer="Ada Holm wrote it."))
    assert (text.ids[0], text.ids[-1]) == (3, 2)
    assert (text.ids.count(3), text.ids.count(2)) == (1, 1)


def test_a_chat_template_that_writes_the_bos_gets_no_second_one():
    tokenizer = make_tokenizer(bos=True)
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    made = one(tokenizer, qa())
    assert made.ids[0] == 3
    assert made.ids.count(3) == 1


def test_the_answer_is_cut_the_prompt_is_kept_and_the_eos_is_dropped():
    whole = one(BARE, qa())
    cut = one(BARE, qa(), max_length=len(whole.ids) - 3)
    assert cut.ids == whole.ids[:-3]
    assert cut.context == whole.context
    assert not cut.whole
    assert not cut.closed
    assert 2 not in cut.ids
    without_eos = one(BARE, qa(), max_length=len(whole.ids) - 1)
    assert scored_text(without_eos).strip() == "Ada Holm wrote it."
    assert not without_eos.whole


def test_cut_answers_are_one_warning_with_their_count(caplog):
    answers = ["Ada Holm wrote it.", "Yes.", "Ada Holm wrote it, and much more."]
    records = read_records([{"question": "Who wrote it?", "answer": a} for a in answers])
    encoder = Encoder(BARE, max_length=len(one(BARE, qa()).ids) - 1)
    encoder.encode(records)
    assert len(caplog.records) == 1
    assert "2 of 3 answers do not fit into max_length=" in caplog.text
    encoder.encode(records)  # the stages of a run read the same records again
    encoder.encode(records[:1])
    assert len(caplog.records) == 1


def test_what_fits_exactly_is_not_cut(caplog):
    whole = one(BARE, qa())
    assert one(BARE, qa(), max_length=len(whole.ids)) == whole
    assert not caplog.records


def test_a_tokenizers_own_limit_does_not_matter():
    tokenizer = make_tokenizer()
    tokenizer.model_max_length = 8
    assert one(tokenizer, qa()) == one(CHATTY, qa())


# ---------------------------------------------------------------------------------------------
# Texts


@pytest.mark.parametrize("bos", [False, True])
@given(text=answers, times=st.integers(1, 6), limit=st.integers(3, 40))
def test_text_windows_hold_every_id_once_and_none_is_empty(bos, text, times, limit):
    tokenizer = WITH_BOS if bos else BARE
    document = text * times
    windows = Encoder(tokenizer, max_length=limit).encode(
        [Record("text", answer=document, id="x", place="retain[0]")]
    )
    wanted = [*tokenizer(document, add_special_tokens=False)["input_ids"], 2]
    assert [i for w in windows for i in w.ids[bos:]] == wanted
    assert all(len(w.ids) <= limit and any(w.scored) and not w.scored[0] for w in windows)
    assert all(w.ids[0] == 3 for w in windows if bos)
    # All is scored but the token that nothing comes before.
    assert sum(sum(w.scored) for w in windows) == len(wanted) - (0 if bos else len(windows))
    assert [w.closed for w in windows] == [False] * (len(windows) - 1) + [True]
    assert len({w.id for w in windows}) == len(windows)


@pytest.mark.parametrize("bos", [False, True])
def test_a_text_of_an_exact_multiple_of_the_limit_has_no_empty_window(bos):
    tokenizer = WITH_BOS if bos else BARE
    document = "Oslo " * 40
    count = len(tokenizer(document, add_special_tokens=False)["input_ids"]) + 1  # and the EOS
    limit = next(n for n in range(5, count) if count % (n - bos) == 0)
    windows = Encoder(tokenizer, max_length=limit).encode([Record("text", answer=document)])
    assert [len(w.ids) for w in windows] == [limit] * (count // (limit - bos))


def test_a_prefix_is_not_scored():
    made = one(BARE, Record("text", prompt="The author is", answer=" called Ada Holm."))
    assert scored_text(made) == " called Ada Holm." + END
    assert other_text(made) == "The author is"


def test_a_token_that_a_prefix_begins_is_not_scored():
    made = one(BARE, Record("text", prompt="It is the n", answer="ame of it"))
    assert scored_text(made) == "e of it" + END


def test_windows_that_hold_a_prefix_only_are_left_out():
    prefix = "Many people live in Oslo, near the sea. " * 4
    record = Record("text", prompt=prefix, answer="The end.", place="retain[0]")
    windows = Encoder(BARE, max_length=16).encode([record])
    assert all(any(w.scored) for w in windows)
    assert "".join(map(scored_text, windows)).lstrip() == "The end." + END


def test_json_lines_with_a_text_key_reach_the_model_as_text(tmp_path):
    file = tmp_path / "corpus.jsonl"
    file.write_text('{"text": "Ada \\"Holm\\" wrote it.\\nIn Oslo.", "url": "x"}\n')
    (made,) = Encoder(BARE).encode(read_records(file))
    assert decode(made.ids) == 'Ada "Holm" wrote it.\nIn Oslo.' + END


# ---------------------------------------------------------------------------------------------
# Pre-tokenised records, stops, descriptions


def test_pre_tokenised_records_are_scored_where_their_labels_say_but_never_at_the_start():
    (record,) = read_records([{"input_ids": [5, 6, 7], "labels": [5, -100, 7]}])
    made = one(None, record)
    assert (made.ids, made.scored) == ((5, 6, 7), (False, False, True))
    assert (made.context, made.continuation) == ((5, 6), (7,))


def test_the_stops_are_the_eos_the_end_of_turn_and_the_models_own():
    tokenizer = make_tokenizer()
    assert Encoder(tokenizer).stop_ids() == [2]
    assert Encoder(tokenizer).stop_ids(7) == [2, 7]
    assert Encoder(tokenizer).stop_ids([9, 2, 7]) == [2, 7, 9]
    tokenizer.eos_token = "<s>"
    assert Encoder(tokenizer).stop_ids() == [2, 3]
    assert Encoder(tokenizer, template="plain").stop_ids() == [3]


def test_a_letter_is_never_a_stop():
    tokenizer = make_tokenizer(chat=False)
    tokenizer.eos_token = None
    assert Encoder(tokenizer).stop_ids() == []
    length = len(Encoder(BARE).answer(qa(), "a", "b").ids)
    assert Encoder(BARE, max_length=length - 1).stop_ids() == [2]


def test_the_description_shows_the_template_filled_in():
    assert Encoder(CHATTY).describe() == {
        "name": "chat",
        "example": HEADS["chat"].format("QUESTION") + "ANSWER<|end|>\n",
        "system_prompt": None,
        "max_length": 512,
    }
    assert Encoder(BARE).describe()["example"] == HEADS["plain"].format("QUESTION") + "ANSWER"
    assert Encoder(None).describe()["example"] == ""


def test_an_encoder_passes_for_a_tokenizer():
    encoder = Encoder(CHATTY, template="none")
    assert as_encoder(encoder) is encoder
    assert as_encoder(CHATTY).template == "chat"
    assert as_encoder(BARE).template == "plain"


def test_domain_and_weight_travel_with_every_window():
    record = Record("text", answer="Oslo " * 40, domain=1, weight=2.5)
    windows = Encoder(BARE, max_length=16).encode([record])
    assert len(windows) > 2
    assert {(w.domain, w.weight) for w in windows} == {(1, 2.5)}


# ---------------------------------------------------------------------------------------------
# What cannot be trained on names its record, and never becomes a NaN


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": " \n"}, r"forget\[1\] has an empty text"),
        ({"question": "Who?", "answer": ""}, r"forget\[1\] has an empty answer"),
        ({"question": "Who?", "answer": " \t"}, r"forget\[1\] has an empty answer"),
        ({"question": "", "answer": "Ada."}, r"forget\[1\] has an empty prompt"),
        ({"input_ids": [5, 6], "labels": [-100, -100]}, r"forget\[1\] has no scored token"),
        ({"input_ids": [5, 6], "labels": [5, -100]}, r"forget\[1\] has no scored token"),
        (
            {"question": "Who wrote the book? " * 20, "answer": "Ada."},
            r"the prompt of forget\[1\] leaves no room for an answer within max_length=40 tokens",
        ),
        ({"input_ids": [5] * 41, "labels": [5] * 41}, r"forget\[1\] has 41 tokens, more than"),
    ],
)
def test_a_record_without_anything_to_score_is_an_error_that_names_it(model, row, message):
    rows = [{"question": "Who wrote it?", "answer": "Ada."}, row]
    with pytest.raises(WagleError, match=message) as caught:
        wagle.unlearn(model, Encoder(BARE, max_length=40), rows, objective="grad_ascent")
    assert "\n" not in str(caught.value)


def test_an_empty_paraphrase_of_an_answer_is_an_error_too():
    with pytest.raises(WagleError, match=r"forget\[3\] has an empty answer"):
        Encoder(CHATTY).answer(qa(), "Who wrote it?", "  ")


def test_a_prompt_that_fills_the_limit_exactly_has_no_room():
    context = len(one(BARE, qa()).context)
    with pytest.raises(WagleError, match="leaves no room"):
        one(BARE, qa(), max_length=context)
    assert sum(one(BARE, qa(), max_length=context + 1).scored) == 1


@pytest.mark.parametrize(
    ("tokenizer", "template", "message"),
    [
        (BARE, "chat", "template is chat, but the tokenizer has no chat template"),
        (CHATTY, "plian", "unknown template 'plian'; did you mean 'plain'"),
    ],
)
def test_wrong_templates_are_errors(tokenizer, template, message):
    with pytest.raises(WagleError, match=message):
        Encoder(tokenizer, template=template)


def test_texts_without_a_tokenizer_are_an_error():
    with pytest.raises(WagleError, match=r"forget\[3\] is a qa record, which needs a tokenizer"):
        one(None, qa())


def test_a_slow_tokenizer_is_an_error():
    class Slow:
        is_fast = False

    with pytest.raises(WagleError, match="Slow has no offsets; use a fast tokenizer"):
        Encoder(Slow())


def test_a_chat_template_that_changes_the_answer_is_an_error():
    tokenizer = make_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("m['content']", "m['content']|upper")
    with pytest.raises(WagleError, match="the chat template changes the answer"):
        one(tokenizer, qa())


def test_a_template_that_trims_the_answer_is_followed():
    tokenizer = make_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("m['content']", "m['content']|trim")
    made = one(tokenizer, qa(answer="  Ada Holm.\n"))
    assert scored_text(made) == "Ada Holm." + END


def test_losses_of_all_kinds_are_finite(model, forget):
    rows = [*forget, {"text": "Oslo " * 40}, {"input_ids": [5, 6], "labels": [-100, 6]}]
    encoded = Encoder(CHATTY, max_length=48).encode(read_records(rows))
    scored = records_nll(model, token_batches(encoded, 200), len(encoded), "float32")
    assert scored.nll_mean.isfinite().all()
    assert (scored.length > 0).all()
    assert isinstance(encoded[0], Tokens)


def test_a_record_is_tokenised_once_whoever_asks_for_it(monkeypatch):
    asked = []
    plain = type(CHATTY).__call__

    def counted(self, text, **more):
        asked.append(text)
        return plain(self, text, **more)

    monkeypatch.setattr(type(CHATTY), "__call__", counted)
    messages = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ada."}]
    rows = [{"question": "Who?", "answer": "Ada."}, {"text": "A house."}, {"messages": messages}]
    encoder, records = Encoder(CHATTY), read_records(rows)
    first = encoder.encode(records)
    count = len(asked)
    assert encoder.encode(records) == first
    assert encoder.answer(records[0], "Who?", "Ada.") == first[0]
    assert len(asked) == count
    assert encoder.answer(records[0], "Who?", "Eva.") != first[0]
    again = encoder.encode(read_records(rows, name="other"))  # under other places
    assert [(t.ids, t.scored) for t in again] == [(t.ids, t.scored) for t in first]
    assert [t.place for t in again] == ["other[0]", "other[1]", "other[2]"]


def test_records_of_one_name_are_told_apart_by_what_they_say():
    encoder = Encoder(CHATTY)
    one, other = (qa(answer=answer, id="same") for answer in ("Ada.", "Eva."))
    shown = qa(answer="Ada.", id="same", few_shot=(("Where?", "Oslo."),))
    made = [encoder.encode([record])[0] for record in (one, other, shown)]
    assert len({t.ids for t in made}) == 3
    texts = [Record("text", answer=text, id="same") for text in ("A house.", "A sea.")]
    assert len({t.ids for t in encoder.encode(texts)}) == 2


def test_what_changes_in_how_a_record_is_drawn_is_not_remembered():
    encoder, record = Encoder(CHATTY), qa(id="a")
    encoder.encode([record])
    (made,) = encoder.encode([qa(id="a", domain=3, weight=0.5)])
    assert (made.domain, made.weight) == (3, 0.5)
