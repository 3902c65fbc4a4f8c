"""Plan: a job, prepared data and a device in; every decision with its reason and its price out."""

from thrifty.planner.planner import Probe, plan

__all__ = ["Probe", "plan"]
