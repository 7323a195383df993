"""A real Ray cluster of two nodes on this machine: a node and a driver are killed, its cost is measured: make ray."""

import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import pieces
import psutil
from point_benchmark import PointBenchmark

from fastwam_policy.benchmarks.base import NOOP
from fastwam_policy.benchmarks.results import Results
from fastwam_policy.benchmarks.run import how, run
from fastwam_policy.common.parallel import Where, map_tasks

REPEATS, COUNT, SECONDS = 3, 24, 0.25


def listening():
    """Addresses that processes started here listen at."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            connections = process.net_connections("inet")
            found |= {each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN}
    return found


def lose_a_node(cluster, second, folder):
    found, killed = [], None
    work = [(second.node_id, number, folder) for number in range(9)]
    for result in map_tasks(pieces.stuck_at, work, Where(ray=cluster.address)):
        found.append(result)
        stuck = [int(each.name) for each in folder.iterdir()]
        if killed is None and any((number, 0) in found for number in stuck):
            assert listening() <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}, listening()
            cluster.remove_node(second, allow_graceful=False)
            killed = stuck
    assert killed, "the second node was given nothing"
    assert sorted(found) == [(number, part) for number in range(9) for part in range(3)]
    print(
        f"a node was killed in the middle of piece {killed[0]}: nothing was lost or doubled, and nothing listened "
        "beyond this machine",
        flush=True,
    )


def drive(address, folder):
    """What a command does: play what is missing, and keep each result."""
    benchmark = PointBenchmark(folder)
    results = Results(folder / "results", how(benchmark, NOOP))
    run(benchmark, results, benchmark.tasks(benchmark.suites), None, Where(ray=address))


def lose_the_driver(cluster, folder):
    command = [sys.executable, __file__, cluster.address, str(folder)]
    driver, file = subprocess.Popen(command), folder / "results" / "episodes.jsonl"
    while driver.poll() is None and not (file.exists() and file.read_bytes().count(b"\n")):
        time.sleep(0.01)
    driver.kill()
    driver.wait()
    kept = file.read_text().splitlines()[:-1]  # the last one may be incomplete
    subprocess.run(command, check=True)
    lines = file.read_text().splitlines()
    benchmark = PointBenchmark(folder)
    results, tasks = Results(folder / "results", how(benchmark, NOOP)), benchmark.tasks(benchmark.suites)
    played = [(each.suite, each.task, each.trial) for each in results.of(tasks, None)]
    assert len(kept) < len(played) == len(set(played)) == sum(task.trials for task in tasks), played
    assert lines[: len(kept)] == kept
    print(f"a driver was killed after {len(kept) + 1} of {len(played)} episodes: the next played the rest", flush=True)


def span(where):
    """Time from the first result to the last, s: without the start of processes."""
    arrived = [time.monotonic() for _ in map_tasks(pieces.busy, [(n, SECONDS) for n in range(COUNT)], where)]
    return arrived[-1] - arrived[0]


def compare(cluster):
    """Both in turn, since other load comes and goes; the least of each."""
    turns = [(span(Where(workers=2)), span(Where(ray=cluster.address))) for _ in range(REPEATS)]
    pool, ray = (min(each) for each in zip(*turns, strict=True))
    print(f"{COUNT} pieces of {SECONDS} s, 2 at a time: pool {pool:.2f} s, Ray {ray:.2f} s, {ray / pool - 1:+.1%}")


if __name__ == "__main__":
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # as ray_cluster does
    if len(sys.argv) > 1:
        drive(sys.argv[1], Path(sys.argv[2]))
        sys.exit()
    import ray
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "include_dashboard": False, "object_store_memory": 10**8}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    lose_a_node(cluster, cluster.add_node(**node), Path(tempfile.mkdtemp()))
    cluster.add_node(**node)
    lose_the_driver(cluster, Path(tempfile.mkdtemp()))
    compare(cluster)
    ray.shutdown()  # a node cannot go before its driver
    cluster.shutdown()
