"""The nouns: plain frozen data without torch. `Job`, `Plan`, `Cost`, `Device`, `Dataset`, `BundleInfo`."""

from thrifty.spec.bundle import BUNDLE_FORMAT, BundleInfo
from thrifty.spec.cost import Cost, Interval, Spent
from thrifty.spec.dataset import SPLITS, Cleaning, Dataset
from thrifty.spec.device import Device, Quantity
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
from thrifty.spec.plan import BatchPlan, Decision, ModelPlan, OptimPlan, Plan, Probed, StopPlan

__all__ = [
    "BUNDLE_FORMAT",
    "SPLITS",
    "BatchPlan",
    "Budget",
    "BundleInfo",
    "Cleaning",
    "Cost",
    "Dataset",
    "Decision",
    "Device",
    "ImageData",
    "Interval",
    "Job",
    "LanguageData",
    "ModelPlan",
    "OptimPlan",
    "Pins",
    "Plan",
    "Probed",
    "Quantity",
    "Spent",
    "Split",
    "StopPlan",
    "Target",
    "Train",
    "load_job",
    "parse_budget",
    "parse_job",
]
