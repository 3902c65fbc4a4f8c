"""`Sheet`: what a file says of a device and its node, each number with its source; the catalogue's form and yours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from thrifty.errors import JobError, nearest
from thrifty.hardware.units import (
    parse_bytes_per_second,
    parse_count,
    parse_delay,
    parse_flops_per_second,
    parse_usd_per_hour,
    parse_watts,
)
from thrifty.spec.device import Quantity
from thrifty.spec.plain import Plain
from thrifty.spec.units import parse_bytes

PRECISIONS = ("fp32", "tf32", "bf16", "fp16", "fp8", "int8", "fp4")
KINDS = ("cuda", "rocm", "tpu", "cpu")


class Number(NamedTuple):
    """A number a file may hold: how it is read, an example of it, and what it is for."""

    read: Callable[[Any], float]
    example: str
    purpose: str


NUMBERS: dict[str, Number] = {
    **{
        f"flops.{name}": Number(parse_flops_per_second, "989 TFLOP/s", f"dense peak of {name} matrix products")
        for name in PRECISIONS
    },
    "memory": Number(parse_bytes, "80 GiB", "what one device holds"),
    "bandwidth": Number(parse_bytes_per_second, "3350 GB/s", "of that memory, reading and writing together"),
    "idle": Number(parse_watts, "70 W", "power of one device at rest"),
    "busy": Number(parse_watts, "700 W", "power of one device at full use"),
    "cores": Number(parse_count, "132", "multiprocessors"),
    "cache": Number(parse_bytes, "50 MB", "last cache before the memory"),
    "price": Number(parse_usd_per_hour, "2.50 USD/h", "of one device with its share of the node, on demand"),
    "spot": Number(parse_usd_per_hour, "1.00 USD/h", "the same, interruptible"),
    "node.devices": Number(parse_count, "8", "devices that node.link joins"),
    "node.partition": Number(parse_count, "4", "devices of the smallest part that is used alone"),
    "node.link.bandwidth": Number(
        parse_bytes_per_second, "450 GB/s", "what a device sends to others of its node, one direction"
    ),
    "node.link.latency": Number(parse_delay, "3 us", "of one message within the node"),
    "node.network.bandwidth": Number(
        parse_bytes_per_second, "50 GB/s", "a device's share of what its node sends to others, one direction"
    ),
    "node.network.latency": Number(parse_delay, "10 us", "of one message between nodes"),
    "node.network.power": Number(parse_watts, "120 W", "a device's share of switches and optics between nodes"),
    "node.host.devices": Number(parse_count, "8", "devices that share one host; as node.devices when left out"),
    "node.host.memory": Number(parse_bytes, "2 TB", "memory of the host, for loading and offload"),
    "node.host.power": Number(parse_watts, "2.8 kW", "what the host draws: processors, memory, fans, network"),
    "node.host.system": Number(parse_watts, "10.2 kW", "rated power of host and devices; gives node.host.power"),
}
TEXTS = ("name", "kind", "driver", "match", "calibration", "like", "source", "node.link.name", "node.network.name")
# What no prediction can do without. Of arithmetic, fp32 and one 16-bit rate are asked for beside these.
NEEDED = (
    "memory", "bandwidth", "idle", "busy", "node.devices", "node.link.bandwidth", "node.link.latency",
    "node.network.bandwidth", "node.network.latency", "node.host.memory", "node.host.power",
)  # fmt: skip
SECTIONS = ("flops", "node", "node.link", "node.network", "node.host")


class Sheet(Plain):
    """What is known of a device and the node it stands in.

    Attributes:
        key: what it is asked for by.
        aliases: other names of it.
        texts: by path, such as ``name`` and ``node.link.name``.
        numbers: by path, such as ``flops.bf16``; those of `NUMBERS`, in FLOP/s, bytes, bytes/s, watts, seconds, USD/h.
    """

    key: str
    aliases: tuple[str, ...]
    texts: dict[str, str]
    numbers: dict[str, Quantity]

    def text(self, path: str, default: str = "") -> str:
        """Return a text, or ``default`` where the sheet has none."""
        return self.texts.get(path, default)

    def value(self, path: str, default: float = 0.0) -> float:
        """Return a number, or ``default`` where the sheet has none."""
        return self.numbers[path].value if path in self.numbers else default

    def peaks(self) -> dict[str, Quantity]:
        """FLOP/s of dense matrix products by precision."""
        return {name: self.numbers[f"flops.{name}"] for name in PRECISIONS if f"flops.{name}" in self.numbers}


def read_sheet(
    values: Mapping[Any, Any],
    *,
    key: str,
    origin: str,
    said: Callable[[str], str],
    base: Sheet | None = None,
    node: Sheet | None = None,
) -> Sheet:
    """Make a sheet of the keys and values of a file.

    Args:
        values: as read from YAML, nested.
        key: name it is asked for by.
        origin: the file, for errors.
        said: from the text of ``source`` (may be empty) to the source of a number that has none of its own.
        base: what is taken where the file says nothing (``like``).
        node: likewise, of what begins with ``node.``; goes before ``base``.

    Raises:
        JobError: a key is unknown, a number has a wrong unit or is missing; all mistakes of the file at once.
    """
    wrong: list[str] = []
    own_texts: dict[str, str] = {}
    raw_numbers: dict[str, Any] = {}
    sources: dict[str, str] = {}
    aliases: tuple[str, ...] = ()
    for path, value in _flat(values, ""):
        if path == "aliases" and isinstance(value, list) and all(isinstance(each, str) for each in value):
            aliases = tuple(value)
        elif not isinstance(value, str | int | float):
            wrong.append(f"'{path}' holds {type(value).__name__}, not a text or a number")
        elif path.startswith("sources."):
            sources[path.removeprefix("sources.")] = str(value)
        elif path in TEXTS:
            own_texts[path] = str(value)
        elif path in NUMBERS:
            raw_numbers[path] = value
        elif path in SECTIONS:
            wrong.append(f"'{path}' holds '{value}', not keys and values")
        else:
            wrong.append(f"unknown key '{path}'{_guess(path)}")
    numbers: dict[str, Quantity] = {}
    for path, value in raw_numbers.items():
        try:
            source = sources.get(path) or said(own_texts.get("source", ""))
            numbers[path] = Quantity(value=NUMBERS[path].read(value), source=source)
        except ValueError as error:
            wrong.append(f"{path}: {error}")
    if wrong:
        raise JobError(
            f"{origin}: {'; '.join(wrong)}", mend="Correct each; the keys are explained in docs/hardware.md."
        )
    inherited = base.numbers if base else {}
    around = node.numbers if node else {}
    if own_texts.get("kind", "cuda") not in KINDS:
        raise JobError(
            f"{origin}: unknown kind '{own_texts['kind']}'",
            mend=f"Known: {', '.join(KINDS)}.",
        )
    # a host's power that is written replaces the rated power it would be derived from, and the other way round
    if "node.host.system" in numbers and "node.host.power" not in numbers:
        inherited = {path: each for path, each in inherited.items() if path != "node.host.power"}
        around = {path: each for path, each in around.items() if path != "node.host.power"}
    texts = {**(base.texts if base else {}), **(node.texts if node else {}), **own_texts}
    return Sheet(key=key, aliases=aliases, texts=texts, numbers={**inherited, **around, **numbers})


def check_whole(sheet: Sheet, origin: str) -> Sheet:
    """Return the sheet when no number is missing and none contradicts another.

    Raises:
        JobError: naming each missing number with what it is for and an example.
    """
    missing = [path for path in NEEDED if path not in sheet.numbers]
    if "node.host.power" in missing and "node.host.system" in sheet.numbers:
        missing.remove("node.host.power")
    if "flops.fp32" not in sheet.numbers:
        missing.insert(0, "flops.fp32")
    if not {"flops.bf16", "flops.fp16"} & set(sheet.numbers) and sheet.text("kind") != "cpu":
        missing.insert(0, "flops.bf16")
    if missing:
        lines = [f"{path} ({NUMBERS[path].purpose}, such as {NUMBERS[path].example})" for path in missing]
        raise JobError(
            f"{origin} lacks {len(lines)} number{'s' * (len(lines) > 1)}: {'; '.join(lines)}",
            mend="Write them, or take them from a known device, such as: like: h100.",
        )
    idle, busy = sheet.value("idle"), sheet.value("busy")
    if idle > busy:
        raise JobError(f"{origin}: idle power {idle:g} W is above busy power {busy:g} W", mend="Correct one of them.")
    devices, partition = sheet.value("node.devices"), sheet.value("node.partition", sheet.value("node.devices"))
    if devices % partition:
        raise JobError(
            f"{origin}: node.partition {partition:g} does not divide node.devices {devices:g}",
            mend="A partition is a part of a node that is used alone, such as a tray of 4 of 72.",
        )
    rated = sheet.value("node.host.system")
    if rated and "node.host.power" not in sheet.numbers and rated <= sheet.value("node.host.devices", devices) * busy:
        raise JobError(
            f"{origin}: the system's rated {rated:g} W is no more than its devices' own watts",
            mend="Correct node.host.system or busy, or write node.host.power.",
        )
    return sheet


def _flat(values: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and path in (*SECTIONS, "sources"):
            yield from _flat(value, f"{path}.")
        else:
            yield path, value


def _guess(path: str) -> str:
    known = [*NUMBERS, *TEXTS, *SECTIONS, "aliases", "sources"]
    close = nearest(path, known) or next((each for each in known if each.endswith(f".{path}")), "")
    if not close:
        near = nearest(path.rpartition(".")[2], {each.rpartition(".")[2] for each in known})
        close = next((each for each in known if near and each.rpartition(".")[2] == near), "")
    return f" (did you mean '{close}'?)" if close else ""
