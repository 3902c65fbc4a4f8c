"""The moves by name: a row each, cheap and likely ones first; the search tries them in any order that applies."""

from thrifty.compress.moves.conversions import CONVERSIONS
from thrifty.compress.moves.distil import DISTIL
from thrifty.compress.moves.fold import FOLD
from thrifty.compress.moves.low_rank import factor_move
from thrifty.compress.moves.move import Candidate, Context, Form, Move, Objective
from thrifty.compress.moves.onnx_int8 import ONNX_INT8
from thrifty.compress.moves.prune import layer_move, unit_move
from thrifty.compress.moves.quantise import QUANTISING
from thrifty.compress.moves.sparse import sparse_move
from thrifty.compress.moves.torch_int8 import TORCH_INT8

__all__ = ["MOVES", "Candidate", "Context", "Form", "Move", "Objective"]

MOVES: dict[str, Move] = {
    each.name: each
    for each in (
        *CONVERSIONS,
        *QUANTISING,
        *ONNX_INT8,
        TORCH_INT8,
        FOLD,
        unit_move(0.25),
        unit_move(0.5),
        layer_move(0.25),
        factor_move(),
        DISTIL,
        sparse_move("any"),
        sparse_move("2:4"),
    )
}
