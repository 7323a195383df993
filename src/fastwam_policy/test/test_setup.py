"""scripts/setup.sh and env.sh on all kinds of folders, shells and environments; Python only notes what it is asked."""

import fcntl
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ("fastwam_msgs", "fastwam_policy", "galaxea_r1lite_bridge", "galaxea_r1lite_sim")
INDEX = "share/ament_index/resource_index/packages"
SHELLS = [shell for shell in ("bash", "zsh") if shutil.which(shell)]
# Stands for python3 and for .venv/bin/python. It writes what it was asked to $NOTES, and does none of it.
PYTHON = r"""#!/bin/bash
here=$(dirname "$0")
case "$*" in
  *version_info\[:2\],*) echo "VERSION /usr" ;;
  *environment.py*) exec REAL "$@" ;;
  *base_executable*) echo "PROGRAMS/pythonVERSION" ;;
  *"import numpy"*) echo 2.0.0 ;;
  *"import sys, torch"*) [ -e "$here/torch" ] ;;
  *"-m venv"*)
    folder=${@: -1}; echo "venv VERSION" >>"$NOTES"
    mkdir -p "$folder/bin" "$folder/share" "$folder/lib/pythonVERSION/site-packages"
    cp "$0" "$folder/bin/python"; touch "$folder/bin/activate"
    echo "#!$PWD/$folder/bin/python" >"$folder/bin/pip"
    case "$*" in *system-site*) system=true ;; *) system=false ;; esac
    echo "include-system-site-packages = $system" >"$folder/pyvenv.cfg" ;;
  *"-m pip"*)
    echo "pip $* PIP_USER=$PIP_USER PYTHONHOME=${PYTHONHOME:-}" >>"$NOTES"
    [ ! -p "$PAUSE" ] || read -r _ <"$PAUSE"
    [ -z "${PIP_FAILS:-}" ] || case "$*" in *$PIP_FAILS*) echo "ERROR: it failed" >&2; exit 1 ;; esac
    case "$*" in *download*) exit ;; */dev/stdin) sed 's/^/from stdin: /' >>"$NOTES" ;; esac
    echo "Collecting one==1"
    case "$*" in *torch*) touch "$here/torch" ;; esac ;;
  *bin/colcon*)
    echo "colcon $PYTHONPATH" >>"$NOTES"
    for package in PACKAGES; do mkdir -p "install/$package/INDEX" && touch "install/$package/INDEX/$package"; done
    cp "$LOCAL_SETUP" install/local_setup.bash; cp "$LOCAL_SETUP" install/local_setup.zsh ;;
  "-I -") cat >/dev/null ;;
esac
"""
LOCK = """ros-jazzy-rclpy==1 \\
    --hash=sha256:1 \\
    --hash=sha256:2
wheel==0.45.1 \\
    --hash=sha256:3
"""
LOCAL_SETUP = """export AMENT_PREFIX_PATH="$_fastwam/install/fastwam_policy${AMENT_PREFIX_PATH:+:$AMENT_PREFIX_PATH}"
export PYTHONPATH="$_fastwam/build/fastwam_policy${PYTHONPATH:+:$PYTHONPATH}"
"""


class Folder:
    """A checkout as setup.sh sees it, beside programs that stand for Python's."""

    def __init__(self, beside, name="checkout"):
        self.path, self.programs, self.notes = beside / name, beside / "programs", beside / "notes"
        for place in ("launch", "config", "bags", "bundles", "src/fastwam_msgs/msg", "src/fastwam_policy"):
            (self.path / place).mkdir(parents=True)
        (self.path / "src/fastwam_policy/setup.py").touch()
        (self.path / "src/fastwam_policy/package.xml").touch()
        shutil.copytree(ROOT / "scripts", self.path / "scripts")
        for lock in ("requirements.txt", "requirements-numpy1.txt"):
            (self.path / lock).write_text(LOCK)
        self.programs.mkdir(exist_ok=True)
        self.notes.touch()
        (beside / "local_setup").write_text(LOCAL_SETUP)
        words = {"REAL": sys.executable, "PROGRAMS": str(self.programs), "PACKAGES": " ".join(PACKAGES), "INDEX": INDEX}
        text = re.sub("|".join(words), lambda match: words[match[0]], PYTHON)
        for version in ("3.9", "3.11", "3.12"):
            (self.programs / f"python{version}").write_text(text.replace("VERSION", version))
            (self.programs / f"python{version}").chmod(0o755)
        shutil.copy(self.programs / "python3.11", self.programs / "python3")
        clean = {
            name: value
            for name, value in os.environ.items()
            if not re.match(r"ROS_|AMENT|COLCON|PYTHON|CMAKE_PREFIX|LD_LIB|PIP_|MPL|NUMBA|NO_COLOR", name)
        }
        self.environment = clean | {
            "PATH": f"{self.programs}:{os.environ['PATH']}", "NOTES": str(self.notes), "PAUSE": "/nowhere",
            "LOCAL_SETUP": str(beside / "local_setup"),
        }  # fmt: skip

    def set_up(self, status=0, **variables):
        """Run setup.sh: what it prints, and what Python was asked for meanwhile."""
        self.notes.write_text("")
        environment = self.environment | variables
        done = subprocess.run(["scripts/setup.sh"], cwd=self.path, env=environment, capture_output=True, text=True)
        assert done.returncode == status, done.stdout + done.stderr
        assert "\033" not in done.stdout + done.stderr
        return done.stdout + done.stderr, self.notes.read_text()

    def shell(self, command, shell="bash", **variables):
        """What a shell prints that first sources env.sh."""
        done = subprocess.run(
            [shell, "-c", f". {self.path}/scripts/env.sh && {command}"],
            cwd="/", env=self.environment | variables, capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout + done.stderr


@pytest.fixture
def checkout(tmp_path):
    return Folder(tmp_path)


def installation(folder):
    """A ROS 2 installation, and the environment of a shell that has sourced it."""
    (folder / INDEX).mkdir(parents=True)
    (folder / INDEX / "rclpy").touch()
    for shell in ("bash", "zsh"):
        (folder / f"setup.{shell}").write_text(
            f"export AMENT_PREFIX_PATH={folder} ROS_DISTRO=jazzy PYTHONPATH={folder}/lib\n"
        )
    return {"AMENT_PREFIX_PATH": str(folder), "ROS_DISTRO": "jazzy", "PYTHONPATH": f"{folder}/lib"}


def test_what_is_done_is_not_done_again(checkout):
    said, asked = checkout.set_up(PIP_USER="1", PYTHONHOME="/usr", CDPATH="/tmp:/")
    assert "Python 3.11 in .venv, with ROS 2 from pypi (3 GB, or 7" in said
    assert asked.count("venv 3.11") == asked.count("colcon") == 1
    assert "PIP_USER=0 PYTHONHOME=\n" in asked
    assert "PIP_USER=1" not in asked
    assert checkout.set_up() == ("", "")


def test_choices_are_kept_and_nothing_that_works_is_deleted(checkout):
    checkout.set_up(PYTHON="python3.12", TORCH="torch==2.9.1")
    (checkout.path / ".venv/mine").touch()
    assert checkout.set_up() == ("", "")
    _, asked = checkout.set_up(TORCH="torch==2.10.0")
    assert "torch==2.10.0" in asked
    assert "venv" not in asked.replace(".venv", "")
    assert (checkout.path / ".venv/mine").exists()
    assert checkout.set_up() == ("", "")


@pytest.mark.slow  # many set-ups
def test_another_python_replaces_the_environment_when_it_is_complete(checkout):
    checkout.set_up(PYTHON="python3.11")
    (checkout.path / ".venv/mine").touch()
    (checkout.path / "build/old").touch()
    said, _ = checkout.set_up(status=1, PYTHON="python3.12", PIP_FAILS="download")
    assert "pip reaches no package index" in said
    assert (checkout.path / ".venv/mine").exists()
    said, asked = checkout.set_up(status=1, PYTHON="python3.12", PIP_FAILS="-r requirements")
    assert "make setup goes on from there" in said
    assert (checkout.path / ".venv.before/mine").exists()
    _, asked = checkout.set_up(PYTHON="python3.11")  # and back
    assert (checkout.path / ".venv/mine").exists()
    assert "venv 3" not in asked
    checkout.set_up(status=1, PYTHON="python3.12", PIP_FAILS="-r requirements")
    _, asked = checkout.set_up()  # it goes on
    assert "venv 3" not in asked
    assert "colcon" in asked
    assert not (checkout.path / "build/old").exists(), "messages are built for one Python"
    assert not (checkout.path / ".venv.before").exists()
    assert checkout.set_up() == ("", "")


def test_a_package_that_was_interrupted_is_installed_again(checkout):
    checkout.set_up()
    packages = checkout.path / ".venv/lib/python3.11/site-packages"
    (packages / "half-1.dist-info").mkdir()
    (packages / "whole-1.dist-info").mkdir()
    (packages / "whole-1.dist-info/RECORD").touch()
    (checkout.path / ".venv/.installed").unlink()
    checkout.set_up()
    assert [path.name for path in packages.iterdir()] == ["whole-1.dist-info"]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_copied_checkout_is_noticed_and_adapted(checkout, shell):
    checkout.set_up()
    program = checkout.path / ".venv/bin/colcon"
    program.write_text(f"#!{checkout.path}/.venv/bin/python\n")
    first, checkout.path = checkout.path, checkout.path.with_name("copy")
    shutil.copytree(first, checkout.path)
    assert f"copied or moved here from {first}; run: make setup" in checkout.shell("echo sourced", shell)
    _, asked = checkout.set_up()
    assert asked.count("colcon") == 1
    assert "venv 3" not in asked, "nothing is downloaded again"
    assert (checkout.path / ".venv/bin/colcon").read_text() == f"#!{checkout.path}/.venv/bin/python\n"
    assert program.read_text() == f"#!{first}/.venv/bin/python\n"
    assert "sourced" in checkout.shell("echo sourced", shell)
    assert checkout.set_up() == ("", "")


def test_another_checkout_that_is_sourced_is_none_of_ours(checkout, tmp_path):
    other = Folder(tmp_path, "other")
    other.set_up()
    wheels = other.path / ".venv" / INDEX
    wheels.mkdir(parents=True)
    (wheels / "rclpy").touch()
    named = dict(line.split("=", 1) for line in other.shell("env").splitlines() if "=" in line)
    assert str(other.path) in named["AMENT_PREFIX_PATH"]
    assert str(other.path) in named["PYTHONPATH"]
    (checkout.path / ".venv").mkdir()  # not of our making, and no environment
    said, asked = checkout.set_up(**{name: named[name] for name in ("AMENT_PREFIX_PATH", "PYTHONPATH", "ROS_DISTRO")})
    assert "with ROS 2 from pypi" in said
    assert asked.splitlines()[-1] == "colcon "
    seen = checkout.shell(
        "echo $AMENT_PREFIX_PATH $PYTHONPATH $PATH",
        PATH=named["PATH"],
        **{name: named[name] for name in ("AMENT_PREFIX_PATH", "PYTHONPATH", "ROS_DISTRO")},
    )
    assert str(other.path / "install") not in seen
    assert str(other.path / "build") not in seen
    assert seen.split()[0] == f"{checkout.path}/install/fastwam_policy:{checkout.path}/.venv"


@pytest.mark.slow  # many set-ups
@pytest.mark.parametrize("shell", SHELLS)
def test_the_ros_2_that_was_chosen_is_used_in_every_shell(checkout, tmp_path, shell):
    jazzy = installation(tmp_path / "jazzy")
    humble = installation(tmp_path / "humble")
    _, asked = checkout.set_up(**jazzy)
    assert [line for line in asked.splitlines() if line.startswith("from stdin")] == [
        "from stdin: wheel==0.45.1 \\", "from stdin:     --hash=sha256:3"
    ], "all but ROS 2"  # fmt: skip
    assert checkout.set_up() == ("", ""), "also where it is not sourced"
    said, _ = checkout.set_up(status=1, **humble)
    assert f"make setup ROS={tmp_path}/humble" in said
    seen = checkout.shell("echo $AMENT_PREFIX_PATH $PYTHONPATH", shell)
    assert f"install/fastwam_policy:{tmp_path}/jazzy" in seen
    assert f":{tmp_path}/jazzy/lib" in seen
    assert "humble is sourced, and this checkout was set up with" in checkout.shell("true", shell, **humble)
    checkout.set_up(ROS="pypi")
    said, asked = checkout.set_up(**humble)
    assert "ROS 2 from PyPI is used here, not" in said
    assert asked == ""
    seen = checkout.shell("echo $AMENT_PREFIX_PATH $PYTHONPATH", shell, **humble)
    assert "humble" not in seen
    assert f"{checkout.path}/.venv" in seen


@pytest.mark.parametrize(
    ("name", "strange"),
    [("My Lab", " "), ("Ordnerü", "ü"), ("lab #1", " #"), ("\u5b9e\u9a8c", "\u5b9e\u9a8c"), ("a:b", ":")],
)
def test_a_path_that_tools_cannot_bear_is_refused_before_anything_is_written(tmp_path, name, strange):
    folder = Folder(tmp_path / name)
    before = sorted(folder.path.rglob("*"))
    said, asked = folder.set_up(status=1)
    assert f"has '{strange}' in it" in said
    assert asked == ""
    assert sorted(folder.path.rglob("*")) == before


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"PYTHON": "python3.9"}, "Python 3.10 to 3.13 is needed, python3.9 is Python 3.9. Name another"),
        ({"PYTHON": "python4"}, "python4 does not run"),
        ({"ROS": "/nowhere"}, "/nowhere: there is no setup.bash"),
        ({"TORCH": "2.9.1"}, "TORCH=2.9.1: a build of torch is needed, such as make setup TORCH=torch==2.9.1"),
        ({"PIP_FAILS": "download"}, "pip reaches no package index"),
    ],
)
def test_what_is_missing_is_one_line_and_is_not_remembered(checkout, variables, message):
    said, _ = checkout.set_up(status=1, **variables)
    assert message in said
    assert not (checkout.path / ".venv/.installed").exists()
    checkout.set_up()


def test_a_full_disk_is_said_first(checkout):
    (checkout.programs / "df").write_text("#!/bin/sh\nprintf 'header\\ndisk 1 1 2000000 1%% /\\n'\n")
    (checkout.programs / "df").chmod(0o755)
    said, asked = checkout.set_up(status=1)
    assert "3 GB are needed, or 7 where pip's torch is a CUDA build; the disk has 2 GB free" in said
    assert asked == ""


def test_a_linked_environment_is_used_and_left_alone(checkout, tmp_path):
    other = Folder(tmp_path, "other")
    other.set_up()
    (checkout.path / ".venv").symlink_to(other.path / ".venv")
    before = {path: path.stat().st_mtime_ns for path in (other.path / ".venv").rglob("*")}
    said, asked = checkout.set_up(PYTHON="python3.12")
    assert "PYTHON, TORCH and ROS change nothing: .venv is a link" in said
    assert asked == "colcon \n"
    assert {path: path.stat().st_mtime_ns for path in (other.path / ".venv").rglob("*")} == before
    assert checkout.set_up() == ("", "")
    shutil.rmtree(other.path)
    said, _ = checkout.set_up(status=1)
    assert "and no Python runs there" in said
    assert (checkout.path / ".venv").is_symlink()


def test_one_set_up_waits_for_another(checkout, tmp_path):
    pause = tmp_path / "pause"
    os.mkfifo(pause)
    how = {"cwd": checkout.path, "env": checkout.environment | {"PAUSE": str(pause)}, "text": True}
    first = subprocess.Popen(["scripts/setup.sh"], stdout=subprocess.DEVNULL, **how)
    with pause.open("w") as go_on:  # it is at pip
        second = subprocess.Popen(["scripts/setup.sh"], stdout=subprocess.PIPE, **how)
        assert second.stdout.readline() == "== waiting for another set-up of this folder\n"
        pause.unlink()
        go_on.write("\n")
    assert first.wait(60) == second.wait(60) == 0
    assert checkout.notes.read_text().count("colcon") == 1


@pytest.mark.parametrize(("variables", "bold"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_letters_are_bold_on_terminals_that_know_it(checkout, variables, bold):
    master, slave = pty.openpty()
    environment = checkout.environment | {"TERM": "xterm"} | variables
    done = subprocess.run(["scripts/setup.sh"], cwd=checkout.path, env=environment, stdout=slave, stderr=slave)
    os.close(slave)
    fcntl.fcntl(master, fcntl.F_SETFL, os.O_NONBLOCK)
    text = os.read(master, 100_000)
    os.close(master)
    assert done.returncode == 0
    assert (b"\033[1m==" in text) == bold
    assert (b"\033" in text) == (variables.get("TERM") != "dumb")


@pytest.mark.parametrize("shell", SHELLS)
def test_env_sh_works_from_everywhere_in_each_shell(checkout, shell):
    assert "not set up yet; run: make setup" in checkout.shell("true", shell)
    checkout.set_up()
    given = {"CDPATH": f".:{checkout.path.parent}", "PYTHONHOME": "/usr", "_ROS_WHEELS_BOOTSTRAP_COMPLETE": "1"}
    seen = checkout.shell("echo $PYTHONHOME$_ROS_WHEELS_BOOTSTRAP_COMPLETE / $AMENT_PREFIX_PATH", shell, **given)
    assert seen == f"/ {checkout.path}/install/fastwam_policy:{checkout.path}/.venv\n"
    again = checkout.shell(f". {checkout.path}/scripts/env.sh; echo $AMENT_PREFIX_PATH / $PYTHONPATH", shell)
    assert again.count("install/fastwam_policy") == again.count("build/fastwam_policy") == 1


NAMELESS = ["unshare", "--user", "--map-user=12345", "env", "-u", "HOME", "-u", "USER", "-u", "LOGNAME", "-u", "LNAME"]


@pytest.mark.skipif(subprocess.run([*NAMELESS, "true"], check=False).returncode != 0, reason="no user namespaces here")
def test_a_user_without_name_and_home_has_a_place_for_logs_and_caches(checkout):
    """In the checkout, or where that cannot be written to, in the temporary folder."""
    checkout.set_up()
    command = f"""
    . {checkout.path}/scripts/env.sh; echo $ROS_LOG_DIR $MPLCONFIGDIR $NUMBA_CACHE_DIR
    exec {sys.executable} -I -c 'import getpass; print(getpass.getuser())'"""
    for writable, where in ((True, checkout.path / "log"), (False, "/temporary/fastwam-12345")):
        if not writable:
            shutil.rmtree(checkout.path / "log")
            (checkout.path / "log").symlink_to("/proc")
        seen = subprocess.run(
            [*NAMELESS, "bash", "-c", command],
            env=checkout.environment | {"TMPDIR": "/temporary"}, capture_output=True, text=True,
        )  # fmt: skip
        assert seen.stdout == f"{where}/ros {where}/matplotlib {where}/numba\n12345\n", seen.stderr


def test_no_target_of_make_imports_what_lies_in_the_folder():
    """`python -m` would: a random.py there takes the place of Python's."""
    targets = ["test", "test-fast", "ci", "lint", "demo", "data"]
    asked = subprocess.run(["make", "--dry-run", *targets], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "pytest" in asked.stdout
    assert not re.findall(r"python (?!-I).*", asked.stdout)


def test_another_shell_is_told(checkout):
    done = subprocess.run(["dash", "-c", f". {checkout.path}/scripts/env.sh"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "fastwam: scripts/env.sh is for bash and zsh\n")


@pytest.mark.parametrize(("kind", "code"), [("late", 0), ("wrong", 1), ("left_out", 1)])
def test_what_fails_is_run_once_more_alone(kind, code, tmp_path):
    flag = tmp_path / "flag"
    tests = {
        "late": "  assert seen",
        "wrong": "  assert False",
        "left_out": "  assert seen\n  pytest.skip()",
    }
    text = (
        f"from pathlib import Path\nimport pytest\ndef test_{kind}():\n  seen = Path({str(flag)!r}).exists()\n"
        f"  Path({str(flag)!r}).touch()\n{tests[kind]}\ndef test_good():\n  pass\n"
    )
    (tmp_path / "test_it.py").write_text(text)
    without = ["-p", "no:launch_testing", "-p", "no:launch_ros"]  # as in pyproject.toml
    command = [ROOT / "scripts" / "tests.sh", *without, "-n", "2", "--rootdir", tmp_path, tmp_path / "test_it.py"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == code, result.stdout + result.stderr
    ending = {"late": "PASSED", "wrong": "FAILED", "left_out": "SKIPPED"}[kind]
    assert f"test_{kind} {ending}" in result.stdout
    assert "test_good PASSED" not in result.stdout, "once is enough for it"
    assert ("passed alone" in result.stdout) is (code == 0)
