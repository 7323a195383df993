"""Loads policies: `load_policy` takes a folder, an address, or any class.

    output/mine/bundle              a bundle of this project
    ws://workstation:8000           a policy that is served; each scheme is an entry point of GROUP
    package.module:Class            a class, or anything else that is called and returns a policy
    path/to/file.py:Class           the same from a file, which need not be on any path

Whatever it is, its options are keyword arguments of what is called.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from fastwam_policy.policies.base import Policy, PolicyInfo
from fastwam_policy.policies.robot_check import check_instruction
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

GROUP = "fastwam_policy.policies"
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://.")
_FORMS = "a policy is a folder with a bundle, an address (%s), package.module:Class, or path/to/file.py:Class"


def load_policy(source: str | Path, options: Mapping[str, Any] | None = None) -> Policy:
    """Load a policy; see the module for the forms of `source`. An existing folder wins over a colon in its name.

    Raises:
        ConfigError: there is no such policy, it cannot be loaded, or it has no such option; says how to fix it.
    """
    source = str(source)
    policy = _called(policy_factory(source), source, dict(options or {}))
    missing = [name for name in ("info", "prepare", "infer", "reset", "close") if not hasattr(policy, name)]
    if missing:
        raise ConfigError(f"{source}: a policy needs {', '.join(missing)} as well; see fastwam_policy.Policy")
    if not isinstance(policy.info, PolicyInfo):
        raise ConfigError(f"{source}: info must be a fastwam_policy.PolicyInfo, got {type(policy.info).__name__}")
    return policy


def inspect_policy(source: str | Path, instruction: str = "") -> PolicyInfo:
    """A policy's info, without loading a bundle's weights. It must know `instruction` (empty: its default).

    Raises:
        ConfigError: as :func:`load_policy`, or it does not know the instruction.
    """
    source = str(source)
    if _folder(source) is not None:
        from fastwam_policy.policies.fastwam.bundle import Bundle

        info = Bundle.read_info(Path(source).expanduser())
    else:
        with closing(load_policy(source)) as policy:
            info = policy.info
    check_instruction(info, instruction or info.default_instruction, source)
    return info


def imagining_folder(source: str | Path) -> Path:
    """The folder of a policy whose imagination can be shown while it drives.

    Raises:
        ConfigError: it is no bundle on this machine. A server would compute the video instead of the next chunk.
    """
    if (folder := _folder(str(source))) is None:
        raise ConfigError(
            f"{source}: what is imagined is shown of a bundle on this machine only; start without imagine. "
            "A server that computed it would be late with its chunks"
        )
    return folder


def policy_identity(policy: Policy, source: str | Path) -> dict[str, str]:
    """What distinguishes a policy from others, for records: name and all of its :class:`Identity`."""
    return _identity(policy.info, str(source))


def policy_key(info: PolicyInfo, source: str | Path) -> str:
    """What results belong to: hashes of all that a policy's actions depend on; empty where they are not known."""
    identity = _identity(info, str(source))
    return " ".join(filter(None, (identity["sha256"], identity["settings"])))


def _identity(info: PolicyInfo, source: str) -> dict[str, str]:
    identity = {"name": info.name} | asdict(info.identity)
    identity["source"] = identity["source"] or source
    path, _, _ = source.rpartition(":")
    if not identity["sha256"] and path.endswith(".py"):
        identity["sha256"] = hashlib.sha256(Path(path).expanduser().read_bytes()).hexdigest()
    return identity


def _folder(source: str) -> Path | None:
    folder = Path(source).expanduser()
    return folder if folder.is_dir() else None


def policy_factory(source: str) -> Callable[..., Any]:
    """What :func:`load_policy` calls with the options; ConfigError where there is no such policy."""
    folder = _folder(source)
    if folder is not None:
        from fastwam_policy.policies.fastwam.policy import load_bundle

        return lambda **options: load_bundle(folder, **options)
    if match := _SCHEME.match(source):
        return _scheme(match[1], source)
    place, colon, name = source.rpartition(":")
    if not colon or not place or not name.isidentifier():
        if source.endswith(".py") and Path(source).expanduser().is_file():
            raise ConfigError(f"{source}: name the policy's class as well, such as {source}:Hold")
        schemes = ", ".join(f"{scheme}://" for scheme in sorted(entry_points(group=GROUP).names))
        raise ConfigError(f"{source}: no such folder; {_FORMS % schemes}")
    module = _file(place) if place.endswith(".py") else _module(place)
    found = getattr(module, name, None)
    if not callable(found):
        classes = inspect.getmembers(module, inspect.isclass)
        own = [key for key, value in classes if value.__module__ == module.__name__]
        raise ConfigError(f"{source}: there is no class {name} in {place}; it has {', '.join(own) or 'none'}")
    return found


def _scheme(scheme: str, source: str) -> Callable[..., Any]:
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if scheme not in found:
        raise ConfigError(f"{source}: no policy takes {scheme}://; known are {', '.join(sorted(found)) or 'none'}")
    try:
        make = found[scheme].load()
    except ImportError as error:
        raise ConfigError(f"{source}: {scheme}:// needs what is not installed: {error}") from None
    return lambda **options: make(source, **options)


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{name}: {error}; is its folder on PYTHONPATH?") from None


def _file(place: str) -> ModuleType:
    path = Path(place).expanduser().resolve()
    if not path.is_file():
        raise ConfigError(f"{place}: no such file")
    name = f"fastwam_policy_from_file_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except (ImportError, SyntaxError) as error:
        del sys.modules[name]
        raise ConfigError(f"{place}: cannot be imported: {error}") from None
    return module


def _called(make: Callable[..., Any], source: str, options: dict[str, Any]) -> Any:
    try:
        inspect.signature(make).bind(**options)
    except TypeError as error:
        raise ConfigError(f"{source}: options {', '.join(options) or '(none)'}: {error}") from None
    except ValueError:  # some classes written in C have no signature
        pass
    return make(**options)
