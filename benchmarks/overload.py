"""What a server of ours does when too much is asked of it: overload, clients that leave, versions swapped, poison.

    python -m benchmarks.overload [--quick]

A ResNet of images of 32 x 32 behind ``thrifty serve``, asked over HTTP from one process on the same machine.

Capacity: 32 clients that each ask again once they are answered. Overload: requests at twice that rate, whether or not
those before were answered, each with a deadline of a second (ten when quick); goodput is what came in time, over the
capacity; how long a refusal (503) took; memory of all processes of the server at the end, over that after the first
tenth. Leaving: half of the clients close their connection before they are answered. Swaps: versions are loaded under
load.
Poison: one request in a hundred ends the process that computes it. Wrong is an answer, of those who neither left nor
sent poison, that is not the right one, or none.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.clients import Client, closed_loop, open_loop, predict_body, quantile, request, run
from benchmarks.record import record
from benchmarks.served import SIDE, Served, image_bundle, poisonable_bundle
from benchmarks.served import served as serving
from thrifty import hardware
from thrifty.export.bundle import load_bundle

MODEL = "resnet20"
CLIENTS = 32
PREDICT = "/v1/models/pets:predict"
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Size:
    """How much is done of each part, and the deadline of an answer."""

    deadline_s: float
    capacity_s: float
    overload_s: float
    leaving: int
    swaps: int
    poisoned: int
    healthy: int


WHOLE = Size(deadline_s=1.0, capacity_s=10.0, overload_s=60.0, leaving=2000, swaps=1000, poisoned=100, healthy=9900)
QUICK = Size(deadline_s=10.0, capacity_s=4.0, overload_s=4.0, leaving=40, swaps=4, poisoned=2, healthy=60)


def images(count: int) -> np.ndarray:
    """Images that differ, none of one colour: uint8 [N, H, W, C]."""
    return np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


async def judged(port: int, bodies: list[bytes], right: list[list[np.ndarray]], counts: int) -> int:
    """Ask so many times by 8 clients; how many answers were none of the right ones."""
    left = iter(range(counts))
    wrong = 0

    async def one() -> None:
        nonlocal wrong
        client = Client(port)
        for number in left:
            at = number % len(bodies)
            status, body = await client.ask(request(PREDICT, bodies[at]))
            if status != 200:
                wrong += 1
                continue
            (answer,) = msgspec.json.decode(body)["predictions"]
            wrong += not any(np.allclose(answer["probabilities"], each, atol=TOLERANCE) for each in right[at])
        client.close()

    await asyncio.gather(*(one() for _ in range(8)))
    return wrong


async def leaving(port: int, bodies: list[bytes], right: list[list[np.ndarray]], count: int) -> int:
    """Half of the clients leave midway; how many answers of the others were wrong."""

    async def leave() -> None:
        client, random = Client(port), np.random.default_rng(1)
        for number in range(count // 16):
            await client.leave_midway(request(PREDICT, bodies[number % len(bodies)]), float(random.uniform(0, 0.02)))

    leavers = asyncio.gather(*(leave() for _ in range(8)))
    wrong = await judged(port, bodies, right, count // 2)
    await leavers
    return wrong


async def swapped(port: int, bodies: list[bytes], right: list[list[np.ndarray]], swaps: int) -> int:
    """Versions are loaded over and over while others ask; how many of their answers were wrong."""
    over = False

    async def swap() -> None:
        nonlocal over
        client = Client(port)
        for _ in range(swaps):
            status, body = await client.ask(request("/v2/repository/models/pets/load", b"{}"))
            assert status == 200, body
        client.close()
        over = True

    async def ask() -> int:
        wrong = 0
        while not over:
            wrong += await judged(port, bodies, right, 8)
        return wrong

    wrong, _ = await asyncio.gather(ask(), swap())
    return wrong


async def poisoned(port: int, bodies: list[bytes], right: list[list[np.ndarray]], size: Size) -> int:
    """Some requests end the worker; how many answers of the others were wrong, and of those not refused."""
    red = np.zeros((SIDE, SIDE, 3), np.uint8)
    red[..., 0] = 255
    poison = request(PREDICT, predict_body(red.tolist()))

    async def poisoner() -> int:
        client, wrong = Client(port), 0
        for _ in range(size.poisoned):
            status, _ = await client.ask(poison)
            wrong += status != 500
        client.close()
        return wrong

    return sum(await asyncio.gather(judged(port, bodies, right, size.healthy), poisoner()))


def of_overload(server: Served, whole: bytes, size: Size, samples: dict[str, list[float]]) -> None:
    """Capacity, then twice of it."""
    run(closed_loop(server.port, [whole], CLIENTS, size.capacity_s / 4))
    told = run(closed_loop(server.port, [whole], CLIENTS, size.capacity_s))
    capacity = sum(each.status == 200 for each in told) / size.capacity_s
    if not capacity:
        raise RuntimeError("the server answers nothing in time: the machine is too busy for this deadline")
    run(open_loop(server.port, [whole], 2 * capacity, size.overload_s / 10))
    before = server.resident_bytes()
    found = run(open_loop(server.port, [whole], 2 * capacity, size.overload_s))
    answered = [each.seconds for each in found if each.status == 200]
    in_time = sum(each <= size.deadline_s for each in answered)
    late = len(answered) - in_time + sum(each.status == 504 for each in found)
    refused = [each.seconds for each in found if each.status == 503] or [0.0]
    samples["capacity_per_second"] = [capacity]
    samples["overload_goodput"] = [in_time / size.overload_s / capacity]
    samples["overload_late_share"] = [late / max(1, late + in_time)]
    samples["overload_shed_ms"] = [1000 * quantile(refused, 0.5)]
    samples["overload_shed_p99_ms"] = [1000 * quantile(refused, 0.99)]
    samples["overload_lost"] = [float(sum(each.status not in (200, 503, 504) for each in found))]
    samples["overload_memory"] = [server.resident_bytes() / before]


def main() -> int:
    """Measure, print the figures, and write the report; returns 1 when an answer was wrong or lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="minutes of it in seconds; the figures mean little")
    quick = parser.parse_args().quick
    size = QUICK if quick else WHOLE
    device = hardware.here(kind="cpu")
    samples: dict[str, list[float]] = {}
    chosen = images(16)
    bodies = [predict_body(each.tolist()) for each in chosen]
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        models = [image_bundle(root / "pets" / str(n), MODEL, version=n, seed=n) for n in (1, 2)]
        answers = [load_bundle(each).form.answers(list(chosen)) for each in models]
        right = [[answer[at]["probabilities"] for answer in answers] for at in range(len(chosen))]
        with serving(str(models[0]), "--deadline", str(size.deadline_s)) as server:
            of_overload(server, request(PREDICT, bodies[0]), size, samples)
        with serving(str(models[0]), "--repository", str(root)) as server:
            run(judged(server.port, bodies, right, 200 if not quick else 16))
            before = server.resident_bytes()
            samples["leaving_wrong"] = [float(run(leaving(server.port, bodies, right, size.leaving)))]
            samples["leaving_cancelled"] = [server.counted("thrifty_cancelled_total")]
            samples["leaving_memory"] = [server.resident_bytes() / before]
            run(swapped(server.port, bodies, right, 1))
            before = server.resident_bytes()
            samples["swaps_wrong"] = [float(run(swapped(server.port, bodies, right, size.swaps)))]
            samples["swaps_memory"] = [server.resident_bytes() / before]
        moody = poisonable_bundle(root / "moody")
        answers = [load_bundle(moody).form.answers(list(chosen))]
        right = [[answers[0][at]["probabilities"]] for at in range(len(chosen))]
        with serving(str(moody)) as server:
            run(judged(server.port, bodies, right, 16))
            before = server.resident_bytes()
            samples["poison_wrong"] = [float(run(poisoned(server.port, bodies, right, size)))]
            samples["poison_memory"] = [server.resident_bytes() / before]
            samples["poison_workers_lost"] = [server.counted("thrifty_workers_lost_total")]
    says = f"{__doc__}\n{size}, of {MODEL}."
    print(record(f"overload{'_quick' * quick}", device, says, samples), file=sys.stderr)
    return int(any(samples[f"{part}_wrong"][0] for part in ("leaving", "swaps", "poison")))


if __name__ == "__main__":
    sys.exit(main())
