"""What a shell needs for this checkout, and what of its environment must not get in. For setup.sh and env.sh.

    environment.py ros                     the ROS 2 installation that is sourced, if any
    environment.py without ROS             lines of shell code that take other checkouts and other ROS 2 off the paths
    environment.py exports ROOT SHELL      lines for env.sh, in SHELL bash or zsh

It runs before anything is installed: the standard library only.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from shlex import quote

PYPI = "pypi"  # where ROS 2 comes from: wheels in .venv, or an installation's folder
_PATHS = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "CMAKE_PREFIX_PATH", "COLCON_PREFIX_PATH", "AMENT_PREFIX_PATH")
# Set by the wheels of ROS 2 when they have put their libraries, which may be of another checkout, on LD_LIBRARY_PATH.
_BOOTSTRAPPED = "_ROS_WHEELS_BOOTSTRAP_COMPLETE"
_PACKAGES = ("fastwam_msgs", "fastwam_policy", "galaxea_r1lite_bridge", "galaxea_r1lite_sim")
_INDEX = "share/ament_index/resource_index/packages"


def sourced_ros(environment: Mapping[str, str]) -> Path | None:
    """Folder of the ROS 2 installation that is sourced. The wheels in a checkout's .venv are none."""
    for prefix in _prefixes(environment):
        if (prefix / _INDEX / "rclpy").exists() and not _is_venv(prefix):
            for folder in (prefix, prefix.parent):  # all packages in one folder, or each in its own
                if (folder / "setup.bash").is_file():
                    return folder
    return None


def exports(environment: Mapping[str, str], root: Path, shell: str) -> list[str]:
    """Lines of shell code that prepare a shell; ValueError says why it cannot be.

    Whatever was sourced before: another checkout, another ROS 2 than the one that was chosen, this same checkout.
    """
    stamp = _stamp(root / "install" / ".built")
    if stamp is None:
        raise ValueError("not set up yet; run: make setup")
    if (place := stamp.get("location", str(root))) != str(root):
        raise ValueError(f"this checkout was copied or moved here from {place}; run: make setup")
    venv = root / ".venv"
    wheels = stamp.get("ros", PYPI if (venv / _INDEX / "rclpy").exists() else "") == PYPI
    lines = without_others(environment, wheels=wheels)
    if wheels:
        lines += ["export ROS_DISTRO=jazzy ROS_VERSION=2 ROS_PYTHON_VERSION=3", f"export AMENT_PREFIX_PATH={venv}"]
    else:
        lines += _source(environment, stamp.get("ros", ""), shell)
        # `ros2` runs on the system's Python, but loads launch files that need what is in .venv.
        lines.append(f'export PYTHONPATH={sysconfig.get_path("purelib")}"${{PYTHONPATH:+:$PYTHONPATH}}"')
    lines += [f'export PATH={venv}/bin:"$PATH"', f"export COLCON_PYTHON_EXECUTABLE={venv}/bin/python"]
    # Two CPU-bound processes whose OpenMP threads spin while waiting slow each other down ten times and more.
    defaults = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
    # Without these, logs and caches go to the home folder, which a container's user or a service may not have.
    defaults |= {name: str(folder) for name, folder in _written(root).items()}
    if not _has_name():
        defaults["USER"] = str(os.getuid())
    return lines + [f"export {name}={quote(value)}" for name, value in defaults.items() if not environment.get(name)]


def without_others(environment: Mapping[str, str], *, wheels: bool) -> list[str]:
    """Lines that take every checkout off the paths and, where ROS 2 comes as wheels, every ROS 2."""
    foreign = list(_foreign(environment, every_ros=wheels))
    lines = ["unset PYTHONHOME" + (f" ROS_DISTRO {_BOOTSTRAPPED}" if wheels else "")]
    for name in _PATHS:
        entries = environment.get(name, "").split(os.pathsep)
        kept = [entry for entry in entries if not any(Path(entry).is_relative_to(folder) for folder in foreign)]
        if kept != entries:
            lines.append(f"export {name}={quote(os.pathsep.join(kept))}" if any(kept) else f"unset {name}")
    return lines


def _prefixes(environment: Mapping[str, str]) -> list[Path]:
    return [Path(entry) for entry in environment.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if entry]


def _is_venv(folder: Path) -> bool:
    return (folder / "pyvenv.cfg").is_file()


def _foreign(environment: Mapping[str, str], *, every_ros: bool) -> Iterator[Path]:
    """Folders of which nothing may stay on a path: of any checkout, and perhaps of any ROS 2."""
    for prefix in _prefixes(environment):
        if every_ros or _is_venv(prefix):
            yield prefix
        if any((prefix / _INDEX / package).exists() for package in _PACKAGES):
            install = prefix.parent if prefix.name in _PACKAGES else prefix
            yield prefix
            yield install.parent / "build" / prefix.name
            yield install.parent / ".venv"


def _source(environment: Mapping[str, str], wanted: str, shell: str) -> list[str]:
    """What sources the chosen ROS 2, where none is; nothing where it is."""
    sourced = sourced_ros(environment)
    if sourced is None and wanted:
        return [f". {quote(wanted)}/setup.{shell}"]
    if sourced is None:
        raise ValueError("source ROS 2 first: this checkout was set up with an installation of it")
    if wanted and str(sourced) != wanted:
        raise ValueError(
            f"{sourced} is sourced, and this checkout was set up with {wanted}: use a new shell, or run "
            f"make setup ROS={sourced}"
        )
    return []


def _written(root: Path) -> dict[str, Path]:
    """Where ROS 2 writes its logs, and matplotlib and numba their caches: in the checkout, or in /tmp."""
    folder = root / "log"
    if not os.access(folder if folder.exists() else root, os.W_OK):
        folder = Path(os.environ.get("TMPDIR", "/tmp")) / f"fastwam-{os.getuid()}"
    return {"ROS_LOG_DIR": folder / "ros", "MPLCONFIGDIR": folder / "matplotlib", "NUMBA_CACHE_DIR": folder / "numba"}


def _has_name() -> bool:
    """Whether the user has a name: a container's may be a number only, which getpass.getuser() cannot do without."""
    import getpass

    try:
        getpass.getuser()
    except (KeyError, OSError):
        return False
    return True


def _stamp(path: Path) -> dict[str, str] | None:
    """Entries of what setup.sh has written; None where it is not there."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return dict(line.split("=", 1) for line in lines if "=" in line)


def main(arguments: list[str]) -> int:
    """See the module."""
    if arguments[0] == "ros":
        print(sourced_ros(os.environ) or "")
        return 0
    if arguments[0] == "without":
        print("\n".join(without_others(os.environ, wheels=arguments[1] == PYPI)))
        return 0
    try:
        print("\n".join(exports(os.environ, Path(arguments[1]), arguments[2])))
    except ValueError as error:
        print(f"fastwam: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
