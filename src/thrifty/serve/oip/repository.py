"""A folder of bundles from which models are loaded and unloaded while the server runs; nothing outside it is read.

Each folder in it is a model of that name: a bundle, a run with its ``bundle``, or a folder for each version, named by
its number, with one of the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thrifty.errors import JobError, RequestError, ThriftyError, nearest
from thrifty.serve.folders import bundle_in, versions_in
from thrifty.serve.models import Models

OFF = "The model repository is off"
OFF_MEND = "Start the server with --repository FOLDER."


class Repository:
    """The models of one folder.

    Args:
        folder: of models.
        models: that the server answers with.

    Raises:
        JobError: there is no such folder.
    """

    def __init__(self, folder: str | Path, models: Models) -> None:
        self._folder, self._models = Path(folder).resolve(), models
        if not self._folder.is_dir():
            raise JobError(f"the repository '{folder}' is no folder", mend="Name a folder with bundles in it.")

    def index(self, *, ready_only: bool = False) -> list[dict[str, str]]:
        """Every version that the server knows and how it stands, and every model that could be loaded."""
        known = [
            {"name": each.name, "version": str(each.version), "state": each.state, "reason": each.reason}
            for each in self._models.standings()
        ]
        names = {each["name"] for each in known}
        others = [
            {"name": name, "version": "", "state": "UNAVAILABLE", "reason": "not loaded"}
            for name in self._names()
            if name not in names
        ]
        return [each for each in [*known, *others] if not ready_only or each["state"] == "READY"]

    def load(self, name: str) -> None:
        """Load all versions of a model from its folder, in the place of those that are loaded, each once it answers.

        Raises:
            RequestError: 404, there is no such model; 400, one of its bundles is damaged: its text says what.
        """
        folder = self._folder_of(name)
        try:
            for version, bundle in self._bundles(folder):
                self._models.load(bundle, name=name, version=version)
        except RequestError:
            raise
        except ThriftyError as error:
            what = error.what.replace(f"{self._folder}/", "")  # where it lies is nobody's business
            raise RequestError(f"failed to load '{name}', {what}", mend=error.mend) from None

    def unload(self, name: str) -> None:
        """Let all versions of a model go once their last requests are answered.

        Raises:
            RequestError: 404, it is not loaded.
        """
        self._models.unload(name)

    def _names(self) -> list[str]:
        return sorted(each.name for each in self._folder.iterdir() if not each.name.startswith(".") and self._has(each))

    def _has(self, folder: Path) -> bool:
        # a link that leads out of the repository is no model of it
        return folder.resolve().parent == self._folder and _is_model(folder)

    def _folder_of(self, name: str) -> Path:
        plain = bool(name) and not name.startswith(".") and not set(name) & {"/", "\\", "\0"}
        folder = self._folder / name if plain else self._folder
        if not plain or not self._has(folder):
            raise RequestError(
                f"failed to load '{name}', failed to poll from model repository",
                status=404,
                nearest=nearest(name, self._names()),
            )
        return folder

    def _bundles(self, folder: Path) -> list[tuple[int | None, Path]]:
        own = bundle_in(folder)
        return [(None, own)] if own is not None else [*sorted(versions_in(folder).items())]


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Refuse what a load request may carry in Triton and would be ignored here."""
    for key in parameters:
        if key == "config" or key.startswith("file:"):
            raise RequestError(f"load parameter '{key}' is not supported", mend="A bundle says all of itself.")


def _is_model(folder: Path) -> bool:
    return bundle_in(folder) is not None or bool(versions_in(folder))
