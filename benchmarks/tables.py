"""Read a folder of published tables into rows: what was trained, how, on what, and the measured seconds of a step."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from benchmarks.architectures import architecture
from benchmarks.machines import GIB, machine
from benchmarks.rules import RULES, Rule, flops_as_counted
from thrifty.spec import Checkpointing, Cluster, Layout, Precision, TransformerShape

PUBLISHED = Path(__file__).parent.parent.parent / "shared" / "published"


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        table, line, model: where it stands; ``line`` counts from 2, as an editor shows it.
        key: of its configuration alone: rows that repeat a configuration share it.
        shape, layouts, cluster: what was run; several layouts where the source tuned what it does not state.
        shard: devices that share the weights under ``zero`` 3, when fewer than all data-parallel ranks; 0 for all.
        software: the stack, see `Rule`.
        batch: samples of one step.
        step_seconds: measured; ``None`` where it did not run.
        status: ``ok`` or ``oom``.
        memory_bytes, memory_kind: peak of a device as reported, and by which counter; 0 where none is.
        assumptions: what the row does not say and was taken from its table, paper or model.
        missing: why the row cannot be scored; empty when its configuration is complete.
    """

    table: str
    line: int
    model: str
    key: str
    shape: TransformerShape | None = None
    layouts: tuple[Layout, ...] = ()
    cluster: Cluster | None = None
    shard: int = 0
    software: str = ""
    batch: int = 0
    step_seconds: float | None = None
    status: str = "ok"
    memory_bytes: float = 0.0
    memory_kind: str = ""
    assumptions: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def layout(self) -> Layout:
        """The layout, or the first of those tried."""
        return self.layouts[0]

    @property
    def logits(self) -> bool:
        """Whether the model predicts its vocabulary, as all do but a classifier."""
        return "classification" not in self.model

    @property
    def described(self) -> bool:
        """Whether shape, layout and cluster are all known, measured or not."""
        return self.shape is not None and bool(self.layouts) and self.cluster is not None and not self.missing

    @property
    def timed(self) -> bool:
        """Whether it can be scored: described, and ran with a measured time."""
        return self.described and self.status == "ok" and self.step_seconds is not None

    @property
    def fitted(self) -> bool:
        """Whether it belongs to the half that calibrations are fitted on: by a hash of its configuration."""
        return int(hashlib.sha256(self.key.encode()).hexdigest(), 16) % 2 == 0

    @property
    def tokens_per_second(self) -> float:
        """Of one device."""
        assert self.shape and self.cluster and self.step_seconds
        return self.batch * self.shape.length / self.step_seconds / self.layout.devices


@dataclass
class _Notes:
    assumed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def read_tables(folder: Path = PUBLISHED) -> dict[str, list[Row]]:
    """Read every table of a folder, by its name, in alphabetical order; files that hold no runs are left out."""
    tables = {}
    for path in sorted(folder.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            said = list(csv.DictReader(file))
        if said and "n_devices" in said[0]:
            tables[path.stem] = [_readable(path.stem, line, _normal(row)) for line, row in enumerate(said, 2)]
    return tables


def scored_rows(tables: Mapping[str, list[Row]]) -> Iterator[Row]:
    """Every row that can be scored."""
    return (row for rows in tables.values() for row in rows if row.timed)


def _normal(said: dict[str, str]) -> dict[str, str]:
    """Give the rows of the tables of small and large runs the columns of the rest."""
    row = {key: (value or "").strip() for key, value in said.items() if key}
    length = _number(row.get("seq_len"))
    for column in ("per_device_tokens_per_microbatch", "per_device_micro_batch_tokens"):
        if length and _number(row.get(column)):
            row["micro_batch"] = str(int(_number(row[column]) // length))
    if length and not row.get("global_batch") and _number(row.get("global_batch_tokens")):
        row["global_batch"] = str(int(_number(row["global_batch_tokens"]) // length))
    for column in ("step_ms", "step_avg_ms"):
        if _number(row.get(column)):
            row["step_time_s"] = str(_number(row[column]) / 1000)
    return row


def _number(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0


def _readable(table: str, line: int, said: dict[str, str]) -> Row:
    """Read a row, or say why its values make no sense together."""
    try:
        return _row(table, line, said)
    except ValueError as error:
        why = str(error).splitlines()
        return Row(
            table, line, said.get("model", ""), f"{table}|{line}", missing=(f"cannot be read: {why[-1].strip()}",)
        )


def _row(table: str, line: int, said: dict[str, str]) -> Row:
    rule = RULES.get(table, Rule("unknown"))
    notes = _Notes([rule.why] if rule.why else [])
    from_h100 = "h100" in said.get("hardware", "").lower()
    if table == "megatron_lm" and from_h100:
        rule = Rule("megatron-core 2024", 131_072, zero=1, sequence_parallel=True, micro_batches=(1, 2, 4, 8))
    release = re.search(r"(\d\d\.\d\d)[.\d]* NeMo Container|PR #(\d+)", said.get("source", ""))
    software = f"{rule.software} {release[1] or '#' + release[2]}" if release else rule.software
    if table == "megatron_lm" and not from_h100:
        software += "-01" if "Jan 2021" in said["source"] else "-04"
    if table == "bigscience_a100" and "after a PCI-Express" not in said.get("notes", ""):
        software += ", before its NUMA fix"  # the source: later days are faster, do not mix them
    if "tokendrop" in said["model"]:  # fixed numbers of tokens an expert: the host need not wait to learn them
        software += ", tokens dropped"
    if "inconsistent in source" in said.get("notes", "").lower():
        notes.missing.append("the source contradicts itself: data x tensor x pipeline is not the number of GPUs")
    if "look swapped" in said.get("notes", ""):
        notes.missing.append("the source seems to have swapped seconds and TFLOP/s")
    if any(word in " ".join((said.get("finetune_method", ""), said["model"], said.get("extra", ""))).lower()
           for word in ("lora", "peft")):  # fmt: skip
        notes.missing.append("adapters: most weights are frozen, which no layout describes")
    shape = _shape(table, said, rule, notes)
    devices = int(_number(said.get("n_devices")))
    layouts, shard, batch = _layouts(table, said, rule, devices, notes) if devices else ((), 0, 0)
    cluster = machine(table, said.get("hardware", ""), devices) if devices else None
    if not devices:
        notes.missing.append("number of devices")
    elif cluster is None:
        notes.missing.append(f"hardware '{said.get('hardware', '')}'")
    status = "oom" if "oom" in said.get("status", "").lower() else "ok"
    seconds = _seconds(table, said, shape, devices, batch) if status == "ok" else None
    if status == "ok" and seconds is None and not notes.missing:
        notes.missing.append("no time that its own definitions allow to derive")
    memory = _memory(said)
    columns = _CONFIGURATION
    return Row(
        table=table,
        line=line,
        model=said["model"],
        key="|".join([table, *(said.get(column, "") for column in columns)]),
        shape=shape,
        layouts=layouts,
        cluster=cluster,
        shard=shard,
        software=software,
        batch=batch,
        step_seconds=seconds,
        status=status,
        memory_bytes=memory,
        memory_kind=said.get("mem_kind", ""),
        assumptions=tuple(notes.assumed),
        missing=tuple(notes.missing),
    )


def _shape(table: str, said: dict[str, str], rule: Rule, notes: _Notes) -> TransformerShape | None:
    known = architecture(said["model"])
    size = {name: int(_number(said.get(column))) for name, column in _SIZES.items()}
    if known is None and size["layers"] == 0 and table == "bigscience_a100" and size["hidden"]:
        # The older printed TFLOP/s are exactly 96 x layers x hidden^2 a token.
        tokens = _number(said["global_batch"]) * _number(said["seq_len"])
        work = _number(said["tflops_per_device"]) * 1e12 * _number(said["n_devices"]) * _number(said["step_time_s"])
        size["layers"] = round(work / tokens / 96 / size["hidden"] ** 2)
        notes.assumed.append(f"{size['layers']} layers, from the printed TFLOP/s")
    if known is None and not (size["layers"] and size["hidden"]):
        notes.missing.append("layers and width of the model")
        return None
    name = said["model"].lower()
    modern = any(word in name for word in ("llama", "qwen", "mistral"))
    if known is not None:
        base, source = known
        notes.assumed.append(f"shape of {said['model']}: {source}")
        values = base.model_dump()
    else:
        hidden = size["hidden"]
        heads = size["heads"] or rule.heads
        if not heads:
            heads = max(1, hidden // 128)
            notes.assumed.append("heads of 128")
        values = {
            "heads": heads, "kv_heads": heads, "head_dim": max(1, hidden // heads), "ffn": 4 * hidden,
            "vocabulary": rule.vocabulary, "length": 0, "gated": modern, "learned_positions": not modern,
            "biases": not modern, "tied": not modern, "causal": "bert" not in name,
        }  # fmt: skip
    values |= {key: value for key, value in size.items() if value}
    for key, need in (("vocabulary", "vocabulary"), ("length", "sequence length")):
        if not values[key]:
            notes.missing.append(need)
    return TransformerShape(**values) if values["vocabulary"] and values["length"] else None


_SIZES = {name: name for name in ("layers", "hidden", "heads", "kv_heads", "head_dim", "ffn")} | {
    "vocabulary": "vocab",
    "length": "seq_len",
}
# What a configuration is known by, whatever was measured of it.
_CONFIGURATION = (
    "model", "hidden", "layers", "heads", "seq_len", "hardware", "n_devices", "dp", "tp", "pp", "cp", "ep", "vpp",
    "sharding", "precision", "activation_checkpointing", "micro_batch", "global_batch",
)  # fmt: skip


def _layouts(
    table: str, said: dict[str, str], rule: Rule, devices: int, notes: _Notes
) -> tuple[tuple[Layout, ...], int, int]:
    degree = {name: int(_number(said.get(name))) or 1 for name in ("tp", "pp", "cp", "ep", "vpp")}
    together = re.search(r"model-parallel size (\d+)", said.get("extra", ""))
    if not said.get("tp") and together:  # the rule of arXiv 2104.04473 for splitting it
        degree["tp"] = min(8, int(together[1]))
        degree["pp"] = int(together[1]) // degree["tp"]
    elif not said.get("tp") and "dealing with JZ" in said.get("section", ""):
        degree["tp"], degree["pp"] = 8, 10
        notes.assumed.append("tensor 8, pipeline 10, as of the section before")
    elif (
        not said.get("tp")
        and devices > 1
        and "fsdp" not in said.get("sharding", "").lower()
        and table not in ("small_runs", "modded_nanogpt")
    ):
        notes.missing.append("tensor and pipeline degrees")
    if said.get("tp") and not said.get("pp"):
        notes.missing.append("pipeline degree")
    model = degree["tp"] * degree["pp"] * degree["cp"]
    if devices % model:
        notes.missing.append(f"{devices} devices are no multiple of {model}")
        return (), 0, 0
    data = devices // model
    expert = degree["ep"]
    if (data * degree["cp"]) % expert:
        expert = next(e for e in range(expert, 0, -1) if (data * degree["cp"]) % e == 0)
        notes.assumed.append(f"experts over {expert} ranks: the rest share them along the tensor dimension")
    precision = _precision(said.get("precision", ""), rule, notes)
    zero, shard = _sharding(said.get("sharding", ""), rule)
    batch = int(_number(said.get("global_batch")))
    micro = int(_number(said.get("micro_batch")))
    accumulation = int(_number(said.get("grad_accum")))
    if table == "maxtext" and batch and batch % data == 0:
        micro = batch // data  # the table says samples a device, and MaxText does not accumulate
    if not batch and micro:
        batch = micro * data * (accumulation or 1)
    if not batch:
        notes.missing.append("batch")
    if micro and batch and batch < micro * data:
        notes.missing.append(f"batch {batch} is less than micro-batch x data = {micro * data}")
    tried = (micro,) if micro else tuple(m for m in rule.micro_batches if batch % (m * data) == 0)
    if not tried:
        notes.missing.append("micro-batch")
    elif not micro:
        notes.assumed.append(f"micro-batch not said: the fastest of {', '.join(map(str, tried))}")
    virtual = degree["vpp"] if degree["pp"] > 1 else 1
    if precision is None or notes.missing:
        return (), shard, batch
    checkpointing = _checkpointing(said.get("activation_checkpointing", ""), rule, notes)
    if checkpointing is None:
        return (), shard, batch
    layouts = tuple(
        Layout(
            data=data,
            tensor=degree["tp"],
            pipeline=degree["pp"],
            context=degree["cp"],
            expert=expert,
            virtual_stages=virtual,
            zero=zero,
            sequence_parallel=(rule.sequence_parallel or "rs_ag" in said.get("extra", "")) and degree["tp"] > 1,
            micro_batch=m,
            accumulation=-(-batch // (data * m)),
            precision=precision,
            checkpointing=checkpointing,
            flash=rule.flash,
        )
        for m in tried
    )
    return layouts, shard, batch


def _precision(said: str, rule: Rule, notes: _Notes) -> Precision | None:
    text = said.lower()
    if "nvfp4" in text:
        notes.missing.append("NVFP4 is no precision of a Layout")
        return None
    if "fp8" in text:
        return "fp8"
    if text.startswith(("fp16", "float16")):
        return "fp16"
    if "bf16" in text:
        return rule.precision if rule.precision == "bf16_weights" else "bf16"
    if text == "fp32":
        return "fp32"
    return rule.precision


def _sharding(said: str, rule: Rule) -> tuple[Literal[0, 1, 2, 3], int]:
    text = said.lower()
    if "full_shard" in text or "zero-3" in text or "zero3" in text:
        return 3, 0
    if "shard_grad_op" in text or "zero-2" in text:
        return 2, 0
    if "zero-1" in text:
        return 1, 0
    if "zero-0" in text or text.startswith("none"):
        return 0, 0
    if re.search(r"fsdp=0\b", text):
        return rule.zero, 0
    if "fsdp" in text:
        width = re.search(r"fsdp[ =]*(\d+)", text.replace("fsdp2", "fsdp"))
        return 3, int(width[1]) if width else 0
    return rule.zero, 0


def _checkpointing(said: str, rule: Rule, notes: _Notes) -> Checkpointing | None:
    text = said.lower()
    if text.startswith("full") or text == "remat_policy=full":
        return "full"
    if text.startswith("selective") or "minimal" in text or "save_dot" in text:
        return "selective"
    if text == "none":
        return "none"
    if text:
        notes.missing.append(f"recomputation '{said}'")
        return None
    return rule.checkpointing


def _seconds(
    table: str, said: dict[str, str], shape: TransformerShape | None, devices: int, batch: int
) -> float | None:
    """Measured seconds of a step: as said, or from tokens or FLOPs a second by the source's own definition."""
    if _number(said.get("step_time_s")):
        return _number(said["step_time_s"])
    if shape is None or not devices or not batch:
        return None
    tokens = batch * shape.length
    if _number(said.get("tokens_per_s_per_device")):
        return tokens / _number(said["tokens_per_s_per_device"]) / devices
    printed = re.search(r"as printed = ([\d.]+)", said.get("extra", ""))
    if printed and devices == 1:
        return tokens / float(printed[1])
    rate = _number(said.get("tflops_per_device")) * 1e12 * devices
    work = flops_as_counted(table, said.get("tflops_kind", ""), shape)
    return work * tokens / rate if rate and work else None


def _memory(said: dict[str, str]) -> float:
    if _number(said.get("peak_mem_gib")):
        return _number(said["peak_mem_gib"]) * GIB
    reported = re.match(r"([\d.]+)\s*GB", said.get("mem_as_reported", ""))
    return float(reported[1]) * GIB if reported else 0.0
