"""Settings that were written by other versions."""

from dataclasses import dataclass
from pathlib import Path

from fastwam_policy.common.settings import Uncompared, changes
from galaxea_r1lite_bridge.robot.yaml_model import StrictModel


class Part(StrictModel):
    size: int
    shade: str = "red"


class Whole(StrictModel):
    path: Path
    parts: list[Part]
    first: Part | None = None
    rate: float = 1.0
    workers: Uncompared[int] = 0


@dataclass(frozen=True)
class Flat:
    task: str
    seeds: tuple[int, ...] = ()
    careful: bool = True
    device: Uncompared[str] = "cpu"


def test_a_value_that_was_renamed_is_no_change():
    @dataclass(frozen=True)
    class How:
        level: str = "objects"
        name: str = "objects"

    assert list(changes({"level": "towel"}, How())) == []
    assert list(changes({"level": "full", "name": "towel"}, How())) == [
        "level: full -> objects", "name: towel -> objects",
    ]  # fmt: skip


def test_what_was_not_written_had_its_default():
    now = Whole(path=Path("data"), parts=[Part(size=1), Part(size=2)], first=Part(size=3), workers=5)
    before = {"path": "data", "parts": [{"size": 1}, {"size": 2}], "first": {"size": 3}, "workers": 2}
    assert list(changes(before, now)) == []
    before["parts"][1]["size"] = 3
    before["first"] = None
    assert list(changes(before, now)) == ["parts[1].size: 3 -> 2", "first: None -> {'size': 3, 'shade': 'red'}"]
    del before["path"]
    assert next(changes(before, now)) == "path: nothing -> data"


def test_values_may_be_text_and_unknown_ones_are_named():
    before = {"task": "fold", "careful": "True", "device": "cuda", "colour": "red"}
    assert list(changes(before, Flat("fold"))) == ["colour: red -> unknown to this version"]
    assert list(changes({"task": "fold"}, Flat("fold", (1, 2), careful=False))) == [
        "seeds: [] -> [1, 2]", "careful: True -> False",
    ]  # fmt: skip


def test_of_plain_data_what_was_written_is_compared():
    assert list(changes({"mean": [1, 2]}, {"mean": [1, 2], "median": [3]})) == []
    assert list(changes({"mean": [1, 2]}, {"mean": [1, 3]})) == ["mean[1]: 2 -> 3"]
