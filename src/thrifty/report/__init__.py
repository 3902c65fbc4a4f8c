"""Report: a run or a plan for a reader: tables for the terminal, and pages that are one self-contained HTML file."""

from thrifty.report.compression import compression_view
from thrifty.report.hardware_tables import catalogue_table, cluster_table
from thrifty.report.left import Left
from thrifty.report.page import write_page
from thrifty.report.plan_page import write_proposal
from thrifty.report.plan_tables import proposal_view
from thrifty.report.tables import bill, cleaning_table, hardware_table, ledger_table, plan_table
from thrifty.report.trainer_state import read_trainer_state
from thrifty.report.trials import tried_line, tuning_view
from thrifty.report.words import LANGUAGES, Language

__all__ = [
    "LANGUAGES",
    "Language",
    "Left",
    "bill",
    "catalogue_table",
    "cleaning_table",
    "cluster_table",
    "compression_view",
    "hardware_table",
    "ledger_table",
    "plan_table",
    "proposal_view",
    "read_trainer_state",
    "tried_line",
    "tuning_view",
    "write_page",
    "write_proposal",
]
