"""A real Ray cluster of two nodes on this machine: one is killed, and nothing is lost or doubled. Run by `make ray`."""

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import pieces
import psutil

from fastwam_policy.common.parallel import Where, map_tasks


def listening():
    """Addresses that processes started here listen at."""
    return {
        each.laddr.ip
        for process in psutil.Process().children(recursive=True)
        for each in process.net_connections("inet")
        if each.status == psutil.CONN_LISTEN
    }


if __name__ == "__main__":
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # as ray_cluster does
    import ray
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "include_dashboard": False, "object_store_memory": 10**8}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    second, folder, found = cluster.add_node(**node), Path(tempfile.mkdtemp()), []
    for result in map_tasks(pieces.slowly, [(number, folder) for number in range(9)], Where(ray=cluster.address)):
        found.append(result)
        in_work = [number for number in range(9) if 0 < sum(each == number for each, _ in found) < 3]
        if len(in_work) == 2 and second:  # so that each node has one
            assert listening() <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}, listening()
            cluster.remove_node(second, allow_graceful=False)
            second = None
    assert sorted(found) == [(number, part) for number in range(9) for part in range(3)]
    assert len(list(folder.iterdir())) > 9, "the node did nothing when it was killed"
    print("nothing was lost or doubled, and nothing listened beyond this machine", flush=True)
    ray.shutdown()  # a node cannot go before its driver
    cluster.shutdown()
