"""The nouns: plain frozen data without torch. `Job`, `Plan`, `Cost`, `Device`, `Dataset`, `BundleInfo`."""

from thrifty.spec.bundle import BUNDLE_FORMAT, BundleInfo
from thrifty.spec.cost import Cost, Interval, Spent
from thrifty.spec.dataset import SPLITS, Cleaning, Dataset
from thrifty.spec.device import Cluster, Device, DeviceKind, Link, Quantity
from thrifty.spec.job import (
    Budget,
    ImageData,
    Job,
    LanguageData,
    Pins,
    Split,
    Target,
    Train,
    load_job,
    parse_budget,
    parse_job,
)
from thrifty.spec.layout import Checkpointing, Layout, Precision
from thrifty.spec.plan import BatchPlan, Decision, ModelPlan, OptimPlan, Plan, Probed, StopPlan
from thrifty.spec.transformer import TransformerShape

__all__ = [
    "BUNDLE_FORMAT",
    "SPLITS",
    "BatchPlan",
    "Budget",
    "BundleInfo",
    "Checkpointing",
    "Cleaning",
    "Cluster",
    "Cost",
    "Dataset",
    "Decision",
    "Device",
    "DeviceKind",
    "ImageData",
    "Interval",
    "Job",
    "LanguageData",
    "Layout",
    "Link",
    "ModelPlan",
    "OptimPlan",
    "Pins",
    "Plan",
    "Precision",
    "Probed",
    "Quantity",
    "Spent",
    "Split",
    "StopPlan",
    "Target",
    "Train",
    "TransformerShape",
    "load_job",
    "parse_budget",
    "parse_job",
]
