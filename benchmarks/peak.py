"""The measured peak of this machine, and the operations that a model's step counts: what a share of peak is a share of.

``python -m benchmarks.peak [cpu|cuda]`` prints the peak as the other benchmarks take it: in a process of its own.
"""

from __future__ import annotations

import statistics
import sys
import time

from benchmarks.peers.talk import Talk

# rows, inputs and outputs of a linear layer; which of them is fastest differs from machine to machine
SHAPES = {
    "cpu": ((2048, 768, 3072), (4096, 768, 3072), (4096, 384, 1536), (2048, 2048, 2048), (4096, 4096, 4096)),
    "cuda": ((8192, 8192, 8192), (16384, 4096, 4096), (16384, 8192, 2048)),
}
REPEATS, LEAST_SECONDS = 9, 0.4


def peak_flops(device: str = "cpu") -> tuple[float, str]:
    """FLOP/s of a linear layer in bf16, of the shape whose median is best, and that shape; a multiply-add is two."""
    import torch

    best = (0.0, "")
    torch.manual_seed(0)
    with torch.inference_mode():
        for rows, inputs, outputs in SHAPES[device]:
            x = torch.randn(rows, inputs, device=device).to(torch.bfloat16)
            weight = torch.randn(outputs, inputs, device=device).to(torch.bfloat16)

            def work(x: torch.Tensor = x, weight: torch.Tensor = weight) -> None:
                torch.nn.functional.linear(x, weight)

            def wait() -> None:
                if device == "cuda":
                    torch.cuda.synchronize()

            began = time.perf_counter()
            taken: list[float] = []
            while len(taken) < 2 or time.perf_counter() - began < LEAST_SECONDS / 4:
                work()
                wait()
                taken.append(time.perf_counter() - began)
            once = taken[-1] / len(taken)
            burst = max(1, int(LEAST_SECONDS / REPEATS / once))
            times = []
            for _ in range(REPEATS):
                started = time.perf_counter()
                for _ in range(burst):
                    work()
                wait()
                times.append((time.perf_counter() - started) / burst)
            rate = 2.0 * rows * inputs * outputs / statistics.median(times)
            best = max(best, (rate, f"{rows} x {inputs} x {outputs}"))
    return best


def transformer_flops(layers: int, width: int, length: int, head: int = 0) -> float:
    """Operations of a token's training, forward and backward: ``6 N + 12 L C T`` (Chowdhery et al. 2022, appendix B).

    ``N`` counts the weights of matrix products alone: ``12 C²`` a block, and those of the head, tied or not; looking up
    an embedding is none. Attention counts every pair of tokens, causal or not.

    >>> round(transformer_flops(6, 384, 128) * 32 * 128 / 1e9)
    276

    Args:
        layers, width: of the blocks.
        length: tokens of a sequence.
        head: outputs of a head over every token: the vocabulary of a language model.
    """
    return 6.0 * (12 * layers * width**2 + width * head) + 12.0 * layers * width * length


def main() -> None:
    """Print the peak."""
    import torch

    from benchmarks.race import cores

    torch.set_num_threads(cores())
    talk = Talk()
    rate, shape = peak_flops(sys.argv[1])
    talk.say("peak", flops_per_second=rate, shape=shape)
    talk.done()


if __name__ == "__main__":
    main()
