"""The moves by name: a row each, cheap and likely ones first; the search tries them in any order that applies."""

from thrifty.compress.moves.move import Candidate, Context, Form, Move, Objective

__all__ = ["MOVES", "Candidate", "Context", "Form", "Move", "Objective"]

MOVES: dict[str, Move] = {}
