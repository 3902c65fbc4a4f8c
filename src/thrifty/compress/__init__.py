"""Compress: a trained run in, the cheapest bundle that is not worse out; what it cost, and when that is paid back.

A move (`moves.move.Move`) is a row of the table `moves.MOVES`: a candidate in, a candidate out. The search knows
nothing of what a move means; the guard knows nothing of moves.
"""

from thrifty.compress.compress import Wish, compress_run
from thrifty.compress.guard import parse_drop

__all__ = ["Wish", "compress_run", "parse_drop"]
