"""Which samples make each step of an epoch: decided by seed and epoch alone, at random or by like length.

Shapes: N samples of a split.
"""

from __future__ import annotations

import numpy as np

from thrifty.spec import Batching

# Samples of so many steps are sorted by length together. Within so few the order stays random for learning; more would
# save little: of 32 steps a text is already among the nearest thirtieth of the lengths.
WINDOW_STEPS = 32
# of a small set fewer, so that an epoch has several windows: in one alone the same texts would meet again each time
LEAST_WINDOWS = 4


def generator_of(seed: int, epoch: int, *stream: int) -> np.random.Generator:
    """Return the random numbers of an epoch: of its order, or of another stream beside it."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch, *stream])))


def window_steps(count: int, batch: int) -> int:
    """Return the steps whose samples are sorted together: `WINDOW_STEPS`, or a quarter of a short epoch.

    >>> window_steps(6920, 32), window_steps(300, 32), window_steps(5, 32)
    (32, 2, 1)
    """
    return max(1, min(WINDOW_STEPS, count // batch // LEAST_WINDOWS))


def order_of(
    generator: np.random.Generator, count: int, *, batch: int, batching: Batching, lengths: np.ndarray | None = None
) -> np.ndarray:
    """Return the order of an epoch's samples, int64 [N]: its steps are the runs of ``batch``, the last of what is left.

    By length, the random order is cut into windows of `window_steps`; the samples of a window are sorted by length, cut
    into steps, and the steps put in random order. Samples of one length stay in random order among
    themselves. What is left over for a shorter last step is drawn before, at random.

    Args:
        generator: of `generator_of`, not drawn from yet but for what comes before.
        count: samples.
        batch: samples of a step.
        batching: how.
        lengths: of each sample, int [N]; needed by length.
    """
    order = generator.permutation(count)
    if batching != "by_length":
        return order
    assert lengths is not None
    whole = count // batch * batch
    size = window_steps(count, batch) * batch
    for start in range(0, whole, size):
        window = order[start : min(start + size, whole)]
        steps = window[np.argsort(lengths[window], kind="stable")].reshape(-1, batch)
        order[start : start + len(window)] = generator.permutation(steps).ravel()
    return order


def deal(step: np.ndarray, micro: int, lengths: np.ndarray | None = None, ranks: int = 1) -> list[np.ndarray]:
    """Cut the samples of a step into as few micro-batches as ``micro`` allows, as equal as can be.

    With lengths, samples of like length are computed together. Nothing that is learned depends on it: a step is the sum
    over its samples. Several ranks share the micro-batches of one that computes as many samples at once as all of them:
    those that follow each other are computed at the same time, and where there are fewer samples than ranks, some are
    empty.
    """
    if lengths is not None and (len(step) > micro or ranks > 1):
        step = step[np.argsort(lengths[step], kind="stable")]
    if len(step) <= micro and ranks == 1:
        return [step]
    together = np.array_split(step, -(-len(step) // (micro * ranks)))
    return [part for each in together for part in np.array_split(each, ranks)]
