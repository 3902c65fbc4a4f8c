"""Rules for what a job leaves out: each returns a value and its reason, with formula and source."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from thrifty.models import FAMILIES, Traits
from thrifty.spec import Dataset, Decision, Device, GuardPlan, Interval, Job, ModelPlan
from thrifty.spec.layout import Rows
from thrifty.spec.plan import Dropout, Loading, Source
from thrifty.spec.units import format_count, format_seconds

BF16_MUST_GAIN = 1.3
CHINCHILLA_TOKENS_PER_PARAMETER = 20
LANGUAGE_TOKENS_PER_STEP = 2048
TEXTS_PER_STEP = 32
RECORDINGS_PER_STEP = 32
TABLE_RATE, TABLE_DECAY = 4e-3, 0.1
COMPILE_ON_CPU = (
    "on a CPU it saved 0 to 2 % of a step whose attention and precision were chosen before, and took 16 to 45 s (a "
    "BERT of 6 x 384: 126 ms against 128 at 32 x 24 tokens, 357 both ways at 32 x 128)"
)
LOADING_ON_CPU = (
    "a step takes every core, and a thread would take from them what it hides: the processor works as long "
    "(convnet-fast, 32 images with RandAugment and mixup, one thread: 132 ms a step between, 133 beside)"
)
BATCHING = {
    "padded": "samples come in random order, each padded to the longest of its micro-batch",
    "by_length": "samples of like length are put together within a window of steps whose order is then drawn: another "
    "order of the data, the same effective batch (Khomenko et al. 2016)",
    "packed": "texts come in random order, end to end in one row, and each attends to itself alone (Krell et al. 2021)",
}
FOUR_BITS = (
    "asked for in the job: an eighth of the memory of float32, unpacked for every product "
    "(NormalFloat, Dettmers et al. 2023)"
)


# How far each rule carries: what it was not tried on, or what would overturn it.
DOUBTS = {
    "init": "shapes that its authors did not try",
    "adapter.targets": "fewer layers cost less and may do",
    "adapter.rank": "far from what was learned before, more may pay",
    "adapter.alpha": "goes with the rate",
    "optimizer": "another one, tuned, may reach the same for less: thrifty tune",
    "dropout": "other masks are drawn than by torch's own",
    "precision": "the rate is of large products; small ones gain less",
    "memory_format": "few channels gain little",
    "loading": "threads that wait for each other in a step may leave room; on a GPU it was not timed",
    "checkpointing": "the memory's interval",
    "threads": "other programs on the machine",
    "documents": "unlike documents in long windows may be learned better apart: data.documents",
    "batching": "order seldom bears on the result; data sorted by something that goes with length may learn otherwise",
    "batch": "the best batch grows as the loss falls (McCandlish et al. 2018)",
    "micro_batch": "the memory's interval",
    "schedule": "others differ by little when tuned",
    "rates": "with depth, batch and steps the best rate moves all the same",
    "learning_rate": "a starting point: within a factor of three; thrifty tune finds a better one",
    "weight_decay": "seldom decisive in short runs",
    "clip": "a sudden loss would say otherwise",
    "warmup": "a larger batch or rate may need more",
    "momentum": "seldom worth tuning",
    "power": "seldom decisive",
    "cooldown": "from a tenth on little changes",
    "compile": "how much is saved was measured on two models of one GPU",
    "gradient_release": "a gradient that is no number is known when weights have changed: they go back to the last "
    "checkpoint, and without one the run ends; so does one that finds no memory for a step",
    "offload": "the link and the host were not timed",
    "groups": "what no module of torch's holds goes by its dimensions",
    "epochs": "stop earlier with a target",
    "evaluate_every": "a better model may lie between two validations",
}


@dataclass
class Reasons:
    """Collects a `Decision` for every value that is taken."""

    lines: list[Decision]

    def take(self, field: str, asked: Any, rule: tuple[Any, str], *, source: Source = "rule", shown: str = "") -> Any:
        """Return what the job asked for, else the rule's value; either way with a line that says why."""
        value, reason = (asked, "asked for in the job") if asked is not None else rule
        self.say(field, shown or value, reason, "job" if asked is not None else source)
        return value

    def say(self, field: str, value: Any, reason: str, source: Source = "rule", doubt: str = "") -> None:
        """Add a line, in the place of an earlier one about the same field; a rule brings its own doubt."""
        if not doubt and source in {"rule", "measured"}:
            doubt = DOUBTS.get(field, "")
        shown = f"{value:g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
        self.lines = [line for line in self.lines if line.field != field]
        self.lines.append(Decision(field=field, value=shown, reason=reason, source=source, doubt=doubt))


def init(model: ModelPlan) -> tuple[str, str]:
    if model.weights:
        return "default", f"for what the weights of {model.weights} do not have"
    if model.family in FAMILIES:
        return "default", f"what the authors of the {model.family} family used"
    weights = model.arguments.get("weights")
    return "own", f"the weights of {weights}" if weights else "its own code fills it"


def decodes(traits: Traits, kind: str) -> bool:
    """Say whether a model is a Transformer that predicts the next token, as GPTs are."""
    return traits.attends and kind == "language"


def reads(traits: Traits, kind: str) -> bool:
    """Say whether a model is a Transformer that reads whole texts, as BERTs are."""
    return traits.attends and kind == "text"


def adapter_rank() -> tuple[int, str]:
    return 8, "what RoBERTa was adapted with; larger ones gained little (Hu et al. 2021, table 9 and section 7.2)"


def adapter_alpha() -> tuple[float, str]:
    return 16.0, "RoBERTa large in Hu et al. 2021, table 9; it stays when the rank changes, and the rate may too"


def adapter_targets(traits: Traits) -> str:
    if traits.attends:
        return "all linear layers of attention and feed-forward: fewer fall short (Dettmers et al. 2023, section 4)"
    return "every layer that an adapter fits, those of classes left out"


def adapter_doubt(traits: Traits) -> str:
    return "" if traits.loaded else "its weights were not trained before: adapters change by little what is random"


def optimizer(traits: Traits, adapter: str = "none") -> tuple[str, str]:
    if adapter != "none":
        return "adamw", "what adapters were trained with (Hu et al. 2021, table 9)"
    if traits.batch_norm:
        return "momentum", "what residual networks with batch norm were trained with (He et al. 2015, section 3.4)"
    return "adamw", "trains Transformers and plain networks with the least tuning (Loshchilov and Hutter 2019)"


def optimizer_doubt(name: str, traits: Traits) -> str:
    """What to know of an optimizer that was asked for, or an empty string."""
    if name == "schedule_free" and traits.batch_norm:
        return "batch norms keep statistics of the weights that train, not of the average that is kept"
    if name == "soap":
        return "what it does every ten steps, the refresh of its bases, is in no predicted time"
    return ""


# rates that do not go by the model, from whose authors or their code they are
_RATES = {
    "rmsprop": (1e-3, "Tieleman and Hinton 2012, lecture 6e"),
    "adagrad": (1e-2, "torch's default; Duchi et al. 2011 leave it to tuning"),
    "nadam": (2e-3, "Dozat 2016"),
    "adafactor": (
        1e-2,
        "a share of each tensor's size, and at most 1 / sqrt(step) (Shazeer and Stern 2018, section 8)",
    ),
    "soap": (3e-3, "Vyas et al. 2024, as their code has it"),
    "schedule_free": (2.5e-3, "Defazio et al. 2024, as their code has it"),
}
_RATES_LIKE_ADAMW = {
    "adam": "",
    "adamw": "",
    "adamw_8bit": "AdamW's (Dettmers et al. 2022): ",
    "muon": "AdamW's, to whose steps its own are scaled (Liu et al. 2025): ",
}
LION_SHARE = 5


def learning_rate(
    name: str, traits: Traits, kind: str, parameters: int, batch: int, adapter: str = "none"
) -> tuple[float, str]:
    if adapter != "none" and name in {"adam", "adamw"}:
        if decodes(traits, kind):
            return 2e-4, "adapters of GPT-2 (Hu et al. 2021, table 11)"
        return 5e-4, "adapters of RoBERTa base, ten times what its own weights take (Hu et al. 2021, table 9)"
    if name in _RATES_LIKE_ADAMW:
        rate, said = _adamw_rate(traits, kind, parameters)
        return rate, _RATES_LIKE_ADAMW[name] + said
    if name == "lion":
        rate, said = _adamw_rate(traits, kind, parameters)
        return float(f"{rate / LION_SHARE:.2g}"), (
            f"a fifth of AdamW's, from a third to a tenth of which serves (Chen et al. 2023, section 5): {said}"
        )
    if name == "lamb":
        return _lamb_rate(traits, kind, batch)
    if name == "adafactor" and traits.loaded:
        return 1e-3, "weights trained before are changed little (Raffel et al. 2020, section 3.1)"
    if name in _RATES:
        return _adamw_rate(traits, kind, parameters) if traits.loaded else _RATES[name]
    if traits.loaded and name != "gd":
        rate = float(f"{0.003 * batch / 512:.3g}")
        return rate, f"0.003 x {batch} / 512: weights trained before are changed little (Kolesnikov et al. 2020)"
    if name == "gd":
        return 0.5, "full gradients carry no noise; a plain starting point, worth tuning"
    rate = 0.1 * batch / 128
    return float(f"{rate:.3g}"), f"0.1 x {batch} / 128: He et al. 2015 scaled by the batch (Goyal et al. 2017)"


def _adamw_rate(traits: Traits, kind: str, parameters: int) -> tuple[float, str]:
    if traits.loaded:
        return 5e-5, "weights trained before are changed little (Devlin et al. 2019, appendix A.3)"
    if decodes(traits, kind):
        rate = max(0.003239 - 0.0001395 * math.log(parameters), 1e-4)
        said = f"0.003239 - 0.0001395 ln({format_count(parameters)} parameters) (Kaplan et al. 2020, appendix D.6)"
        return float(f"{rate:.2g}"), said
    if reads(traits, kind):
        return 5e-4, "BERT learned at 1e-4 (Devlin et al. 2019, appendix A.2); smaller ones bear more"
    if kind == "table":
        return (
            TABLE_RATE,
            "the best of 1e-3, 2e-3 and 4e-3 on Adult and California; Gorishniy et al. 2024 tune up to 5e-3",
        )
    return 1e-3, "Kingma and Ba 2015, section 6"


def _lamb_rate(traits: Traits, kind: str, batch: int) -> tuple[float, str]:
    base, model = (0.005, "BERT") if kind == "language" else (0.04, "ResNet-50")
    said = f"{base} x sqrt({batch} / 32,768), of each matrix's norm: {model} in You et al. 2020, section 4"
    if traits.loaded:
        base, said = base / 10, f"a tenth of {said}, for weights trained before"
    return float(f"{base * math.sqrt(batch / 32_768):.3g}"), said


_DECAYS_LIKE_ADAMW = frozenset(["adamw", "adamw_8bit", "nadam", "lion", "muon", "soap", "schedule_free"])


def weight_decay(name: str, traits: Traits, kind: str, adapter: str = "none") -> tuple[float, str]:
    if name == "adamw" and adapter != "none":
        return 0.01, "adapters of GPT-2 (Hu et al. 2021, table 11)"
    if name in _DECAYS_LIKE_ADAMW:
        decay, said = (0.1, "GPT-3, appendix B") if decodes(traits, kind) else (0.01, "Loshchilov and Hutter 2019")
        if kind == "table":
            decay, said = TABLE_DECAY, "between 0.01 and 0.3, which did as well on Adult and California"
        if name == "lion":
            return (
                decay * LION_SHARE,
                f"five times AdamW's, as the rate is a fifth (Chen et al. 2023, section 5): {said}",
            )
        return decay, said if name == "adamw" else f"AdamW's: {said}"
    if name == "lamb":
        return 0.01, "You et al. 2020, section 4"
    if name in {"adam", "rmsprop", "adagrad"}:
        return 0.0, "in Adam and its like it would be an L2 penalty, not decay (Loshchilov and Hutter 2019)"
    if name == "adafactor":
        return 0.0, "Shazeer and Stern 2018 train without"
    return 1e-4, "He et al. 2015, section 3.4"


def documents(piece: float, length: int, *, packs: bool) -> tuple[str, str]:
    """Whether documents of a window are told apart, by the tokens of one in it in the mean."""
    if not packs:
        return "joined", "the model takes whole windows alone"
    said = f"a document has {piece:.0f} tokens of a window's {length:,} in the mean"
    return "joined", f"{said}; told apart, sentences of 36 in windows of 128 were learned as well, and took longer"


def momentum(name: str) -> tuple[float, str]:
    return (0.95, "Jordan et al. 2024") if name == "muon" else (0.9, "He et al. 2015, section 3.4")


def schedule(name: str) -> tuple[str, str]:
    if name == "gd":
        return "fixed", "full gradients carry no noise that a falling rate would have to average out"
    if name == "schedule_free":
        return "fixed", "an average of the weights does what a falling rate would (Defazio et al. 2024)"
    return "cosine", "one smooth fall that needs no milestones (Loshchilov and Hutter 2017)"


def warmup(name: str, schedule: str) -> tuple[float, str]:
    if schedule == "one_cycle":
        return 0.3, "the cycle rises for three tenths of the steps (Smith and Topin 2018, as fastai and torch have it)"
    if name == "gd":
        return 0.0, "full gradients need none"
    return 0.05, "a twentieth of the steps steadies the first ones (Goyal et al. 2017)"


def decay(name: str) -> float:
    """The usual factor of a schedule that has one; 1 for the rest."""
    return {"exponential": 0.95, "step": 0.1, "plateau": 0.5}.get(name, 1.0)


def power() -> tuple[float, str]:
    return 2.0, "You et al. 2017; 1 would be the linear schedule"


def cooldown() -> tuple[float, str]:
    return 0.2, "a fifth of the steps falls as far as a whole cosine (Hägele et al. 2024)"


def betas(name: str, traits: Traits, kind: str) -> tuple[float, float]:
    """The optimizer's own, where its authors give them.

    Lion's by Chen et al. 2023, SOAP's by Vyas et al. 2024, RMSprop's (the second) by Tieleman and Hinton
    2012. Adam's and all others': GPT-3's (appendix B) for its like, else those of Kingma and Ba 2015.
    """
    if name == "lion":
        return (0.95, 0.98) if decodes(traits, kind) else (0.9, 0.99)
    own = {"soap": (0.95, 0.95), "rmsprop": (0.0, 0.9), "schedule_free": (0.9, 0.999), "lamb": (0.9, 0.999)}
    return own.get(name, (0.9, 0.95) if decodes(traits, kind) else (0.9, 0.999))


def eps(name: str) -> float:
    """What keeps a division from zero: LAMB's by You et al. 2020, Adagrad's torch's, all others' Adam's."""
    return {"lamb": 1e-6, "adagrad": 1e-10}.get(name, 1e-8)


def clip(traits: Traits, kind: str) -> tuple[float, str]:
    if decodes(traits, kind):
        return 1.0, "GPT-3, appendix B"
    if reads(traits, kind):
        return 1.0, "what the authors of BERT used (Devlin et al. 2019, their code)"
    if traits.attends:
        return 1.0, "attention over images: Dosovitskiy et al. 2021, appendix B.1"
    if traits.recurs:
        return 1.0, "gradients through recurrent layers can explode (Pascanu et al. 2013)"
    return 0.0, "batch norm and plain networks need none"


def guard() -> tuple[str, str]:
    plan = GuardPlan()
    shown = f"{plan.deviations:g} deviations over {plan.window} steps"
    return shown, (
        "a loss further above the median is skipped (OLMo-core, SkipStepOptimizer), if by more than "
        f"{plan.rise:.0%} of the untrained model's: small losses have heavy tails"
    )


def batch(dataset: Dataset) -> tuple[int, str]:
    samples = dataset.counts["train"]
    if dataset.kind == "language":
        length = dataset.shape[0]
        size = max(1, min(LANGUAGE_TOKENS_PER_STEP // length, samples))
        return size, f"{size} x {length} tokens: small steps learn most per token while a model is small"
    if dataset.kind == "text":
        size = min(TEXTS_PER_STEP, samples)
        return size, "what BERT was fine-tuned with (Devlin et al. 2019, appendix A.3: 16 or 32)"
    if dataset.kind == "audio":
        size = min(RECORDINGS_PER_STEP, samples)
        return size, "small steps learn most a recording while there are few"
    if dataset.kind == "table":
        size = min(2 ** max(4, min(8, round(math.log2(max(samples, 2) / 60)))), samples)
        return size, f"about sixty steps an epoch of {samples:,} rows, at least 16 rows, at most 256"
    size = 2 ** max(3, min(7, round(math.log2(max(samples, 2) / 20))))
    size = min(size, samples)
    return size, f"about twenty steps an epoch of {samples:,} samples, at least 8, at most 128"


def epochs(dataset: Dataset) -> tuple[int, str]:
    if dataset.kind == "language":
        return 3, "weights trained before need few passes: two to four (Devlin et al. 2019, appendix A.3)"
    size = dataset.counts["train"]
    if dataset.kind == "text":
        wanted = min(max(round(40_000 / size), 3), 30)
        return wanted, f"about 40,000 texts in all, between 3 and 30 passes over {size:,}"
    if dataset.kind == "audio":
        wanted = min(max(round(100_000 / size), 10), 100)
        return wanted, f"about 100,000 recordings in all, between 10 and 100 passes over {size:,}"
    if dataset.kind == "table":
        wanted = min(max(round(350_000 / size), 5), 100)
        return wanted, f"about 350,000 rows in all, between 5 and 100 passes over {size:,}"
    wanted = min(max(round(60_000 / size), 10), 100)
    return wanted, f"about 60,000 samples in all, between 10 and 100 passes over {size:,}"


def language_steps(dataset: Dataset, parameters: int, batch_size: int) -> tuple[int, str]:
    tokens = CHINCHILLA_TOKENS_PER_PARAMETER * parameters
    steps = max(1, math.ceil(tokens / (batch_size * dataset.shape[0])))
    return steps, f"20 tokens a parameter: {format_count(tokens)} (Hoffmann et al. 2022; their fit is itself uncertain)"


def precision(device: Device) -> tuple[str, str]:
    fp32, bf16 = device.flops_per_second.get("fp32"), device.flops_per_second.get("bf16")
    if fp32 is None or bf16 is None:
        return "fp32", "bf16 was not measured on this device"
    gain = bf16.value / fp32.value
    said = f"this machine multiplies bf16 at {gain:.1f}x fp32 ({bf16.source.partition(',')[0]})"
    return ("bf16", said) if gain >= BF16_MUST_GAIN else ("fp32", f"{said}: not worth the rounding")


def dropout(traits: Traits) -> tuple[Dropout, str]:
    if not traits.drops:
        return "sampled", "the model has none"
    said = "masks cut out of random words, at the same rate: on a CPU a seventh of the time of torch's own was measured"
    return "bits", f"{said}; on a GPU torch's own is used"


def rows(vocabulary: int, read: int) -> tuple[Rows, str]:
    said = f"a step reads at most {read:,} of {vocabulary:,} rows of the embedding"
    if 2 * read < vocabulary:
        return "used", f"{said}; AdamW's updates of the others have a closed form, and wait until they are read"
    return "all", f"{said}: too many to treat apart"


def gradient_release() -> tuple[str, str]:
    return "in the backward pass", (
        "asked for in the job: each parameter is stepped as soon as its gradient is whole, which then goes (Lv et al. "
        "2023); what is learned is the same, and the micro-batch is the whole batch"
    )


def offload() -> tuple[str, str]:
    return "to the processor's memory", (
        "asked for in the job: optimizer states lie there, gradients travel down and weights up, and the step is taken "
        "by the processor (Ren et al. 2021); what is learned is the same"
    )


def compile_pays(gain: Interval, takes: Interval, steps: int) -> tuple[bool, str]:
    """Say whether compiling should pay back over a job's steps.

    Args:
        gain: seconds that it saves in a step.
        takes: seconds before the first one.
        steps: of the job.
    """
    after = math.ceil(takes.value / gain.value) if gain.value > 0 else math.inf
    back = f"back after {after:,} steps, the job has {steps:,}" if gain.value > 0 else "which never comes back"
    return steps > after, f"it saves {gain.value * 1e3:,.3g} ms a step and takes {format_seconds(takes.value)}: {back}"


def loading(job: Job, device: Device) -> tuple[Loading, str]:
    if device.kind != "cpu":
        return "beside", "the processor, which waits for the GPU, makes the next ones meanwhile"
    if job.budget.memory is not None:
        return "between", "memory is limited, and a step and the next ones' batches would take it at once"
    threads = job.plan.threads or device.threads
    if threads < device.threads:
        free = f"a step computes on {threads} of {device.threads} cores, and another makes the next ones meanwhile"
        return "beside", f"{free} (waits for 32 images with RandAugment and mixup: 0.1 ms for 5)"
    return "between", LOADING_ON_CPU


def memory_format(traits: Traits) -> tuple[str, str]:
    if traits.convolves:
        return "channels_last", "images are stored so, and convolutions read them without a copy"
    return "contiguous", "the model has no convolutions that would gain"
