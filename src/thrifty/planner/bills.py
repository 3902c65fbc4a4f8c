"""Turn the seconds of a step on a cluster into a `Cost`: energy and money with it, each with its interval."""

from __future__ import annotations

from collections.abc import Mapping

from thrifty.cost.price import Use, cluster_joules, cluster_usd
from thrifty.spec import Cluster, Cost, Interval, Precision

# a smaller last batch of an epoch does less
_FLOPS_DOUBT = 0.05
# Share of the bandwidth that is used while kernels only move data, and while they multiply large matrices: a tile of
# 128 x 128 reads its inputs once for 128 operations on each, under half of what the memory could give. Declared.
_MOVING, _MULTIPLYING = 0.8, 0.4
_MESSAGES = ("tensor", "expert", "context", "data", "statistics", "pipeline")


def cluster_cost(
    seconds: Interval,
    peak: Interval,
    *,
    terms: Mapping[str, float],
    flops: float,
    done_flops: float,
    precision: Precision,
    cluster: Cluster,
) -> Cost:
    """Return the cost of a training on all of a cluster.

    Args:
        seconds: of all steps.
        peak: bytes of one device.
        terms: seconds of a step by what they go to.
        flops: of all steps, the model's own.
        done_flops: with what is computed again.
        precision: whose peak rate the arithmetic is set against.
        cluster: its watts and prices.
    """
    whole = sum(terms.values())
    rates = cluster.device.flops_per_second
    peak_rate = (rates.get(precision) or rates.get("bf16") or next(iter(rates.values()))).value
    moving = terms["other"] + terms["optimizer"]
    use = Use(
        arithmetic=done_flops / seconds.value / (peak_rate * cluster.devices),
        memory=(_MOVING * moving + _MULTIPLYING * (terms["matmul"] + terms["attention"])) / whole,
        network=sum(terms[name] for name in _MESSAGES) / whole,
    )
    return Cost(
        seconds=seconds,
        peak_bytes=peak,
        joules=cluster_joules(seconds, cluster, use),
        usd=cluster_usd(seconds, cluster),
        flops=Interval(low=flops * (1 - _FLOPS_DOUBT), value=flops, high=flops, method="matrix products of the model"),
    )
