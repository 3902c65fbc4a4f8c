"""What writers are told: names that all of them take, settings that are flat, no number that is none."""

from __future__ import annotations

import re

from made_runs import make_plan
from told_runs import SPENT, step

from thrifty.report.to.figures import bill_figures, figures_of, held_out_figures, settings_of


def test_settings_of_a_plan_are_flat() -> None:
    settings = settings_of(make_plan())
    assert settings["optim.learning_rate"] == 2e-3 and settings["model.name"] == "resnet8"
    assert settings["stop.joules"] == "inf" and settings["batch.size"] == 32
    assert not any(name.startswith(("why", "cost")) for name in settings)
    assert all(isinstance(value, str | int | float | bool) for value in settings.values())


def test_names_are_ones_that_all_take() -> None:
    names = [
        *figures_of(step(3)),
        *bill_figures(SPENT),
        *held_out_figures({"bits_per_byte": 1.0}),
        *settings_of(make_plan()),
    ]
    assert all(re.fullmatch(r"[\w./ -]+", name) for name in names)
    assert "train/gradient_norm" not in figures_of(step(3)), "it is no number"
