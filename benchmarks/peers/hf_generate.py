"""Texts written by ``transformers.generate``, all in one batch.

``python -m benchmarks.peers.hf_generate WORK``, as JSON: folder, precision, threads, streams, prompt, tokens, device,
tokens to warm up with, and a cache of another kind.
"""

from __future__ import annotations

import json
import sys
import time

import torch
import transformers
from transformers import AutoModelForCausalLM

from benchmarks.peers.talk import Talk


def main() -> None:
    """Write tokens to warm up, then all."""
    talk, work = Talk(), json.loads(sys.argv[1])
    torch.set_num_threads(work["threads"])
    dtype = torch.bfloat16 if work["precision"] == "bf16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(work["folder"], dtype=dtype, local_files_only=True).eval()
    model = model.to(work.get("device", "cpu"))
    streams, length = work["streams"], work["prompt"]
    rows = [[(7_919 * (row * length + at) + 13) % 50_000 for at in range(length)] for row in range(streams)]
    prompts = torch.tensor(rows, device=model.device)

    def write(tokens: int) -> torch.Tensor:
        return model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=False,
            pad_token_id=0,
            **({"cache_implementation": work["cache"]} if "cache" in work else {}),
        )

    write(work.get("warm", 4))
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    talk.say("ready", versions=versions, precision=work["precision"])
    begin, cpu = time.monotonic(), time.process_time()
    found = write(work["tokens"])
    seconds, used = time.monotonic() - begin, time.process_time() - cpu
    texts = found[:, length:].tolist()
    talk.say("written", tokens=sum(map(len, texts)), seconds=seconds, cpu_s=used, texts=texts)
    talk.done()


if __name__ == "__main__":
    main()
