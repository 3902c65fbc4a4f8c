"""Imports run downward only: every import of the package, in-function ones included, against the floor list."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "thrifty"

# The ground floor has three steps: what can go wrong, what is said, and how it is safely written down.
FLOORS = {
    "errors": 1.0, "spec": 1.1, "files": 1.2,
    "hardware": 2, "data": 2, "models": 2, "optim": 2, "ledger": 2, "runs": 2,
    "cost": 3, "evaluate": 3, "export": 3, "report": 3, "names": 3,
    "planner": 4, "train": 4, "serve": 4,
    "pipeline": 5, "tune": 5, "scale": 5, "compress": 5,
    "api": 6,
    "testing": 7, "web": 7,
    "cli": 8, "__main__": 9,
}  # fmt: skip

# Whole packages whose work belongs to one room alone: nobody else imports them.
OWNERS = {
    "sqlalchemy": {"ledger"},
    "cv2": {"data"},
    "optuna": {"tune"},
    "plotly": {"report"},
    "uvicorn": {"serve", "web"},
    "starlette": {"serve", "web"},
    "grpc": {"serve"},
    "opentelemetry": {"serve"},
    "ray": {"serve", "tune"},
    "tensorboard": {"report"},
    "mlflow": {"report"},
    "wandb": {"report"},
}


def _room(path: Path) -> str:
    part = path.relative_to(PACKAGE).parts[0]
    return part.removesuffix(".py")


@cache
def _imports(path: Path) -> tuple[tuple[int, str], ...]:
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are written in full"
            name = node.module or ""
            if name == "thrifty":
                found += [(node.lineno, f"thrifty.{alias.name}") for alias in node.names]
            else:
                found.append((node.lineno, name))
    return tuple(found)


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py" or path.parent != PACKAGE)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downward(path: Path) -> None:
    room = _room(path)
    assert room in FLOORS, f"room '{room}' has no floor"
    for line, name in _imports(path):
        parts = name.split(".")
        owners = OWNERS.get(parts[0])
        assert owners is None or room in owners, f"{path}:{line}: {parts[0]} belongs to {owners}"
        if parts[0] != "thrifty" or len(parts) == 1 or parts[1] == "__version__":
            continue
        below = parts[1]
        assert below == room or FLOORS[below] < FLOORS[room], (
            f"{path}:{line}: {room} (floor {FLOORS[room]}) imports {below} (floor {FLOORS[below]})"
        )


@pytest.mark.parametrize("path", [p for p in FILES if _room(p) in {"spec", "errors"}], ids=str)
def test_the_ground_floor_knows_no_torch(path: Path) -> None:
    assert not [name for _, name in _imports(path) if name.split(".")[0] in {"torch", "numpy", "cv2"}]


def test_no_circles_within_a_room() -> None:
    graph = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): {
            name for _, name in _imports(path) if name.startswith("thrifty")
        }
        for path in FILES
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"import circle: {' -> '.join((*trail, name))}"
        if name in graph and name not in done:
            for below in graph[name]:
                visit(below, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())
