"""The table of ``wagle check``."""

from wagle.evaluation.knowing.advice import Remedy
from wagle.evaluation.knowing.asking import Speed
from wagle.evaluation.knowing.checking import Knower, Knowledge
from wagle.evaluation.knowing.deciding import Finding
from wagle.report.text.knowledge import knowledge_table


def test_the_table_shows_figures_verdict_and_what_to_do():
    main = Finding(12, 0.8, 0.3, 0.1, 0.5, (0.4, 0.6), 0.0005, 0.45, 0.02)
    other = Finding(12, 0.31, 0.3, None, 0.01, (0.0, 0.02), 0.4, None, 0.02)
    found = Knowledge(
        "knows",
        ("Because.",),
        (
            Remedy(
                "unlearn", "It works.", ("wagle run x.yaml",), "name: x\n", 90.0, 2_000_000, "all"
            ),
        ),
        {"model": Knower("served", "lora", "abc" * 9, "knows", {"probability": main, "p": other})},
        12,
        0,
        4,
        Speed(1234, 2.0),
        0,
    )
    lines = knowledge_table(found).splitlines()
    assert lines[1].split() == [
        "model",
        "probability",
        "0.800",
        "0.300",
        "0.100",
        "+0.500",
        "[+0.400,",
        "+0.600]",
        "0.001",
        "yes",
    ]
    assert lines[2].split() == [
        "p",
        "0.310",
        "0.300",
        "-",
        "+0.010",
        "[+0.000,",
        "+0.020]",
        "0.400",
        "no",
    ]
    text = "\n".join(lines)
    assert "model        served with lora (abcabcabcabc)" in text
    assert "cost         about 1 min 30 s (all), 2.00 MB of disk" in text
    assert "      name: x\n    wagle run x.yaml" in text
