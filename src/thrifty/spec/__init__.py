"""The nouns: plain frozen data without torch. `Job`, `Plan`, `Cost`, `Device`, `Dataset`, `BundleInfo`."""

from thrifty.spec.augment import Augment, RandAugment
from thrifty.spec.bundle import BUNDLE_FORMAT, BundleInfo
from thrifty.spec.cost import Cost, Interval, Spent
from thrifty.spec.data import (
    AudioData,
    Declared,
    DeclaredData,
    DeclaredImages,
    ImageData,
    LanguageData,
    RawData,
    Split,
    TableData,
    TextData,
)
from thrifty.spec.dataset import LENGTH_MULTIPLE, SPLITS, Cleaning, Dataset
from thrifty.spec.device import Cluster, Device, DeviceKind, Link, Quantity
from thrifty.spec.job import (
    Budget,
    Job,
    Pins,
    Target,
    load_job,
    parse_budget,
    parse_job,
    raw_data,
    with_devices,
)
from thrifty.spec.kinds import KINDS, Kind, KindName, Task
from thrifty.spec.layout import BF16_HELD, Checkpointing, Compile, Layout, Precision, arithmetic_of
from thrifty.spec.metrics import METRICS, TASK_METRICS, Metric
from thrifty.spec.plan import (
    AdaptPlan,
    Batching,
    BatchPlan,
    Decision,
    GuardPlan,
    LoopPrecision,
    ModelPlan,
    OptimPlan,
    Plan,
    Probed,
    StopPlan,
)
from thrifty.spec.sound import Sound
from thrifty.spec.table import Table
from thrifty.spec.train import Adapter, Train
from thrifty.spec.transformer import TransformerShape

__all__ = [
    "BF16_HELD",
    "BUNDLE_FORMAT",
    "KINDS",
    "LENGTH_MULTIPLE",
    "METRICS",
    "SPLITS",
    "TASK_METRICS",
    "AdaptPlan",
    "Adapter",
    "AudioData",
    "Augment",
    "BatchPlan",
    "Batching",
    "Budget",
    "BundleInfo",
    "Checkpointing",
    "Cleaning",
    "Cluster",
    "Compile",
    "Cost",
    "Dataset",
    "Decision",
    "Declared",
    "DeclaredData",
    "DeclaredImages",
    "Device",
    "DeviceKind",
    "GuardPlan",
    "ImageData",
    "Interval",
    "Job",
    "Kind",
    "KindName",
    "LanguageData",
    "Layout",
    "Link",
    "LoopPrecision",
    "Metric",
    "ModelPlan",
    "OptimPlan",
    "Pins",
    "Plan",
    "Precision",
    "Probed",
    "Quantity",
    "RandAugment",
    "RawData",
    "Sound",
    "Spent",
    "Split",
    "StopPlan",
    "Table",
    "TableData",
    "Target",
    "Task",
    "TextData",
    "Train",
    "TransformerShape",
    "arithmetic_of",
    "load_job",
    "parse_budget",
    "parse_job",
    "raw_data",
    "with_devices",
]
