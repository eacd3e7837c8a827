"""What a model wrote: decoded, and how it reads."""

from tests.conftest import make_tokenizer
from tests.evaluation.judges.test_classifiers import save_tiny
from wagle.evaluation.asking.requests import Answers, Greedy, TextAnswer
from wagle.evaluation.figures import Written
from wagle.evaluation.judges.classifiers import load_judges
from wagle.evaluation.tasks.raw import decoded
from wagle.evaluation.tasks.writing import EVERYWHERE, writing_figures, written
from wagle.metrics.table import WRITTEN


def test_what_was_written_is_without_special_tokens_and_outer_blanks():
    tokenizer = make_tokenizer()
    said = " a , b ! <|end|>"
    ids = tuple(tokenizer(said)["input_ids"])
    assert decoded(tokenizer, ids) == "a , b !"  # no blank inside is cleaned up
    asked = Greedy((5,), 4)
    answers = Answers({asked: TextAnswer(ids, False)})
    text = written(tokenizer, answers, asked, "x[0]", "question", "expected")
    assert (text.place, text.said, text.finished) == ("x[0]", "a , b !", False)
    other = written(tokenizer, Answers({asked: TextAnswer((), True)}), asked, "x[1]", "", "")
    shares = {name: figure.value for name, figure in writing_figures([text, other], 0).items()}
    assert set(shares) == set(EVERYWHERE)
    wanted = {"token_entropy": 0.5, "empty": 0.5, "at_limit": 0.5}
    assert {metric: shares[metric] for metric in wanted} == wanted


def test_classifiers_judge_what_was_written(tmp_path):
    judges = load_judges(*[save_tiny(tmp_path / "tiny", ["clean", "entailment"])] * 2)
    texts = [
        Written(f"forget[{i}]", "who?", "by sea", said, True)
        for i, said in enumerate(("she lives by sea", ""))
    ]
    for gone, target in ((True, "reference"), (False, None)):
        found = writing_figures(texts, 0, judges, gone=gone, target=target)
        ours = [metric for metric in EVERYWHERE if metric not in WRITTEN]
        assert ours[0] == "token_entropy"
        assert list(found) == [*ours, "fluency", "entailment", "empty", "at_limit"]
        rows = judges.rows(texts, forget=gone)
        assert {name: dict(found[name].per_record) for name in rows} == rows
        assert found["fluency"].direction == found["token_entropy"].direction == "higher"
        assert found["fluency"].target is None
        assert found["fluency"].note == found["entailment"].note == "classifier tiny"
        assert found["entailment"].direction == ("target" if gone else "higher")
        assert found["entailment"].target == target
        assert found["entailment"].interval_method == "wilson 95 %"
