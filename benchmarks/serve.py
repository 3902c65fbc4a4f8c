"""Our server beside LitServe, MLServer, BentoML and a plain FastAPI application: the same bundle, the same OpenVINO.

    python -m benchmarks.serve [CASE …] [--quick] [--rounds N]

Cases: ``tiny``, an MLP of images, where the server is the cost; ``resnet``, ResNet-18 of 32 x 32 pixels; ``bert``, 6 x
384, of sentences; all as OpenVINO computes them, the last two in bf16. A request is one JPEG file as base64, or one
sentence, in JSON, by connections that are kept; clients are one process on the same machine and take their share of its
cores from everybody. Each server decodes, normalises or tokenises by itself. The environments of the others are made by
``make servers``; each is tried alone and, where it can, with batches of up to 32 that wait up to 5 ms, and compared in
the way that answers more of that case.

Each visit starts a server anew, warms it, and measures: 32 clients in a closed loop; one client; open loops, requests
at a fixed rate, at 50, 80 and 100 % of what this server answered in the closed loop. Goodput is what was answered
within a second. ``serve_capacity_share`` is goodput over what one process computes of raw rows at its best batch size
with nothing else on the machine. ``serve_single_added_ms`` is the median of one client less that of such a process for
one row; ``serve_p99_ratio`` is the 99th percentile at 80 % over that row. Overheads are processor seconds of a request
of a nearly empty model, those of the same rows in one process, by as many threads as take least, taken away: of one
client, where each request finds the caches cold, and of 32 (``loaded``), less rows in batches of as many. Each row is
held to the bundle's answer.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks import real_data
from benchmarks.clients import Answer, Client, closed_loop, open_loop, quantile, request, run
from benchmarks.compress import trained
from benchmarks.race import told
from benchmarks.record import record
from benchmarks.serve_peers import SERVERS, Raw, Server, Way, answered
from benchmarks.served import image_bundle, pooling_bundle, served
from thrifty import hardware
from thrifty.export.bundle import Bundle, load_bundle, rewrite_bundle

CLIENTS = 32
DEADLINE_S = 1.0
SHARES = (50, 80, 100)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
TOLERANCE = 0.02
ROWS = 64
# of the cases whose model is the cost, the one that stands for all
WORST = {"goodput_ratio": min, "capacity_share": min, "single_added_ms": max, "p99_ratio": max}
# the side of an image whose pixels are 588 KiB
LARGE = 448


@dataclass(frozen=True)
class Size:
    """Seconds of each part of a visit, and requests whose overhead is measured."""

    warm_s: float
    closed_s: float
    single_s: float
    open_s: float
    requests: int


WHOLE = Size(warm_s=2.0, closed_s=6.0, single_s=3.0, open_s=5.0, requests=3000)
QUICK = Size(warm_s=0.5, closed_s=1.5, single_s=1.0, open_s=1.0, requests=300)


@dataclass
class Case:
    """A bundle, rows to ask, and what one process makes of them.

    Attributes:
        name: in figures.
        folder: of the bundle.
        rows: raw.
        right: probabilities of each.
        capacity: rows a second at the best batch size within the deadline.
        own_s: seconds of one row.
    """

    name: str
    folder: Path
    rows: Sequence[Raw]
    right: list[np.ndarray] = field(default_factory=list)
    capacity: float = 0.0
    own_s: float = 0.0

    def measure(self, seconds: float) -> None:
        """Answer all rows in this process, by batches of some sizes, for so long each."""
        bundle = load_bundle(self.folder)
        self.right = [_offline(bundle, [raw])[0] for raw in self.rows]
        rates = []
        for batch in BATCHES:
            _offline(bundle, self.rows[:batch])
            took: list[float] = []
            until = time.perf_counter() + seconds
            while len(took) < 3 or time.perf_counter() < until:
                at = len(took) * batch % len(self.rows)
                rows = [self.rows[(at + each) % len(self.rows)] for each in range(batch)]
                began = time.perf_counter()
                _offline(bundle, rows)
                took.append(time.perf_counter() - began)
            if batch == 1:
                self.own_s = statistics.median(took)
            if statistics.median(took) <= DEADLINE_S:
                rates.append(batch * len(took) / sum(took))
        self.capacity = max(rates)


def _offline(bundle: Bundle, rows: Sequence[Raw]) -> list[np.ndarray]:
    answers = bundle.form.answers([bundle.form.row(raw) for raw in rows])
    return [each["probabilities"] for each in answers]


@dataclass(frozen=True)
class Visit:
    """What a server did: answers a second in time, milliseconds of the median and the 99th percentile."""

    goodput: float
    p50_ms: float
    p99_ms: float
    single_ms: float
    opened: dict[int, tuple[float, float, float]]
    wrong: int


def visit(server: Server, way: Way, case: Case, size: Size) -> Visit:
    """Start a server, measure it, and end it."""
    wholes = [server.whole(raw) for raw in case.rows]
    with server.start(case.folder, way, case.rows[0]) as port:
        run(closed_loop(port, wholes, CLIENTS, size.warm_s))
        wrong = sum(
            not np.allclose(answered(server, port, raw), right, atol=TOLERANCE)
            for raw, right in zip(case.rows, case.right, strict=True)
        )
        closed = _summed(run(closed_loop(port, wholes, CLIENTS, size.closed_s)), size.closed_s)
        single = _summed(run(closed_loop(port, wholes, 1, size.single_s)), size.single_s)
        opened = {}
        for share in SHARES:
            found = run(open_loop(port, wholes, closed[0] * share / 100, size.open_s))
            opened[share] = _summed(found, size.open_s)
    return Visit(*closed, single_ms=single[1], opened=opened, wrong=wrong)


def _summed(found: Sequence[Answer], seconds: float) -> tuple[float, float, float]:
    """Answers a second in time; milliseconds of the median and the 99th percentile of those that were answered."""
    took = [each.seconds for each in found if each.status == 200] or [float("inf")]
    in_time = sum(each <= DEADLINE_S for each in took)
    return in_time / seconds, 1e3 * quantile(took, 0.5), 1e3 * quantile(took, 0.99)


def best_way(server: Server, case: Case, size: Size) -> Way:
    """The way of batching in which a server answers more of a case."""
    if len(server.ways) == 1:
        return server.ways[0]
    goodput = {}
    wholes = [server.whole(raw) for raw in case.rows]
    for way in server.ways:
        with server.start(case.folder, way, case.rows[0]) as port:
            run(closed_loop(port, wholes, CLIENTS, size.warm_s))
            goodput[way] = _summed(run(closed_loop(port, wholes, CLIENTS, size.single_s)), size.single_s)[0]
    return max(goodput, key=lambda way: goodput[way])


def overhead_us(folder: Path, wholes: Sequence[bytes], offline_cpu_s: float, count: int, *, clients: int = 1) -> float:
    """Microseconds of processors that a request takes of our server, beyond those of its rows."""
    with served(str(folder)) as server:

        async def ask(requests: int) -> None:
            each = requests // clients
            found = await asyncio.gather(*(asked(server.port, wholes, each) for _ in range(clients)))
            assert all(status == 200 for statuses in found for status in statuses), found

        run(ask(max(clients, count // 10)))
        before = server.cpu_seconds()
        run(ask(count))
        return 1e6 * ((server.cpu_seconds() - before) / (count // clients * clients) - offline_cpu_s)


async def asked(port: int, wholes: Sequence[bytes], count: int) -> list[int]:
    """Ask so many times by one client; the statuses."""
    client = Client(port)
    found = [(await client.ask(wholes[number % len(wholes)]))[0] for number in range(count)]
    client.close()
    return found


def offline_cpu_s(folder: Path, rows: Sequence[Raw | np.ndarray], count: int, *, batch: int = 1) -> float:
    """Processor seconds of one row in one process, by one thread or by all, whichever takes less."""
    return min(_offline_cpu_s(load_bundle(folder, threads=threads), rows, count, batch) for threads in (1, None))


def _offline_cpu_s(bundle: Bundle, rows: Sequence[Raw | np.ndarray], count: int, batch: int) -> float:
    def answer(first: int) -> None:
        raws = [rows[(first + each) % len(rows)] for each in range(batch)]
        bundle.form.answers([raw if isinstance(raw, np.ndarray) else bundle.form.row(raw) for raw in raws])

    answer(0)
    began = time.process_time()
    for first in range(0, count, batch):
        answer(first)
    return (time.process_time() - began) / (-(-count // batch) * batch)


def overheads(case: Case, place: Path, size: Size) -> dict[str, float]:
    """What our server takes of a request of about 1 KiB of JSON, and of one of 588 KiB of binary tensors."""
    wholes = [SERVERS["ours"].whole(raw) for raw in case.rows]
    found = {}
    for figure, clients, requests in (
        ("overhead_json_us", 1, size.requests),
        ("overhead_json_loaded_us", CLIENTS, 8 * size.requests),
    ):
        own = offline_cpu_s(case.folder, case.rows, size.requests, batch=clients)
        found[figure] = overhead_us(case.folder, wholes, own, requests, clients=clients)
    large = place / "large-openvino"
    rewrite_bundle(large, load_bundle(pooling_bundle(place / "large", LARGE)), engine="openvino")
    pixels = np.random.default_rng(0).integers(0, 256, (1, LARGE, LARGE, 3), dtype=np.uint8)
    count = size.requests // 6
    own = offline_cpu_s(large, [pixels[0]], count)
    return found | {"overhead_binary_us": overhead_us(large, [binary(pixels)], own, count)}


def binary(pixels: np.ndarray) -> bytes:
    """A request of the Open Inference Protocol whose tensor, uint8 [1, H, W, 3], lies behind the JSON as bytes."""
    shape = list(pixels.shape)
    said = (
        f'{{"inputs": [{{"name": "pixels", "shape": {shape}, "datatype": "UINT8", '
        f'"parameters": {{"binary_data_size": {pixels.nbytes}}}}}]}}'
    ).encode()
    headers = {"Inference-Header-Content-Length": str(len(said)), "Content-Type": "application/octet-stream"}
    return request("/v2/models/pets/infer", said + pixels.tobytes(), headers=headers)


def cases(names: Sequence[str], place: Path, *, quick: bool) -> list[Case]:
    """Write the bundles."""
    archive = sorted(real_data.cifar().glob("*/test-*"))[:ROWS]
    images: list[Raw] = [path.read_bytes() for path in archive]
    lines = (real_data.shared("sst2") / "test.tsv").read_text(encoding="utf-8").splitlines()
    sentences: list[Raw] = [line.split("\t")[0] for line in lines[:ROWS]]
    found = []
    for name in names:
        folder = place / f"{name}-openvino"
        if name == "tiny":
            source, precision = load_bundle(image_bundle(place / name, "mlp-small")), "fp32"
        else:
            source, precision = load_bundle(trained(name, quick=quick).bundle), "bf16"
        rewrite_bundle(folder, source, engine="openvino", precision=precision, name="pets")
        found.append(Case(name, folder, sentences if name == "bert" else images))
    return found


def figures(case: Case, visits: dict[str, list[Visit]]) -> dict[str, list[float]]:
    """The figures of a case by round."""
    found: dict[str, list[float]] = defaultdict(list)
    ours = visits["ours"]
    rivals = {name: each for name, each in visits.items() if name != "ours" and each}
    name = case.name
    for number, mine in enumerate(ours):
        found[f"serve_{name}_capacity_share"].append(mine.goodput / case.capacity)
        found[f"serve_{name}_single_added_ms"].append(mine.single_ms - 1e3 * case.own_s)
        found[f"serve_{name}_p99_ratio"].append(mine.opened[80][2] / (1e3 * case.own_s))
        theirs = [each[number].goodput for each in rivals.values() if number < len(each)]
        if theirs:
            found[f"serve_{name}_goodput_ratio"].append(mine.goodput / max(theirs))
    for who, each in visits.items():
        if each:
            found[f"serve_{name}_goodput_{who}"] = [one.goodput for one in each]
    found[f"serve_{name}_wrong"] = [float(sum(one.wrong for one in ours))]
    return dict(found)


def table(case: Case, visits: dict[str, list[Visit]], ways: dict[str, Way]) -> str:
    """What each server did, medians over its visits."""
    rows = [
        f"**{case.name}**: one process answers {case.capacity:.4g} rows/s at its best batch size, and one row in "
        f"{1e3 * case.own_s:.3g} ms.",
        "",
        "| server | at once | goodput/s, 32 clients | p50, p99 ms | one client, ms | at 50 %: p50, p99 ms | at 80 % |"
        " at 100 % | in time at 100 % | wrong |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]

    def middle(values: Sequence[float]) -> str:
        return f"{statistics.median(values):.3g}"

    for who, each in sorted(visits.items(), key=lambda pair: -max((one.goodput for one in pair[1]), default=0)):
        if not each:
            rows.append(f"| {who} | failed | | | | | | | | |")
            continue
        batch = "its own" if who == "ours" else str(ways[who].batch)
        pairs = [
            f"{middle([one.opened[share][1] for one in each])}, {middle([one.opened[share][2] for one in each])}"
            for share in SHARES
        ]
        kept = statistics.median(one.opened[100][0] / max(one.goodput, 1e-9) for one in each)
        goodput = sorted(one.goodput for one in each)
        cells = [
            batch, f"{statistics.median(goodput):.4g} ({goodput[0]:.4g} to {goodput[-1]:.4g})",
            f"{middle([one.p50_ms for one in each])}, {middle([one.p99_ms for one in each])}",
            middle([one.single_ms for one in each]), *pairs, f"{kept:.0%}", str(sum(one.wrong for one in each)),
        ]  # fmt: skip
        rows.append(f"| {who} | {' | '.join(cells)} |")
    return "\n".join(rows)


def compared(case: Case, size: Size, rounds: int) -> tuple[dict[str, list[float]], str]:
    """Visit all servers in turn, round by round, forwards and backwards."""
    case.measure(size.single_s / 3)
    there = [server for server in SERVERS.values() if server.there]
    visits: dict[str, list[Visit]] = {server.name: [] for server in there}
    ways: dict[str, Way] = {}
    for server in there:
        try:
            ways[server.name] = best_way(server, case, size)
        except RuntimeError as error:
            told(f"{case.name}: {error}")
    for number in range(rounds):
        for server in there if number % 2 == 0 else reversed(there):
            if server.name not in ways:
                continue
            try:
                found = visit(server, ways[server.name], case, size)
            except RuntimeError as error:
                told(f"{case.name}, round {number}: {error}")
                continue
            visits[server.name].append(found)
            told(
                f"{case.name}, round {number}: {server.name} {found.goodput:.0f}/s, one client {found.single_ms:.2f} "
                f"ms, p99 at 80 % {found.opened[80][2]:.1f} ms"
            )
    return figures(case, visits), table(case, visits, ways)


def main() -> int:
    """Measure, print the figures, and write the report; returns 1 when an answer of ours was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help="tiny, resnet, bert; all when left out")
    parser.add_argument("--quick", action="store_true", help="small models, seconds of each; the figures mean little")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    known = ("tiny", "resnet", "bert")
    if unknown := sorted({*asked.cases} - {*known}):
        parser.error(f"no case {', '.join(unknown)}; there are {', '.join(known)}")
    size, rounds = (QUICK, 1) if asked.quick else (WHOLE, asked.rounds)
    if missing := [server.name for server in SERVERS.values() if not server.there]:
        told(f"left out: {', '.join(missing)}; make their environments: make servers")
    samples: dict[str, list[float]] = defaultdict(list)
    tables = []
    with tempfile.TemporaryDirectory() as place:
        for case in cases(asked.cases or known, Path(place), quick=asked.quick):
            found, lines = compared(case, size, rounds)
            samples |= found
            tables.append(lines)
            told(lines)
            if case.name == "tiny":
                for number in range(rounds):
                    for figure, value in overheads(case, Path(place) / str(number), size).items():
                        samples[figure].append(value)
    if tiny := samples.get("serve_tiny_goodput_ratio"):
        samples["serve_tiny_ratio"] = tiny
    for figure, worst in (
        ("goodput_ratio", min),
        ("capacity_share", min),
        ("single_added_ms", max),
        ("p99_ratio", max),
    ):
        others = [samples[f"serve_{each}_{figure}"] for each in known[1:] if samples.get(f"serve_{each}_{figure}")]
        if others:
            samples[f"serve_{figure}"] = worst(others, key=statistics.median)
    says = "\n\n".join([str(__doc__), f"Left out: {', '.join(missing) or 'nobody'}.", *tables])
    told(str(record(f"serve{'_quick' * asked.quick}", hardware.here(kind="cpu"), says, samples)))
    return int(any(value[0] for figure, value in samples.items() if figure.endswith("_wrong")))


if __name__ == "__main__":
    sys.exit(main())
