"""What the packages say of themselves: equal versions, declared dependencies, files that are installed."""

import ast
import os
import re
import runpy
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import setuptools
import yaml
from catkin_pkg.package import parse_package
from rclpy.lifecycle import LifecycleNode

ROOT = Path(__file__).parents[3]
PYTHON_PACKAGES = ("fastwam_policy", "galaxea_r1lite_bridge", "galaxea_r1lite_sim")
# rosdep keys of what is imported under another name; https://github.com/ros/rosdistro, rosdep/python.yaml
KEYS = {
    "PIL": "python3-pil", "argcomplete": "python3-argcomplete", "cv2": "python3-opencv", "jinja2": "python3-jinja2",
    "matplotlib": "python3-matplotlib", "numba": "python3-numba", "numpy": "python3-numpy",
    "psutil": "python3-psutil", "pydantic": "python3-pydantic", "rich": "python3-rich", "scipy": "python3-scipy",
    "yaml": "python3-yaml",
}  # fmt: skip
# Names on PyPI of what is not declared to rosdep; a comment in package.xml names it.
PYPI = {
    name: name
    for name in (
        "accelerate",
        "av",
        "diffusers",
        "fsspec",
        "httpx",
        "msgpack",
        "mujoco",
        "pyarrow",
        "rosbags",
        "safetensors",
        "simplejpeg",
        "websockets",
        "youplot",
    )
}
PYPI |= {"torch": "torch", "transformers": "transformers", "zmq": "pyzmq", "prometheus_client": "prometheus-client"}
WHEELS = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "yaml": "pyyaml",
}  # the others are named as they are imported
# Asked for by their users only, with a message that names them.
OPTIONAL = {"bitsandbytes", "peft", "ray", "ftfy", "rerun", "torchao"}


def xml(package):
    return ElementTree.parse(ROOT / "src" / package / "package.xml").getroot()


def setup_arguments(package, monkeypatch):
    """What a package's setup.py gives to setup()."""
    given = {}
    monkeypatch.setattr(setuptools, "setup", given.update)
    monkeypatch.chdir(ROOT / "src" / package)
    runpy.run_path("setup.py")
    return given


def imported(package):
    """Top-level names of all modules that a package imports; `apart` runs in environments of its own."""
    names = set()
    for path in (ROOT / "src" / package / package).rglob("*.py"):
        if path.parent.name == "apart":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {package}


@pytest.mark.parametrize("package", ["fastwam_msgs", *PYTHON_PACKAGES])
def test_package_xml_is_valid(package):
    warnings = []
    parse_package(str(ROOT / "src" / package), warnings=warnings).validate(warnings=warnings)
    assert warnings == []


def test_one_version(monkeypatch):
    versions = {package: xml(package).findtext("version") for package in ("fastwam_msgs", *PYTHON_PACKAGES)}
    versions |= {f"{package}/setup.py": setup_arguments(package, monkeypatch)["version"] for package in PYTHON_PACKAGES}
    assert len(set(versions.values())) == 1, versions
    newest = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    assert newest[1] == versions["fastwam_msgs"] == cited


@pytest.mark.parametrize("package", PYTHON_PACKAGES)
def test_what_is_imported_is_declared(package, monkeypatch):
    root = xml(package)
    declared = {entry.text for tag in ("depend", "exec_depend") for entry in root.findall(tag)}
    comments = (ROOT / "src" / package / "package.xml").read_text()
    required = {re.split(r"[<>=]", entry)[0] for entry in setup_arguments(package, monkeypatch)["install_requires"]}
    for name in imported(package) - OPTIONAL:
        if name in PYPI:
            assert PYPI[name] in comments, f"{name} is not named in package.xml"
            assert PYPI[name] in required, f"{name} is not in install_requires"
        else:
            assert KEYS.get(name, name) in declared, f"{name} is not declared in package.xml"
            if name in KEYS:
                assert WHEELS.get(name, name) in required, f"{name} is not in install_requires"


@pytest.mark.parametrize("package", PYTHON_PACKAGES)
def test_what_is_installed(package, monkeypatch):
    given = setup_arguments(package, monkeypatch)
    assert given["license"] == xml(package).findtext("license")
    assert given["python_requires"] == ">=3.10"
    files = {f"{folder}/{Path(file).name}": Path(file) for folder, names in given["data_files"] for file in names}
    assert all(file.is_file() for file in files.values())
    share = f"share/{package}"
    assert f"share/ament_index/resource_index/packages/{package}" in files
    assert f"{share}/package.xml" in files
    nodes = [
        entry.split(" = ")[0] for entry in given["entry_points"]["console_scripts"] if entry.endswith("_node:main")
    ]
    assert nodes
    for node in nodes:
        assert f"{share}/config/{node}.yaml" in files


def test_no_node_overwrites_an_attribute_of_rclpy(ros):
    """`self._clock = ...` takes a node's clock away, and nothing says so."""
    bare = LifecycleNode("bare", context=ros.context)
    theirs = {name for name in dir(bare) if not name.startswith(("__", "on_"))}
    bare.destroy_node()
    assert {"_clock", "get_clock", "_state_machine"} <= theirs
    checked, found = set(), []
    for package in PYTHON_PACKAGES:
        for path in sorted((ROOT / "src" / package / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef) and any("Node" in ast.unparse(base) for base in node.bases):
                    checked.add(node.name)
                    found += [f"{node.name}.{name}" for name in sorted(attributes(node) & theirs)]
    assert {"ManagedNode", "BridgeNode", "PolicyNode", "SimNode", "Operator"} <= checked
    assert found == []


def attributes(node):
    """Names that a class gives to itself or to its instances."""
    stored = {
        each.attr
        for each in ast.walk(node)
        if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store) and ast.unparse(each.value) == "self"
    }
    return stored | {each.name for each in node.body if isinstance(each, ast.FunctionDef)}


def test_every_configuration_is_installed_by_one_package(monkeypatch):
    installed = [
        Path(file).name
        for package in PYTHON_PACKAGES
        for folder, names in setup_arguments(package, monkeypatch)["data_files"]
        for file in names
        if folder.endswith("/config")
    ]
    assert sorted(installed) == sorted(path.name for path in (ROOT / "config").iterdir() if path.is_file())


@pytest.mark.slow  # builds and installs wheels
def test_the_wheels_work_without_ros_2(tmp_path):
    """In an environment with everything else that this one has."""
    links = [path for path in (ROOT / "src/fastwam_policy").iterdir() if path.is_symlink()]
    assert {"config", "bundles"} <= {path.name for path in links}
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("test", "__pycache__", "*.egg-info"))
    pip = [sys.executable, "-I", "-m", "pip", "--quiet"]
    sources = [tmp_path / "src" / package for package in PYTHON_PACKAGES]
    built = [*pip, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", tmp_path, *sources]
    subprocess.run(built, check=True)
    subprocess.run([sys.executable, "-I", "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    ours = next((tmp_path / "venv").glob("lib/*/site-packages"))
    (tmp_path / "others").mkdir()
    for path in Path(pytest.__file__).parents[1].iterdir():
        if not re.search(
            r"^(ros(?!bags)|rcl|rmw|rpy|rcutils|ament|domain_coordinator|lifecycle)|_(msgs|interfaces)\b|\.pth$",
            path.name,
        ):
            (tmp_path / "others" / path.name).symlink_to(path)
    (ours / "others.pth").write_text(f"{tmp_path}/others\n")
    python = tmp_path / "venv/bin/python"
    wheels = tmp_path.glob("*.whl")
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--no-index", *wheels], check=True)

    def fastwam(*words, status=0):
        command = [tmp_path / "venv/bin/fastwam", *words]
        alone = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=tmp_path, env=alone, capture_output=True, text=True)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert subprocess.run([python, "-I", "-c", "import rclpy"], capture_output=True).returncode == 1
    fastwam("make-bundle", "tiny")
    assert "fits the R1Lite" in fastwam("check-policy", "tiny")
    fastwam("check-engine", "tiny")
    fastwam("bench", "--size", "tiny", "--repeats", "1", "--dtype", "float32")
    assert "/nowhere" in fastwam("check-dataset", "/nowhere", status=1)
    assert "this command needs ROS 2" in fastwam("demo", status=1)
    assert "policies can be trained, served and judged" in fastwam("doctor")
    serving = subprocess.Popen(
        [tmp_path / "venv/bin/fastwam", "serve", "tiny", "--port", "0"],
        cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert "ws://127.0.0.1:" in serving.stdout.readline()
    serving.terminate()
    serving.wait()


def test_pre_commit_runs_the_ruff_of_the_environment():
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    version = re.search(r"^ruff==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert version
    assert repo["rev"] == f"v{version[1]}"


def test_both_locks_hold_the_same_packages_in_nearly_the_same_versions():
    locks = [
        set(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / f"{name}.txt").read_text(), re.MULTILINE))
        for name in ("requirements", "requirements-numpy1")
    ]
    assert {name for name, _ in locks[0]} == {name for name, _ in locks[1]}
    assert ("numpy", "1.26.4") in locks[1]
    assert {name for name, _ in locks[1] - locks[0]} <= {"numpy", "opencv-python-headless"}


@pytest.mark.integration
@pytest.mark.parametrize("options", [[], ["-n", "1"]])
def test_the_plugins_of_a_sourced_ros_2_do_not_end_pytest(tmp_path, options):
    """They have a hook whose arguments newer versions of pytest do not know."""
    for name in ("launch_testing", "launch_ros"):
        about = tmp_path / f"{name}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[pytest11]\n{name} = {name}_hooks\n")
        (tmp_path / f"{name}_hooks.py").write_text("def pytest_pycollect_makemodule(path, parent): ...\n")
    command = [sys.executable, "-m", "pytest", *options, "src/galaxea_r1lite_bridge/test/test_plan.py"]
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
