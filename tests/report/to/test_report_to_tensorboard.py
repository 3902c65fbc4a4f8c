"""What TensorBoard's own reader finds in the event files of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from told_runs import check, steps, tell, tell_two_attempts

pytest.importorskip("tensorboard", reason="TensorBoard is in the extra 'tensorboard'")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert tell_two_attempts("tensorboard", tmp_path / "digits") == []
    folder = tmp_path / "digits" / "reported" / "tensorboard"
    assert len(list(folder.iterdir())) == 2, "a file an attempt"
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()

    def read(name: str) -> list[tuple[int, float]]:
        found = reader.Scalars(name) if name in reader.Tags()["scalars"] else []
        return [(each.step, each.value) for each in found]

    check(read)
    content = reader.SummaryMetadata("_hparams_/session_start_info").plugin_data
    assert content.plugin_name == "hparams" and b"resnet8" in content.content


def test_a_file_that_a_kill_cut_short_is_gone_on_from(tmp_path: Path) -> None:
    from thrifty.report.to.tensorboard import event_files, records

    tell("tensorboard", tmp_path, steps(1, 12))
    (first,) = event_files(tmp_path / "reported" / "tensorboard")
    whole = len(list(records(first)))
    with first.open("r+b") as file:
        file.truncate(first.stat().st_size - 5)
    assert len(list(records(first))) == whole - 1
    assert tell("tensorboard", tmp_path, steps(1, 14)) == []
    _, second = event_files(tmp_path / "reported" / "tensorboard")
    from tensorboard.compat.proto.event_pb2 import Event

    told = [Event.FromString(record).step for record in records(second)]
    assert [number for number in told if number] == [12, 13, 14], "the step that was cut, and what follows it"
