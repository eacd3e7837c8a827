"""The training section: the curves of unlearning, and of any teaching before it."""

from __future__ import annotations

from wagle.report.html.charts import POINTS, lines_chart
from wagle.report.html.page import Page
from wagle.report.html.section import Section


def training(page: Page) -> Section:
    """Loss and forget probability over the steps."""
    goal = page.goal
    found = {
        "steps": len(page.history),
        "taught": len(page.teaching),
        "most": POINTS,
        "goal": goal,
        "loss": lines_chart(
            page.history,
            {"forget_nll": False, "retain_nll": True},
            "loss of forget and retain records per unlearning step",
            y_title="mean NLL, nats",
        ),
        "probability": lines_chart(
            page.history,
            {"forget.probability": False},
            "probability of the forget set while unlearning",
            y_title="forget probability",
            goal=goal.value if goal else None,
        ),
        "teaching": lines_chart(
            page.teaching,
            {"retain_nll": False},
            "loss of the taught records per step",
            y_title="mean NLL, nats",
        ),
    }
    return Section("training", "Training", 70, {"training": found})
