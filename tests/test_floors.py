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


@pytest.mark.parametrize("room", sorted({_room(path) for path in FILES}))
def test_imports_run_downward(room: str) -> None:
    assert room in FLOORS, f"room '{room}' has no floor"
    wrong = []
    for path in FILES:
        for line, name in _imports(path) if _room(path) == room else ():
            parts = name.split(".")
            owners = OWNERS.get(parts[0])
            if owners is not None and room not in owners:
                wrong.append(f"{path}:{line}: {parts[0]} belongs to {owners}")
            if parts[0] != "thrifty" or len(parts) == 1 or parts[1] == "__version__":
                continue
            below = parts[1]
            if below != room and FLOORS[below] >= FLOORS[room]:
                wrong.append(f"{path}:{line}: {room} (floor {FLOORS[room]}) imports {below} (floor {FLOORS[below]})")
    assert wrong == []


def test_the_ground_floor_knows_no_torch() -> None:
    ground = [path for path in FILES if _room(path) in {"spec", "errors"}]
    assert len(ground) > 10
    wrong = {path: names for path in ground if (names := {"torch", "numpy", "cv2"} & _packages(path))}
    assert wrong == {}


def _packages(path: Path) -> set[str]:
    return {name.split(".")[0] for _, name in _imports(path)}


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
