"""A real Ray cluster of two nodes on this machine: equal results, a node that is killed, a driver that is killed."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from fastwam_policy.cli.main import main
from fastwam_policy.common.failure import RunError
from fastwam_policy.common.parallel import Where, map_tasks

from .waiting import PATIENCE, until

pytest.importorskip("ray", reason="Ray is not installed; make ray installs it beside .venv")
pytestmark = pytest.mark.slow
COMMAND = [sys.executable, "-m", "fastwam_policy.cli"]


@pytest.fixture(scope="module")
def cluster():
    """Of two nodes with a CPU each."""
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # as ray_cluster does
    import ray
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "include_dashboard": False, "object_store_memory": 10**8}
    started = Cluster(initialize_head=True, head_node_args=node)
    started.add_node(**node)
    yield started
    ray.shutdown()
    started.shutdown()


@pytest.fixture
def pieces(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)  # the other processes must find it
    return importlib.import_module("pieces")


def outcomes(file):
    """Of an evaluation, without what a clock measured."""
    return [{**each, "inference_ms": 0} for each in json.loads(file.read_text())["outcomes"]]


def test_an_evaluation_is_the_same_to_the_byte_and_goes_on_when_its_driver_was_killed(
    cluster, random_bundle, tmp_path, monkeypatch
):
    command = ["eval-sim", str(random_bundle), "--time-limit", "1", "--episodes", "6", "--json"]
    whole, figures = tmp_path / "pool.json", tmp_path / "ray.json"
    subprocess.run([*COMMAND, *command, whole, "--workers", "2"], check=True, timeout=10 * PATIENCE)
    driver = subprocess.Popen([*COMMAND, *command, figures, "--ray", cluster.address])
    until(figures.exists, 10 * PATIENCE)
    driver.kill()
    driver.wait()
    begun = outcomes(figures)
    assert 0 < len(begun) < 6
    again = subprocess.run(
        [*COMMAND, *command, figures, "--ray", cluster.address], check=True, capture_output=True, text=True
    )
    assert f"{len(begun)} of 6 episodes are in" in again.stdout
    assert json.dumps(outcomes(figures)) == json.dumps(outcomes(whole))


def test_nothing_is_lost_or_doubled_when_a_node_is_killed(cluster, pieces, tmp_path):
    node = cluster.add_node(num_cpus=1, node_ip_address="127.0.0.1", object_store_memory=10**8)
    found = []
    for result in map_tasks(pieces.slowly, [(number, tmp_path) for number in range(9)], Where(ray=cluster.address)):
        found.append(result)
        if len(found) == 5:
            cluster.remove_node(node, allow_graceful=False)
    assert sorted(found) == [(number, part) for number in range(9) for part in range(3)]
    assert len(list(tmp_path.iterdir())) > 9, "the node did nothing when it was killed"


def test_nothing_listens_beyond_this_machine(cluster, pieces, tmp_path):
    assert list(map_tasks(pieces.slowly, [(1, tmp_path)], Where(ray=cluster.address)))
    listening = {
        each.laddr.ip
        for process in psutil.Process().children(recursive=True)
        for each in process.net_connections("inet")
        if each.status == psutil.CONN_LISTEN
    }
    assert listening
    assert listening <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}


def test_an_error_on_a_node_is_one_line_here(cluster, pieces, capsys, tmp_path):
    with pytest.raises(RunError, match="LookupError: x"):
        list(map_tasks(pieces.refuse, [(LookupError("x"),)], Where(ray=cluster.address)))
    with pytest.raises(SystemExit) as ended:
        main(["eval-sim", str(tmp_path), "--ray", cluster.address])
    assert ended.value.code == 2
