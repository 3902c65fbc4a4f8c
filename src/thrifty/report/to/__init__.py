"""Writers: a run told to TensorBoard, MLflow or Weights & Biases, each by a thread that no training waits for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from thrifty.report.to.desk import Writer, Writers
from thrifty.report.to.figures import Place

__all__ = ["Place", "Writer", "Writers", "open_writers"]


def _tensorboard(place: Place) -> Writer:
    from thrifty.report.to.tensorboard import TensorBoard

    return TensorBoard(place)


def _mlflow(place: Place) -> Writer:
    from thrifty.report.to.mlflow import MLflow

    return MLflow(place)


def _wandb(place: Place) -> Writer:
    from thrifty.report.to.wandb import WeightsAndBiases

    return WeightsAndBiases(place)


OPENED: dict[str, Callable[[Place], Writer]] = {"tensorboard": _tensorboard, "mlflow": _mlflow, "wandb": _wandb}


def open_writers(names: Iterable[str], *, name: str, folder: Path) -> Writers:
    """Open the writers of a run; their packages are imported now, so that their memory is none of the run's.

    Args:
        names: of `thrifty.spec.writers.WRITERS`, each of which is installed.
        name: of the job.
        folder: of the run, under which what they keep lies in ``reported``.
    """
    names = list(names)
    for each in names:
        importlib.import_module(f"thrifty.report.to.{each}").load()
    place = Place(name=name, folder=folder)
    return Writers({each: partial(OPENED[each], place) for each in names})
