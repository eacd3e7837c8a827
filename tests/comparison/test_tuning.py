"""Tuning: the grid, the choice, and trials that are kept."""

from __future__ import annotations

import importlib.util

import pytest

from wagle.comparison.arms import Cell
from wagle.comparison.tuning import Tuned, check_optuna, learning_rates, trial_store, tune
from wagle.system.errors import WagleError

CELL = Cell("wagle", 0.5)


def run(rate, forget, stopped=None):
    """A run whose retain probability is at 0.95 of before at its last look."""
    looks = [{"step": 0, "retain": 1.0, "forget": 1.0}]
    looks.append({"step": 1, "retain": 0.95, "forget": forget})
    return {"learning_rate": rate, "trajectory": looks, "stopped": stopped}


def test_the_grid_is_even_in_logarithm_from_a_tenth_to_thirty_times():
    assert learning_rates(1e-5, 1) == [1e-5]
    found = learning_rates(1e-5, 3)
    assert found == pytest.approx([1e-6, 1e-5 * 3**0.5, 3e-4])  # sqrt(0.1 * 30) in the middle
    assert len(learning_rates(2.0, 4)) == 4


def test_the_learning_rate_that_forgets_most_wins(tmp_path):
    figures = {1.0: 0.5, 2.0: 0.2, 3.0: 0.4}
    with trial_store(tmp_path / "study.db") as storage:
        found = tune(storage, CELL, list(figures), lambda rate: run(rate, figures[rate]))
        assert found == Tuned(2.0, edge=False)
        ends = tune(storage, Cell("dense", None), [1.0, 2.0], lambda rate: run(rate, rate))
        assert ends == Tuned(1.0, edge=True)
        one = tune(storage, Cell("fisher", 0.5), [1.0], lambda rate: run(rate, 0.1))
        assert one == Tuned(1.0, edge=False)


def test_of_equal_trials_the_lower_learning_rate_wins(tmp_path):
    with trial_store(tmp_path / "study.db") as storage:
        found = tune(storage, CELL, [1.0, 2.0, 3.0], lambda rate: run(rate, 0.5))
    assert found.learning_rate == 1.0


def test_a_run_that_broke_off_is_no_candidate_however_low_its_figure(tmp_path):
    def trial(rate):
        return run(rate, 0.0, "diverged") if rate == 3.0 else run(rate, 0.6)

    with trial_store(tmp_path / "study.db") as storage:
        assert tune(storage, CELL, [1.0, 2.0, 3.0], trial).learning_rate == 1.0
        with pytest.raises(WagleError, match=r"dense broke off at every .* \(diverged\); lower"):
            tune(storage, Cell("dense", None), [3.0], trial)


def test_a_killed_tuning_runs_only_the_trials_that_are_missing(tmp_path):
    grid, asked = learning_rates(1e-5, 4), []

    def trial(rate, last=9):
        if len(asked) == last:
            raise KeyboardInterrupt
        asked.append(rate)
        return run(rate, 0.5)

    with trial_store(tmp_path / "study.db") as storage, pytest.raises(KeyboardInterrupt):
        tune(storage, CELL, grid, lambda rate: trial(rate, 2))
    for _ in range(2):
        with trial_store(tmp_path / "study.db") as storage:
            assert tune(storage, CELL, grid, trial).learning_rate == grid[0]
    assert asked == grid


def test_trials_are_kept_whole_for_optuna_to_show(tmp_path):
    import optuna

    with trial_store(tmp_path / "study.db") as storage:
        tune(storage, CELL, [1.0, 2.0], lambda rate: run(rate, rate / 4))
        study = optuna.load_study(study_name="wagle@0.5", storage=storage)
        assert [t.value for t in study.trials] == [0.25, 0.5]
        assert study.best_trial.params == {"learning_rate": 1.0}
        assert study.trials[1].user_attrs == run(2.0, 0.5)


def test_without_optuna_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(WagleError, match=r"needs optuna: pip install 'wagle\[sweep\]'"):
        check_optuna()
