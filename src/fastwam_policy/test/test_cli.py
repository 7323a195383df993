"""The command line: what it lists, how it refuses, its exit status, and what it does not import."""

import errno
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fastwam_policy.cli.main import GROUPS, commands, main, parsers
from fastwam_policy.common.failure import RunError
from galaxea_r1lite_bridge.robot.config import RobotConfig, share_directory
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

ROOT = Path(__file__).parents[3]
COMMANDS = commands()


def run(capfd, *arguments):
    """Exit status, standard output and standard error."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    shown = capfd.readouterr()
    return ended.value.code, shown.out, shown.err


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_help_lists_every_command_in_its_group(capfd):
    status, out, _ = run(capfd, "--help")
    assert status == 0
    listed = {group: re.findall(r"^  ([\w-]+) ", block, re.MULTILINE) for group, block in re.findall(
        r"^(\w+):\n((?:  .*\n)+)", out, re.MULTILINE
    )}  # fmt: skip
    for name, command in COMMANDS.items():
        assert name in listed[command.GROUP]
    assert {command.GROUP for command in COMMANDS.values()} == set(GROUPS)
    assert "2 wrong use" in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_ends_its_help_with_an_example_that_it_understands(name, capfd, monkeypatch):
    example = COMMANDS[name].EXAMPLE
    status, out, _ = run(capfd, name, "--help")
    assert status == 0
    assert out.endswith(f"example:\n  {example}\n")
    monkeypatch.chdir(ROOT)
    program, command, *words = shlex.split(example)
    assert (program, command) == ("./fastwam", name)
    parsers()[1][name].parse_args(words)
    shipped = [word for word in words if re.match(r"(bags|config)/|bundles/towel_small", word)]
    assert all(Path(word).exists() for word in shipped)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "fastwam: the following arguments are required: COMMAND; see: fastwam --help"),
        (["evalsim"], "fastwam: there is no command 'evalsim'; did you mean eval-sim?; see: fastwam --help"),
        (["xyz"], "fastwam: there is no command 'xyz'; see: fastwam --help"),
        (["bench", "--treads", "1"], "fastwam bench: unknown argument --treads; did you mean --threads?; see"),
        (["bench", "--repeats", "none"], "argument --repeats: must be a whole number, got 'none'; see: fastwam bench"),
        (["bench", "--repeats", "0"], "argument --repeats: must be at least 1, got 0"),
        (["bench-loop", "--rate", "nan"], "argument --rate: must be above 0, got nan"),
        (["collect", "x", "--noise", "1e9"], "argument --noise: must be at least 0 and below 10, got 1e9"),
        (["collect", "x", "--first-seed", "5000000000"], "argument --first-seed: must be"),
        (["bench", "--json", "/nowhere/a.json"], "argument --json: /nowhere/a.json: not a file in an existing folder"),
        (["report", "x", "--robot", "/nowhere"], "argument --robot: /nowhere: no such file"),
        (["report", "/nowhere"], "/nowhere/recording: no such recording"),
        (["export", "/nowhere", "/tmp/x.pt"], "/nowhere: not a policy bundle"),
        (["check-policy", "/nowhere"], "/nowhere: no such folder"),
        (["check-policy", 300 * "x"], f"{300 * 'x'}: File name too long. Name another place"),
        (["convert", "a", "--output", 300 * "x"], f"{300 * 'x'}: File name too long. Name another place"),
        (["report", "x", "--robot", 300 * "x"], f"{300 * 'x'}: File name too long. Name another place"),
        (["operate", "--instruction", "fold\nit"], "argument --instruction: must be one line of printable letters"),
        (["convert", "a", "--task", "fold\nit"], "argument --task: must be one line of printable letters"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(arguments, message, capfd):
    status, out, err = run(capfd, *arguments)
    assert status == 2
    assert message in err
    assert err.count("\n") == 1
    assert out == ""


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ConfigError("a.yaml: wrong"), 2, "fastwam: a.yaml: wrong\n"),
        (RunError("a node ended"), 1, "fastwam: a node ended\n"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "/root/x"), 2, "fastwam: /root/x: Permission denied"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_the_exit_status_says_whose_fault_it_is(error, status, message, capfd, monkeypatch):
    def fail(_):
        raise error

    monkeypatch.setattr(COMMANDS["report"], "run", fail)
    found, out, err = run(capfd, "report", "session")
    assert (found, out) == (status, "")
    assert message in err
    assert err.count("\n") == int(bool(message))


def test_a_check_that_finds_something_ends_with_1(random_bundle, tmp_path, capfd):
    robot = yaml.safe_load((share_directory() / "config" / "r1lite.yaml").read_text())
    robot["groups"]["left_gripper"]["joints"] = ["another_gripper"]
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(robot))
    assert "another_gripper" in RobotConfig.load(other).joint_names
    status, _, err = run(capfd, "check-policy", random_bundle, "--robot", other)
    assert status == 1
    assert "another_gripper" in err
    assert run(capfd, "make-bundle", tmp_path / "bundle", "--robot", other)[0] == 0
    assert run(capfd, "check-policy", tmp_path / "bundle", "--robot", other)[0] == 0
    assert run(capfd, "check-policy", tmp_path / "bundle")[0] == 1


def test_figures_on_standard_output_are_alone_there(random_bundle, capfd):
    status, out, err = run(capfd, "check-policy", random_bundle, "--json", "-")
    assert status == 0
    assert json.loads(out)["name"] == "random_tiny"
    assert "fits the R1Lite" in err


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"], ["fly"]])
def test_help_and_refusals_import_nothing_heavy(arguments):
    code = f"import sys\nfrom fastwam_policy.cli.main import main\ntry: main({arguments})\nexcept SystemExit: pass\n"
    modules = set(python(code + "print('modules:', *sys.modules)").partition("modules: ")[2].split())
    assert "fastwam_policy.cli.demo" in modules
    assert modules.isdisjoint(
        {"torch", "rclpy", "numpy", "pydantic", "yaml", "rich", "matplotlib", "ament_index_python"}
    )


def test_the_recorder_does_not_import_torch():
    modules = python("import sys, fastwam_policy.nodes.recorder_node; print(*sys.modules)").split()
    assert "rclpy" in modules
    assert "torch" not in modules


@pytest.mark.parametrize(
    ("line", "expected"),
    [("fastwam check-p", {"check-policy"}), ("fastwam bench --dt", {"--dtype"}),
     ("fastwam eval-sim --blending ", {"switch", "ensemble", "rtc"})],
)  # fmt: skip
def test_a_shell_completes(line, expected, tmp_path):
    answer = tmp_path / "answer"
    asked = {
        "_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": " ",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
    }  # fmt: skip
    subprocess.run([sys.executable, "-m", "fastwam_policy.cli"], env=os.environ | asked, check=True)
    assert set(answer.read_text().split()) == expected


@pytest.mark.parametrize("variables", [{}, {"PYTHONUNBUFFERED": "1"}])
def test_standard_output_is_a_commands_own(variables):
    """Fast DDS complains there of a node that hangs and holds its port; `status --json - | jq` must not read that."""
    program = """
import os
from fastwam_policy.cli.main import keep_output
print("before")
keep_output()
os.write(1, b"theirs")
print("ours: é")
os.system("echo a child")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=dict(os.environ) | variables, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "before\nours: é\n")
    assert done.stderr == "theirsa child\n"


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "1>&- 2>&-"])
def test_standard_output_or_error_may_be_closed(closed):
    program = "from fastwam_policy.cli.main import keep_output; keep_output(); print(1, flush=True)"
    done = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", program], capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"" if "1>" in closed else b"1\n")
