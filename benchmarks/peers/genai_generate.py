"""Texts written by openvino-genai's continuous batching, from the model that optimum-intel makes of the same weights.

``python -m benchmarks.peers.genai_generate WORK``, as JSON: folder, threads, streams, prompt, tokens.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import openvino
import openvino_genai
from optimum.intel import OVModelForCausalLM

from benchmarks.peers.talk import Talk


def converted(folder: Path) -> Path:
    """Make OpenVINO's form of the model, once; with weights as they are."""
    made = folder / "openvino"
    if not (made / "openvino_model.xml").exists():
        OVModelForCausalLM.from_pretrained(folder, export=True, compile=False, load_in_8bit=False).save_pretrained(made)
    return made


def main() -> None:
    """Write a few tokens to warm up, then all."""
    talk, work = Talk(), json.loads(sys.argv[1])
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.cache_size = 2  # GiB
    scheduler.max_num_seqs = work["streams"]
    pipe = openvino_genai.ContinuousBatchingPipeline(
        str(converted(Path(work["folder"]))), scheduler, "CPU", {"INFERENCE_NUM_THREADS": work["threads"]}
    )
    streams, length = work["streams"], work["prompt"]
    rows = [[(7_919 * (row * length + at) + 13) % 50_000 for at in range(length)] for row in range(streams)]
    inputs = [openvino.Tensor(np.array([row], np.int64)) for row in rows]

    def write(tokens: int) -> list[list[int]]:
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = tokens, True, False
        return [list(each.m_generation_ids[0]) for each in pipe.generate(inputs, [config] * streams)]

    write(4)
    talk.say("ready", versions={"openvino-genai": openvino_genai.__version__}, precision="as it chooses")
    begin, cpu = time.monotonic(), time.process_time()
    texts = write(work["tokens"])
    seconds, used = time.monotonic() - begin, time.process_time() - cpu
    talk.say("written", tokens=sum(map(len, texts)), seconds=seconds, cpu_s=used, texts=texts)
    talk.done()


if __name__ == "__main__":
    main()
