"""Whether what nodes take of a machine grows."""

import json

import numpy as np
import pytest

from fastwam_policy.cli.main import main
from fastwam_policy.launching.process_group import Used

pytest.importorskip("mujoco", reason="MuJoCo 4 has no wheel for Python 3.10")
from fastwam_policy.performance.soak import WATCHED, growth

HOUR = 720  # looks


def seen(memory, threads=20, files=30):
    """Of an hour; memory in MB, with what an allocator takes and gives back."""
    scatter = np.random.default_rng(0).normal(0, 0.5, HOUR)
    share = np.linspace(0, 1, HOUR)
    values = [np.broadcast_to(value(share) if callable(value) else value, HOUR) for value in (memory, threads, files)]
    return [Used(0.0, int(1e6 * (m + noise)), int(t), int(f)) for noise, m, t, f in zip(scatter, *values, strict=True)]


@pytest.mark.parametrize(
    ("used", "flat"),
    [
        (seen(150.0), True),
        (seen(lambda share: 150 + 30 * np.minimum(share / 0.2, 1)), True),  # a warm-up
        (seen(lambda share: 150 + 4 * share), True),
        (seen(lambda share: 150 + 7 * share), False),
        (seen(lambda share: 312 + 16 * (share * 37 % 1)), True),  # an allocator's steps
        (seen(lambda share: 312 + 16 * (share * 37 % 1) * (share > 0.5)), True),
        (seen(lambda share: 312 + 16 * (share * 37 % 1) + 7 * share), False),
        (seen(150.0, threads=lambda share: 20 + 5 * share), False),
        (seen(150.0, files=lambda share: 30 + 5 * share), False),
    ],
)
def test_what_grows_is_told_from_what_is_flat(used, flat):
    assert growth(used, 1.0).flat == flat


def test_growth_is_by_the_hour():
    found = growth(seen(lambda share: 150 + 40 * share), 1.0)
    assert found.rate == pytest.approx(40, abs=2)
    assert growth(seen(lambda share: 150 + 40 * share), 2.0).rate == pytest.approx(20, abs=1)


def test_a_policy_that_is_none_is_one_line(capsys):
    with pytest.raises(SystemExit) as status:
        main(["soak", "--policy", "/nowhere"])
    assert status.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("fastwam: /nowhere: no such folder")


@pytest.mark.slow
@pytest.mark.nodes
def test_trials_are_run_and_watched(tmp_path, capsys):
    with pytest.raises(SystemExit) as status:
        main(["soak", "--minutes", "0.3", "--json", str(tmp_path / "soak.json")])
    assert status.value.code in (0, 1), "so short a time says nothing of growth"
    found = json.loads((tmp_path / "soak.json").read_text())
    assert set(found["nodes"]) == set(WATCHED)
    assert found["trials"] >= 1
    assert all(
        node["memory"][0] > 50 and node["threads"][0] > 5 and node["files"][0] > 5 for node in found["nodes"].values()
    )
    assert "policy_node" in capsys.readouterr().out
