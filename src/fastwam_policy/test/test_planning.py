"""The two scripts that plan: GPUs of a fleet, and memory of a training."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from fastwam_policy.model.config import PRESETS
from fastwam_policy.model.fastwam import FastWam

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"
pytestmark = pytest.mark.skipif(not (SCRIPTS / "fleet.py").exists(), reason="the scripts are of the repository")
ABOUT = {"replan": 0.5, "median": 0.07, "p99": 0.0701, "network": 0.02, "seconds": 60.0}


def test_a_queue_behaves_as_a_queue():
    fleet = runpy.run_path(str(SCRIPTS / "fleet.py"))
    alone = fleet["ages"](1, 1, **ABOUT)
    assert np.median(alone) == pytest.approx(0.07 + 0.02, abs=0.005), "nobody waits"
    assert len(alone) == pytest.approx(2 * 50, abs=2), "two a second, without the warm-up"
    crowd = fleet["ages"](20, 1, **ABOUT)
    assert len(crowd) == pytest.approx(50 / 0.07, rel=0.02), "a server is never idle"
    assert np.median(crowd) == pytest.approx(20 * 0.07, rel=0.1), "a robot has one request at a time"
    assert fleet["enough"](20, 0.5, **ABOUT) == 3, "20 robots, 2 chunks a second, 0.07 s each: 2.8"
    with pytest.raises(SystemExit, match="with a server for each robot, too"):
        fleet["enough"](5, 0.05, **ABOUT)


def test_what_a_training_step_keeps():
    memory = runpy.run_path(str(SCRIPTS / "training_memory.py"))
    with torch.device("meta"):
        model = FastWam(PRESETS["tiny"]).to(torch.bfloat16)
    two, three, four = (memory["activations"](model, batch, checkpointing=False) for batch in (2, 3, 4))
    assert four - three == pytest.approx(three - two, rel=0.001), "each observation adds the same"
    assert memory["activations"](model, 2, checkpointing=True) < two / 2
