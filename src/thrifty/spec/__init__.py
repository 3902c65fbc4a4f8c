"""The nouns: plain frozen data without torch. `Job`, `Plan`, `Cost`, `Device`, `Dataset`, `BundleInfo`."""

from thrifty.spec.bundle import BUNDLE_FORMAT, BundleInfo
from thrifty.spec.cost import Cost, Interval, Spent
from thrifty.spec.dataset import SPLITS, Cleaning, Dataset
from thrifty.spec.device import Cluster, Device, DeviceKind, Link, Quantity
from thrifty.spec.job import (
    Adapter,
    Budget,
    Declared,
    DeclaredData,
    DeclaredImages,
    ImageData,
    Job,
    LanguageData,
    Pins,
    RawData,
    Split,
    Target,
    Train,
    load_job,
    parse_budget,
    parse_job,
    raw_data,
)
from thrifty.spec.layout import Checkpointing, Layout, Precision
from thrifty.spec.plan import AdaptPlan, BatchPlan, Decision, ModelPlan, OptimPlan, Plan, Probed, StopPlan
from thrifty.spec.transformer import TransformerShape

__all__ = [
    "BUNDLE_FORMAT",
    "SPLITS",
    "AdaptPlan",
    "Adapter",
    "BatchPlan",
    "Budget",
    "BundleInfo",
    "Checkpointing",
    "Cleaning",
    "Cluster",
    "Cost",
    "Dataset",
    "Decision",
    "Declared",
    "DeclaredData",
    "DeclaredImages",
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
    "RawData",
    "Spent",
    "Split",
    "StopPlan",
    "Target",
    "Train",
    "TransformerShape",
    "load_job",
    "parse_budget",
    "parse_job",
    "raw_data",
]
