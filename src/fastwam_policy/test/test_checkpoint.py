import pickle

import pytest
import torch

from fastwam_policy.model.checkpoint import CheckpointError, load_into, load_weights
from fastwam_policy.model.config import PRESETS
from fastwam_policy.model.fastwam import FastWam

from .golden_files import GOLDEN


@pytest.fixture
def official():
    return torch.load(GOLDEN / "checkpoint.pt", weights_only=True)


def test_official_names_are_ours():
    model = FastWam(PRESETS["tiny"])
    assert set(load_weights(GOLDEN / "checkpoint.pt")) == set(model.state_dict())


def test_every_problem_is_listed(official, tmp_path):
    official["mot"].pop("mixtures.video.head.head.bias")
    official["mot"]["mixtures.action.extra"] = torch.zeros(3)
    official["mot"]["mixtures.action.head.bias"] = torch.zeros(7)
    path = tmp_path / "changed.pt"
    torch.save(official, path)
    with pytest.raises(CheckpointError) as error:
        load_into(FastWam(PRESETS["tiny"]), load_weights(path), "changed.pt")
    text = str(error.value)
    assert "3 parameters do not fit" in text
    assert "missing: video.head.head.bias [192]" in text
    assert "unexpected: action.extra [3]" in text
    assert "shape: action.head.bias is [7], the configuration needs [14]" in text


class Code:
    """What a malicious pickle would hold."""

    def __reduce__(self):
        return (print, ("this must never run",))


def test_unsafe_pickles_are_refused(tmp_path, capsys):
    path = tmp_path / "unsafe.pt"
    torch.save({"mot": Code()}, path)
    with pytest.raises(CheckpointError, match="refused: it holds Python objects"):
        load_weights(path)
    plain = tmp_path / "plain.pt"
    plain.write_bytes(pickle.dumps(Code()))
    with pytest.raises(CheckpointError):
        load_weights(plain)
    assert "never run" not in capsys.readouterr().out


def test_other_files_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="no such weight file"):
        load_weights(tmp_path / "missing.pt")
    for name in ("cut.pt", "cut.safetensors"):
        path = tmp_path / name
        path.write_bytes((GOLDEN / "checkpoint.pt").read_bytes()[:5000])
        with pytest.raises(CheckpointError, match="truncated or not a weight file"):
            load_weights(path)
    path = tmp_path / "other.pt"
    torch.save({"model": {}, "epoch": 3}, path)
    with pytest.raises(CheckpointError, match=r"expected the key 'mot', found \['epoch', 'model'\]"):
        load_weights(path)
