"""Types of command line arguments, and the options that several commands share.

`./fastwam --help` imports this module, so that nothing expensive may be imported here.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from fastwam_policy.common.parallel import Where

STDOUT = Path("-")
"""Value of `--json -`: the figures go to standard output, and everything for people to standard error."""

Number = TypeVar("Number", int, float)


def number(
    kind: Callable[[str], Number], *, least: float | None = None, above: float | None = None, below: float | None = None
) -> Callable[[str], Number]:
    """Type of a finite number that is `least` or more, above `above`, and below `below`."""
    bounds = {"at least": least, "above": above, "below": below}
    wanted = " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None)

    def parse(text: str) -> Number:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"must be a {'whole number' if kind is int else 'number'}, got {text!r}"
            ) from None
        fits = (least is None or value >= least) and (above is None or value > above)
        if not (math.isfinite(value) and fits and (below is None or value < below)):
            raise argparse.ArgumentTypeError(f"must be {wanted or 'finite'}, got {text}")
        return value

    return parse


def numbers(text: str) -> list[int]:
    """Numbers of `0,3-5`, ascending, each once."""
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,5})(?:-(\d{1,5}))?\s*", part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise argparse.ArgumentTypeError(f"must be numbers below 100000 such as 0,3-5, got {text[:80]!r}")
        found |= set(range(int(match[1]), int(match[2] or match[1]) + 1))
    return sorted(found)


def one_line(text: str) -> str:
    """A text that tables, logs and file formats can hold."""
    if not text.isprintable():
        raise argparse.ArgumentTypeError(f"must be one line of printable letters, got {text!r}")
    return text


def sentence(text: str) -> str:
    """An instruction: an empty one says nothing to a policy."""
    if not text.strip():
        raise argparse.ArgumentTypeError("must be a sentence, got none")
    return one_line(text)


def existing_file(text: str) -> Path:
    """A file to read; its absolute path, since nodes that are given it may run elsewhere."""
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"{text}: no such file")
    return path.resolve()


def new_file(text: str) -> Path:
    """A file that is written at the end. It is checked at the start, so that a long command does not fail then."""
    path = Path(text)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: not a file in an existing folder")
    return path


def new_folder(text: str) -> Path:
    """A folder that is written at the end, and checked at the start: it is not there, or empty."""
    path = Path(text)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise argparse.ArgumentTypeError(f"{text}: is there already: name a new folder")
    if not next(place for place in path.absolute().parents if place.exists()).is_dir():
        raise argparse.ArgumentTypeError(f"{text}: not in a folder")
    return path


def add_json(parser: argparse.ArgumentParser, about: str = "write the figures as JSON") -> None:
    """`--json`, for :func:`write_figures`."""

    def place(text: str) -> Path:
        if text.endswith(".jsonl"):
            raise argparse.ArgumentTypeError(f"{text}: such a file keeps episodes, and would be lost; name a .json")
        return STDOUT if text == "-" else new_file(text)

    parser.add_argument(
        "--json",
        type=place,
        metavar="PATH",
        help=f"{about}; - for standard output",
    )


def write_figures(path: Path | None, figures: Any) -> None:
    """Write a command's figures to the place that `--json` names, if any."""
    if path == STDOUT:
        print(json.dumps(figures, indent=2), file=sys.__stdout__, flush=True)
    elif path is not None:
        from fastwam_policy.common.files import write_json

        write_json(path, figures)


def add_robot(parser: argparse.ArgumentParser) -> None:
    """`--robot`: what RobotConfig.load takes, None for the installed file."""
    parser.add_argument(
        "--robot", type=existing_file, metavar="FILE", help="description of the robot; config/r1lite.yaml by default"
    )


class _Renamed(argparse.Action):
    """An option that was renamed."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        parser.error(f"{'/'.join(self.option_strings)} is now called {self.const}")


def add_policy(parser: argparse.ArgumentParser, option: str = "policy", **how: Any) -> None:
    """The argument `policy`, or the option `--policy`: what load_policy takes."""
    parser.add_argument(
        option,
        metavar="POLICY",
        help="a bundle's folder, the address of a served policy, package.module:Class, or path/to/file.py:Class"
        + how.pop("about", ""),
        **how,
    )
    if option.startswith("-"):
        parser.add_argument("--bundle", action=_Renamed, const=option, nargs="?", help=argparse.SUPPRESS)


def add_mapping(parser: argparse.ArgumentParser, **how: Any) -> None:
    """`--mapping`, for :func:`policy_source`."""
    parser.add_argument(
        "--mapping",
        type=existing_file,
        metavar="FILE",
        help="what the numbers of a policy of another project mean, such as config/policies/pi05_aloha.yaml"
        + how.pop("about", ""),
        **how,
    )


def policy_source(text: str, mapping: Path | None = None) -> str:
    """A source of load_policy; a relative path is made absolute, since nodes that are given it may run elsewhere.

    A mapping file becomes part of an address, ws://HOST:PORT#FILE, so that records say which it was.
    """
    if "://" in text:
        address, _, file = text.partition("#")
        file = str(mapping or file)
        return f"{address}#{Path(file).absolute()}" if file else address
    if mapping is not None:
        from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

        raise ConfigError(f"--mapping {mapping}: is for a policy with an address, got {text}")
    path, colon, name = text.rpartition(":")
    if colon and path.endswith(".py") and not Path(text).is_dir():
        return f"{Path(path).absolute()}:{name}"
    return str(Path(text).absolute()) if Path(text).exists() or not colon else text


def add_task(parser: argparse.ArgumentParser) -> None:
    """`--task` of the simulator; None where it is left out, which is fold."""
    parser.add_argument("--task", choices=["fold", "cube"], help="fold the towel (default), or put the cube on the mat")


def add_randomization(parser: argparse.ArgumentParser, default: str = "full") -> None:
    """`--randomization` of simulated scenes."""
    parser.add_argument(
        "--randomization",
        type=_level,
        choices=["none", "objects", "full"],
        default=default,
        help="what a scene's seed varies; objects: their places and the arms' start (default %(default)s)",
    )


def _level(text: str) -> str:
    return "objects" if text == "towel" else text  # its name while the towel was the only object


def add_denoise_steps(parser: argparse.ArgumentParser, about: str, **how: Any) -> None:
    """`--denoise-steps`."""
    parser.add_argument("--denoise-steps", type=number(int, least=1), metavar="N", help=about, **how)


def add_workers(parser: argparse.ArgumentParser, default_workers: int = 0) -> None:
    """`--workers` and `--ray`: `where`, as :func:`fastwam_policy.common.parallel.map_tasks` takes it."""
    workers, default = number(int, least=0), Where(workers=default_workers)
    options = parser.add_mutually_exclusive_group()
    options.add_argument(
        "--workers", dest="where", type=lambda text: Where(workers=workers(text)), default=default, metavar="N",
        help=f"processes; 0 for one a core (default {default_workers})",
    )  # fmt: skip
    options.add_argument(
        "--ray", dest="where", type=lambda text: Where(ray=text), nargs="?", const=Where(ray="local"), default=default,
        metavar="ADDRESS",
        help="on a Ray cluster, of its head's HOST:PORT, or auto for this machine's; without ADDRESS, one on this "
        "machine alone",
    )  # fmt: skip


def add_threads(parser: argparse.ArgumentParser, default: int = 0) -> None:
    """`--threads` of torch."""
    parser.add_argument(
        "--threads",
        type=number(int, least=0),
        default=default,
        help="CPU threads of torch; 0 lets torch choose (default %(default)s)",
    )


def add_training_config(parser: argparse.ArgumentParser) -> None:
    """The arguments of :func:`fastwam_policy.training.config.read_config`."""
    parser.add_argument("config", type=Path, help="such as config/training/towel.yaml")
    add_set(parser)


def add_set(parser: argparse.ArgumentParser) -> None:
    """`--set`: entries of a training's configuration."""
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change one entry, such as policy.variant=idm"
    )


def add_lerobot_version(parser: argparse.ArgumentParser) -> None:
    """`--format` of a LeRobot dataset."""
    parser.add_argument("--format", choices=["v2.1", "v3.0"], default="v2.1", help="LeRobot version (default v2.1)")
