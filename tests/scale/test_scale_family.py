"""Sizes of a family: the job's own among them, widths a root of two apart, and families that cannot grow told."""

from __future__ import annotations

import itertools

import pytest

from thrifty.errors import JobError
from thrifty.models.sized import name_of
from thrifty.models.table import recipe_of
from thrifty.scale.family import shapes_of
from thrifty.spec import Job

DATA = {"gpt": "language", "llama": "language", "bert": "text", "vit": "image", "mlp": "image", "resnet": "image"}


def job(model: str, kind: str = "language") -> Job:
    return Job.model_validate({"name": "a", "data": {"kind": kind, "path": "x"}, "model": model})


@pytest.mark.parametrize("model", ["gpt-nano", "llama-mini", "bert-tiny", "vit-nano", "mlp-small", "resnet20"])
def test_sizes_grow_by_a_root_of_two_about_the_jobs_own(model: str) -> None:
    base, shapes = shapes_of(job(model, DATA[recipe_of(model).family]))
    assert base == model
    for one, other in itertools.pairwise(shapes):
        assert one.width < other.width <= 2 * one.width
        assert one.layers <= other.layers
        assert one.head_width == other.head_width
    for shape in shapes[:12]:
        recipe_of(name_of(base, shape))
    own = recipe_of(model).arguments
    assert any(recipe_of(name_of(base, shape)).arguments == own for shape in shapes)


def test_a_size_given_in_the_job_is_where_the_family_begins() -> None:
    base, shapes = shapes_of(job("gpt-nano@4x64x4"))
    assert base == "gpt-nano"
    assert {shape.head_width for shape in shapes} == {16}
    assert shapes[0].width == 32


@pytest.mark.parametrize(
    ("model", "kind", "said"),
    [
        ("ngrams", "text", "of the family 'ngrams'"),
        ("resnet50", "image", "of the family 'resnet'"),
        ("hf:gpt2", "language", "a Hugging Face model"),
        ("nets:small", "language", "a function of yours"),
        ("ours:somewhere", "language", "starts from weights"),
    ],
    ids=["ngrams", "imagenet", "hf", "own", "ours"],
)
def test_a_family_that_cannot_grow_is_told_with_those_that_can(model: str, kind: str, said: str) -> None:
    with pytest.raises(JobError, match=rf"{said}.*gpt, llama, bert, vit, mlp, resnet"):
        shapes_of(job(model, kind))
