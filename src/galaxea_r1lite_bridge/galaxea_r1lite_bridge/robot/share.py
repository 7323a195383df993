"""Where a package's files are installed: as ROS 2 knows it, or where pip has put them on a machine without ROS 2."""

from __future__ import annotations

from functools import lru_cache
from importlib import metadata
from pathlib import Path


@lru_cache
def share_directory(package: str) -> Path:
    """`share/PACKAGE` of an installed package; LookupError where there is none."""
    try:
        from ament_index_python.packages import get_package_share_directory

        return Path(get_package_share_directory(package))
    except (ImportError, LookupError, OSError):  # no ROS 2, not in its workspaces, none is sourced
        pass
    try:
        files = metadata.files(package) or ()
    except metadata.PackageNotFoundError:
        files = ()
    for file in files:
        if file.match(f"share/{package}/package.xml"):
            return Path(str(file.locate())).resolve().parent
    raise LookupError(f"{package} is not installed: neither in a ROS 2 workspace that is sourced, nor by pip")
