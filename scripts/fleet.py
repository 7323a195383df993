"""How many GPUs serve a fleet of robots: a simulation of the queue before a pool of policy servers.

    python scripts/fleet.py --robots 100 --limit 0.5

Each robot asks for a chunk every `--replan` seconds, and again at once where the last one came later than that. A
request goes to the free server that has waited longest, or into one queue. A robot has one request at a time, as
policy_node does. The age of a chunk is counted from its picture to its arrival: both ways of the network, waiting, and
inference. Inference times are drawn from two measured figures, median and 99th percentile, as a shifted exponential.
"""

from __future__ import annotations

import argparse
import heapq
from bisect import bisect_left
from collections import deque

import numpy as np

WARM_UP = 10.0  # s that are not counted


def ages(
    robots: int,
    servers: int,
    *,
    replan: float,
    median: float,
    p99: float,
    network: float,
    seconds: float,
    seed: int = 0,
) -> np.ndarray:
    """s, of every chunk that arrived.

    Args:
        robots: how many ask.
        servers: how many answer, one request at a time each.
        replan: s between two requests of a robot, at least.
        median: s of inference, image to chunk.
        p99: the same, of the slowest hundredth.
        network: s both ways, mean; half of it is fixed, the rest exponential.
        seconds: that are simulated.
        seed: of all random numbers.
    """
    random = np.random.default_rng(seed)
    scale = (p99 - median) / np.log(50)  # of an exponential, from its median to its 99th percentile
    least = median - scale * np.log(2)
    found: list[float] = []
    free, waiting, counter = servers, deque[tuple[int, float]](), robots
    events = [(begin, number, "ask", number, 0.0) for number, begin in enumerate(random.uniform(0, replan, robots))]
    heapq.heapify(events)

    def later(time: float, kind: str, robot: int, asked: float) -> None:
        nonlocal counter
        heapq.heappush(events, (time, counter, kind, robot, asked))
        counter += 1

    def way() -> float:
        return network / 4 + random.exponential(network / 4)

    while events:
        now, _, kind, robot, asked = heapq.heappop(events)
        if now > seconds:
            break
        if kind == "ask":
            later(now + way(), "reach", robot, now)
        elif kind == "reach":
            waiting.append((robot, asked))
        elif kind == "done":
            free += 1
            later(now + way(), "arrive", robot, asked)
        else:
            if now > WARM_UP:
                found.append(now - asked)
            later(max(now, asked + replan), "ask", robot, 0.0)
        while free and waiting:
            free -= 1
            later(now + least + random.exponential(scale), "done", *waiting.popleft())
    return np.array(found)


def enough(robots: int, limit: float, **about: float) -> int:
    """The fewest servers with which 99 of 100 chunks are at most `limit` s old."""
    if np.percentile(ages(robots, robots, **about), 99) > limit:
        raise SystemExit(f"fleet: with a server for each robot, too, 1 in 100 chunks is older than {limit:g} s")
    return bisect_left(range(1, robots), True, key=lambda n: np.percentile(ages(robots, n, **about), 99) <= limit) + 1


def main() -> None:
    """Print the table, in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--robots", type=int, default=100)
    parser.add_argument("--limit", type=float, default=0.5, metavar="S", help="age of 99 of 100 chunks (default 0.5)")
    parser.add_argument("--replan", type=float, default=0.5, metavar="S", help="from one request to the next")
    parser.add_argument("--inference", type=float, nargs=2, default=(0.069, 0.0706), metavar=("MEDIAN", "P99"))
    parser.add_argument("--network", type=float, default=0.02, metavar="S", help="both ways, mean (default 0.02)")
    parser.add_argument("--seconds", type=float, default=300.0)
    given = parser.parse_args()
    about = {"replan": given.replan, "median": given.inference[0], "p99": given.inference[1]}
    about |= {"network": given.network, "seconds": given.seconds}
    need = enough(given.robots, given.limit, **about)
    print("| GPUs | busy | chunks a robot and second | age, median | age, p99 |")
    print("|---|---|---|---|---|")
    for servers in range(max(1, need - 2), need + 3):
        found = ages(given.robots, servers, **about)
        rate = len(found) / (given.seconds - WARM_UP)
        busy = rate * given.inference[0] / servers
        median, p99 = np.percentile(found, [50, 99])
        mark = " **fewest**" if servers == need else ""
        print(f"| {servers}{mark} | {busy:.0%} | {rate / given.robots:.2f} | {median:.2f} s | {p99:.2f} s |")


if __name__ == "__main__":
    main()
