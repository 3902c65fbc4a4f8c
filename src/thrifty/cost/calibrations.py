"""`Calibration`: the few efficiencies that turn a device's datasheet into times, and the ones that ship."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from pydantic import Field

from thrifty.spec.plain import Plain


class Calibration(Plain):
    """How much of its datasheet a device reaches with one software stack, fitted to published runs.

    Attributes:
        name: ``<device family> / <software and its date>``.
        family: of devices, such as ``a100``.
        software: the stack and the date of the measurements.
        fitted: date of the fit; empty where every number is assumed.
        source: the tables, and how many of their rows it was fitted on.
        matmul, matmul_fp8, matmul_fp32: share of the peak of their precision that large matrix products reach.
        grouped: share of that which the products of many experts reach, launched as one.
        attention: share of the 16-bit peak that fused attention reaches.
        memory: share of the bandwidth that kernels reach which only move data.
        inner_half: inner length of a product at which half its rate is reached.
        wave_loss: share of the last, unfilled wave of tiles that a product really loses.
        unaligned: times longer of products with a side that is no multiple of eight.
        launch_s: of one kernel on the host, where it cannot prepare them ahead.
        blocking: 1 where the host waits for every kernel (``CUDA_LAUNCH_BLOCKING``), so that launches add up; else 0.
        routing_s: of a block of experts in each direction: the host waits to learn how many tokens each expert gets.
        intra, inter: share of the links' bandwidth that collectives reach, in the node and between nodes.
        pipeline: share that messages between pipeline stages reach.
        exchange: share that all-to-alls between experts reach; more than 1 where tokens for one node travel once.
        latency_s: of one step of a collective.
        data_overlap, tensor_overlap: share of that communication that can hide behind arithmetic.
        gradient_bytes: of one element when gradients are summed over data-parallel ranks.
        step_s: of every step, whatever its size: scaling checks, logging, waiting for the slowest.
        optimizer_passes: bytes moved for each parameter that a device updates.
        spread: standard deviation of the logarithm of measured over predicted time, on the rows it was not fitted on.
        covers: lowest and highest value of what it was fitted on: ``devices``, ``hidden``, ``length``, ``tensor``,
            ``pipeline``, ``experts``, ``micro_batch``; predictions outside are marked and widened.
    """

    name: str
    family: str
    software: str
    fitted: str = ""
    source: str = "assumed"
    matmul: float = 0.7
    matmul_fp8: float = 0.6
    matmul_fp32: float = 0.9
    grouped: float = 0.8
    attention: float = 0.5
    memory: float = 0.75
    inner_half: float = 128.0
    wave_loss: float = 0.4
    unaligned: float = 8.0
    launch_s: float = 4e-5
    blocking: float = 0.0
    routing_s: float = 3e-4
    intra: float = 0.7
    inter: float = 0.7
    pipeline: float = 0.7
    exchange: float = 0.6
    latency_s: float = 1e-5
    data_overlap: float = 0.8
    tensor_overlap: float = 0.0
    gradient_bytes: float = 4.0
    step_s: float = 0.01
    optimizer_passes: float = 40.0
    spread: float = 0.25
    covers: dict[str, tuple[float, float]] = Field(default_factory=dict)


@cache
def shipped_calibrations() -> dict[str, Calibration]:
    """Every calibration that ships, by name; written by ``benchmarks/fit_devices.py``."""
    found: dict[str, Calibration] = {}
    folder = files("thrifty.cost").joinpath("calibration")
    for entry in sorted(folder.iterdir(), key=lambda item: item.name):
        if entry.name.endswith(".json"):
            values: list[dict[str, Any]] = json.loads(entry.read_text(encoding="utf-8"))
            found |= {value["name"]: Calibration.model_validate(value) for value in values}
    return found
