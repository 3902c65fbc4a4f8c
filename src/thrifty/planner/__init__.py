"""Plan: a job, prepared data and a device in; every decision with its reason and its price out.

`plan` decides a run on this machine; `propose_here`, `cluster_plan` and `survey` answer `thrifty plan` for this
machine, for a cluster, and for a catalogue. The space is a list (`moves.MOVES`); the search knows nothing of what a
move means.
"""

from thrifty.planner.correction import HISTORY, Seen, seen
from thrifty.planner.declared import declared_dataset
from thrifty.planner.here import propose_here
from thrifty.planner.machines import survey
from thrifty.planner.planner import Probe, plan
from thrifty.planner.propose import cluster_plan

__all__ = [
    "HISTORY",
    "Probe",
    "Seen",
    "cluster_plan",
    "declared_dataset",
    "plan",
    "propose_here",
    "seen",
    "survey",
]
