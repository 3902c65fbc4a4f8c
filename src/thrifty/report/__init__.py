"""Report: a run for a reader: `tables` for the terminal, `write_page` for one self-contained HTML file."""

from thrifty.report.page import write_page
from thrifty.report.tables import bill, cleaning_table, hardware_table, ledger_table, plan_table, tuning_table

__all__ = ["bill", "cleaning_table", "hardware_table", "ledger_table", "plan_table", "tuning_table", "write_page"]
