"""The recordings of a data set, however they are laid out: each with its label or transcript, and its split."""

from __future__ import annotations

from dataclasses import dataclass

from thrifty.data.inputs import InputFile
from thrifty.data.inventory import Inventory
from thrifty.data.labels import folders_of
from thrifty.data.sounds.sound import SOUND_SUFFIXES
from thrifty.data.split import SPLIT_NAMES
from thrifty.errors import DataError, nearest
from thrifty.spec import AudioData
from thrifty.spec.file_names import fields_of, fits, read_name
from thrifty.spec.transcripts import tidied


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording that was not listened to yet.

    Attributes:
        file: where it lies.
        label: its class, or what is said in it.
        split: the one that its name, folder or table says; nothing where that is to be dealt.
        key: group or moment that it belongs to, where the job's split goes by one.
    """

    file: InputFile
    label: str
    split: str
    key: str = ""


def recordings_of(data: AudioData, inventory: Inventory) -> list[Recording]:
    """Return the recordings of files, in the order of their names.

    Raises:
        DataError: the split goes by a column, or field of names, that there is none of.
    """
    _check_key(data, inventory)
    folders = folders_of((file.name for file in inventory.files), SOUND_SUFFIXES)

    def told(file: InputFile) -> Recording:
        fields = (read_name(data.names, file.name) if data.names else None) or {}
        split = _by_rule(data, fields) or SPLIT_NAMES.get(fields.get("split", "").lower(), "")
        if inventory.manifest is not None:
            named = inventory.manifest.named[file.name]
            label = tidied(named.label) if data.transcript is not None else named.label
            return Recording(file, label, split or named.split, fields.get(str(data.split.together), named.key))
        if data.names is not None:
            return Recording(file, fields["label"], split, fields.get(str(data.split.together), ""))
        return Recording(file, folders.label(file.name), folders.split(file.name))

    return [told(file) for file in inventory.files]


def _by_rule(data: AudioData, fields: dict[str, str]) -> str:
    """The split that the job gives to recordings of these fields; nothing where its rules do not speak of them."""
    rules = {"test": data.test, "validation": data.validation}
    return next((part for part, rule in rules.items() if rule and fields and fits(rule, fields)), "")


def _check_key(data: AudioData, inventory: Inventory) -> None:
    key = data.split.together
    if key is None or (data.names is None and inventory.manifest is not None):
        return
    fields = fields_of(data.names) if data.names is not None else ()
    if key not in fields:
        known = f"the fields of data.names are: {', '.join(fields)}" if fields else "no table names the recordings"
        raise DataError(
            f"data.split goes by {key!r}, and {known}",
            nearest=nearest(str(key), fields),
            mend="Name a field of data.names, or a column of a table beside the recordings.",
        )
