"""A function of the user's own: found as a file, checked against the contract, and never taken from a bundle."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from test_models_table import images, sentences, text

from thrifty.errors import BundleError, JobError
from thrifty.models import build, check_name, content_key, resolve, traits_of
from thrifty.models.init import initialise
from thrifty.spec import Dataset, ModelPlan
from thrifty.spec.job import locate_model

NETS = """
    from torch import arange, linspace, nn
    from parts import wide

    def net(classes, channels, height, width, hidden=8):
        return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, hidden), nn.Linear(hidden, classes))

    def few(*, classes):
        return wide(classes)

    def anything(**facts):
        return net(**facts)

    class Words(nn.Module):
        def __init__(self, vocabulary, length):
            super().__init__()
            self.table = nn.Embedding(vocabulary, 8)
            self.places = nn.Embedding(length, 8)
            self.register_buffer("order", arange(length))
            self.drop = nn.Dropout(0.5)

        def forward(self, x):
            seen = self.table(x) + self.places(self.order[: x.shape[1]])
            return self.drop(seen) @ self.table.weight.T

    class Judge(nn.Module):
        def __init__(self, vocabulary, classes):
            super().__init__()
            self.table = nn.EmbeddingBag(vocabulary, classes, padding_idx=0)

        def forward(self, x):
            return self.table(x)

    def looks(classes, channels):
        rate = linspace(0, 1, 5)[2].item()
        return nn.Sequential(nn.Conv2d(channels, classes, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(rate))

    def branches(classes, channels):
        class Branch(nn.Module):
            def __init__(self):
                super().__init__()
                self.pool = nn.Linear(channels, classes)

            def forward(self, x):
                return self.pool(x.mean((2, 3)) * (2 if x.sum() > 0 else 1))

        return Branch()

    def needs(classes, depth, *, vocabulary):
        return nn.Linear(depth, classes)

    def number(classes):
        return 7

    def a_class(classes):
        return nn.Linear

    def transposed(classes):
        return nn.Flatten(2)

    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    def breaks(classes):
        raise KeyError("no such thing")

    def breaks_later(classes, channels):
        return nn.Sequential(nn.Conv2d(channels + 1, classes, 3))

    def fixed(vocabulary, length):
        return nn.Sequential(nn.Embedding(vocabulary, 8), nn.Linear(8, vocabulary), nn.LayerNorm((length, vocabulary)))

    constant = 3
    """
PARTS = """
    from torch import nn

    def wide(classes):
        return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, classes))
    """


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "nets.py", NETS)
    write(tmp_path / "parts.py", PARTS)
    return tmp_path


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(content))


@pytest.mark.parametrize("function", ["net", "few", "anything"])
def test_a_function_gets_what_it_takes_of_what_the_data_fixes(folder: Path, function: str) -> None:
    plan = resolve(f"{folder}/nets:{function}", images(3, 16, 7))
    facts = {"classes": 7, "channels": 3, "height": 16, "width": 16}
    assert (plan.name, plan.family) == (f"nets:{function}", "own")
    given = {key: value for key, value in plan.arguments.items() if key in facts}
    assert given == ({"classes": 7} if function == "few" else facts)
    assert build(plan)(torch.zeros(2, 3, 16, 16)).shape == (2, 7)
    assert str(folder) not in plan.model_dump_json(), "a plan names no place of this machine"
    assert ModelPlan.model_validate_json(plan.model_dump_json()) == plan


def test_a_class_over_tokens_with_a_buffer_of_whole_numbers(folder: Path) -> None:
    plan = resolve(f"{folder}/nets:Words", text(64, 16))
    model = build(plan).eval()
    assert model(torch.zeros(2, 5, dtype=torch.int64)).shape == (2, 5, 64)
    assert all(parameter.is_meta for parameter in build(plan, "meta").parameters())


def test_a_class_over_texts(folder: Path) -> None:
    plan = resolve(f"{folder}/nets:Judge", sentences(64, 16, 3))
    assert {key: plan.arguments[key] for key in ("classes", "vocabulary")} == {"classes": 3, "vocabulary": 64}
    assert "length" not in plan.arguments
    assert build(plan).eval()(torch.ones(2, 5, dtype=torch.int64)).shape == (2, 3)


def test_a_function_that_looks_at_values_is_built_for_real(folder: Path) -> None:
    plan = resolve(f"{folder}/nets:looks", images())
    drops = [module.p for module in build(plan, "meta").modules() if isinstance(module, torch.nn.Dropout)]
    assert drops == [0.5]
    # what is left for the trace of a step to tell, which names the operator
    assert resolve(f"{folder}/nets:branches", images()).name == "nets:branches"


WRONG: list[tuple[str, Dataset, str]] = [
    ("nets:nte", images(), r"module 'nets' \(.*nets.py\) has no function 'nte'\. Did you mean 'net'\?"),
    ("nest:net", images(), r"there is no module 'nest' in '.*'.*Did you mean 'nets'\? .*PYTHONPATH"),
    ("nets:needs", images(), r"needs 'depth', 'vocabulary', which its data does not fix\. .*classes, channels, height"),
    ("nets:net", text(), r"needs 'classes', .* The data fixes vocabulary, length"),
    ("nets:Words", sentences(), r"answers \[2, 16\] with .*wanted\. It takes tokens \[B, T\].* 0 for padding"),
    ("nets:number", images(), r"model 'nets:number' returned a int, and an nn\.Module was wanted"),
    ("nets:a_class", images(), r"returned the class Linear, and an nn\.Module was wanted"),
    ("nets:constant", images(), r"'constant' of module 'nets' is a int, not a function"),
    ("nets:transposed", images(), r"answers \[2, 3, 32, 32\] with float32 \[2, 3, 1024\], and logits of \[2, 10\]"),
    ("nets:Pair", images(), r"answers \[2, 3, 32, 32\] with a tuple of 2, and logits of \[2, 10\] were wanted"),
    ("nets:breaks", images(), r"fails with KeyError: 'no such thing' \(nets.py, line \d+\)"),
    ("nets:breaks_later", images(), r"fails with RuntimeError: .*channels"),
    ("nets:fixed", text(64, 16), r"model 'nets:fixed' fails with RuntimeError"),
    ("nets:net-2", images(), r"'nets:net-2' names no function of a module"),
    ("broken:net", images(), r"broken.py' is not Python: .*line 1"),
    ("raises:net", images(), r"model 'raises:net' fails with ImportError: not today \(raises.py, line 1\)"),
]


@pytest.mark.parametrize(("name", "dataset", "said"), WRONG, ids=[row[0] for row in WRONG])
def test_what_is_wrong_is_told(folder: Path, name: str, dataset: Dataset, said: str) -> None:
    write(folder / "broken.py", "def net(:")
    write(folder / "raises.py", "raise ImportError('not today')\ndef net(classes): ...")
    with pytest.raises(JobError, match=said):
        resolve(f"{folder}/{name}", dataset)


def test_names_are_checked_without_running_anything(folder: Path) -> None:
    write(folder / "loud.py", f"open({str(folder / 'ran')!r}, 'w')\ndef net(classes): ...")
    check_name(f"{folder}/loud:net")
    assert content_key(f"{folder}/loud:net")
    assert not (folder / "ran").exists()


def test_looking_up_a_source_loads_no_torch(folder: Path) -> None:
    code = f"import sys, thrifty.models as m; m.content_key({f'{folder}/nets:net'!r}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_name_tells_the_other_forms() -> None:
    with pytest.raises(JobError, match=r"Did you mean 'resnet18'\?.*package\.module:function.*hf:<directory or id>"):
        check_name("resnt18")


def test_a_change_of_the_source_or_of_what_it_imports_is_another_content(folder: Path) -> None:
    name = f"{folder}/nets:few"
    first = content_key(name)
    write(folder / "unrelated.py", "x = 1")
    assert content_key(name) == first
    write(folder / "parts.py", PARTS.replace("AdaptiveAvgPool2d(2)", "AdaptiveMaxPool2d(2)"))
    second = content_key(name)
    write(folder / "nets.py", NETS.replace("hidden=8", "hidden=9"))
    assert len({first, second, content_key(name)}) == 3


def test_a_change_is_imported_though_the_old_one_was(folder: Path) -> None:
    assert build(resolve(f"{folder}/nets:net", images())).get_parameter("model.1.weight").shape[0] == 8
    write(folder / "nets.py", NETS.replace("hidden=8", "hidden=9"))
    assert build(resolve(f"{folder}/nets:net", images())).get_parameter("model.1.weight").shape[0] == 9


def test_folders_may_use_the_same_names(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    write(other / "nets.py", NETS)
    write(other / "parts.py", PARTS.replace("nn.AdaptiveAvgPool2d(2)", "nn.AdaptiveAvgPool2d(2), nn.ReLU()"))
    plans = [resolve(f"{place}/nets:few", images()) for place in (folder, other, folder)]
    assert [len(list(build(plan).modules())) for plan in plans] == [5, 6, 5]
    assert not list(folder.rglob("*.pyc"))


def test_a_package_with_relative_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "house" / "__init__.py", "")
    write(tmp_path / "house" / "deep" / "nets.py", "from ..parts import wide\ndef few(classes): return wide(classes)")
    write(tmp_path / "house" / "parts.py", PARTS)
    plan = resolve(f"{tmp_path}/house.deep.nets:few", images())
    assert build(plan)(torch.zeros(1, 3, 8, 8)).shape == (1, 10)
    before = content_key(f"{tmp_path}/house.deep.nets:few")
    write(tmp_path / "house" / "parts.py", PARTS.replace("Avg", "Max"))
    assert content_key(f"{tmp_path}/house.deep.nets:few") != before
    with pytest.raises(JobError, match=r"no module 'house\.deep\.nets' beside the job file or on the Python path"):
        check_name("house.deep.nets:few")
    monkeypatch.syspath_prepend(tmp_path)
    check_name("house.deep.nets:few")


def test_a_name_that_is_taken(tmp_path: Path) -> None:
    write(tmp_path / "json.py", "def net(classes): ...")
    with pytest.raises(JobError, match=r"the name of module 'json' is taken.*Rename your file"):
        resolve(f"{tmp_path}/json:net", images())


def test_a_job_file_says_where_to_look(folder: Path) -> None:
    assert locate_model("nets:net", folder) == f"{folder}/nets:net"
    assert locate_model("other.nets:net", folder) == "other.nets:net"
    assert locate_model(f"../{folder.name}/nets:net", folder) == f"{folder}/nets:net"


def test_its_own_weights_are_kept_and_follow_the_seed(folder: Path) -> None:
    plan = resolve(f"{folder}/nets:net", images())
    first, second, other = build(plan, seed=1), build(plan, seed=1), build(plan, seed=2)
    before = first.state_dict()["model.1.weight"].clone()
    assert initialise(first, "own", 1) == "as its own code has it"
    assert torch.equal(first.state_dict()["model.1.weight"], before)
    assert torch.equal(second.state_dict()["model.1.weight"], before)
    assert not torch.equal(other.state_dict()["model.1.weight"], before)


def test_code_that_this_user_never_ran_is_not_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    arguments: dict[str, Any] = resolve(f"{folder}/nets:net", images()).arguments
    plan = ModelPlan(name="x", family="own", arguments=arguments)
    monkeypatch.setenv("THRIFTY_CACHE", str(tmp_path / "another user"))
    with pytest.raises(BundleError, match=r"not known here, and no code is taken from a bundle.*THRIFTY_MODELS="):
        build(plan)
    with pytest.raises(BundleError, match="the code of model 'os:abort' is not known here"):
        build(ModelPlan(name="x", family="own", arguments={"function": "os:abort", "sha256": "0" * 64}))
    with pytest.raises(BundleError, match="is not known here"):
        build(ModelPlan(name="x", family="own", arguments={"function": "os:abort", "sha256": "../../own"}))
    monkeypatch.setenv("THRIFTY_MODELS", f"other:net, {folder}/nets:net")
    build(plan)
    write(folder / "nets.py", NETS.replace("hidden=8", "hidden=9"))
    with pytest.raises(BundleError, match="is not as it was when this was written"):
        build(plan)


def test_traits_are_told_by_the_modules(tmp_path: Path) -> None:
    write(
        tmp_path / "kinds.py",
        """
        from torch import nn

        def patches(classes, channels):
            encoder = nn.TransformerEncoderLayer(8, 2, batch_first=True)
            return nn.Sequential(nn.Conv2d(channels, 8, 8, stride=8), nn.Flatten(), nn.Linear(128, 8),
                                 nn.Unflatten(1, (1, 8)), encoder, nn.Flatten(), nn.Linear(8, classes))

        def windows(classes, channels):
            return nn.Sequential(nn.Conv2d(channels, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                                 nn.Linear(8, classes))

        class Reader(nn.Module):
            def __init__(self, vocabulary):
                super().__init__()
                self.table, self.head = nn.Embedding(vocabulary, 8), nn.Linear(8, vocabulary)
                self.lstm = nn.LSTM(8, 8, batch_first=True)

            def forward(self, x):
                return self.head(self.lstm(self.table(x))[0])
        """,
    )
    assert str(traits_of(resolve(f"{tmp_path}/kinds:patches", images()))) == "attention"
    assert str(traits_of(resolve(f"{tmp_path}/kinds:windows", images()))) == "overlapping convolutions, batch norm"
    assert str(traits_of(resolve(f"{tmp_path}/kinds:Reader", text()))) == "recurrent layers"
