"""Names are looked up without data and without torch."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from thrifty.errors import JobError
from thrifty.models import INIT_NAMES
from thrifty.models.schemes import INITS
from thrifty.names import check_names
from thrifty.spec import Job, parse_job

MISSPELT = [
    ({"model": "resnet9"}, "unknown model 'resnet9'. Did you mean 'resnet"),
    ({"train": {"optimizer": "sdg"}}, "unknown optimizer 'sdg'. Did you mean 'sgd'?"),
    ({"train": {"schedule": "cosinus"}}, "unknown schedule 'cosinus'. Did you mean 'cosine'?"),
    ({"train": {"init": "he_norml"}}, "unknown initialiser 'he_norml'. Did you mean 'he_normal'?"),
    ({"train": {"init": {"fc.*": "he_norml"}}}, "unknown initialiser 'he_norml'. Did you mean 'he_normal'?"),
    ({"train": {"init": "zeros"}}, "train.init is zeros: all weights alike learn nothing"),
]


def job(**changes: Any) -> Job:
    return parse_job({"name": "a", "data": {"kind": "image", "path": "x"}, "model": "resnet8", **changes})


@pytest.mark.parametrize(("changes", "said"), MISSPELT, ids=[row[1] for row in MISSPELT])
def test_a_misspelt_name_is_told_with_the_nearest(changes: dict[str, Any], said: str) -> None:
    check_names(job())
    with pytest.raises(JobError) as caught:
        check_names(job(**changes))
    assert said in str(caught.value)


def test_the_names_of_the_initialisers_are_those_of_their_table() -> None:
    assert set(INIT_NAMES) == set(INITS)


def test_looking_names_up_loads_no_torch() -> None:
    code = "import sys, thrifty.names; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
