"""`fastwam check-safety`."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastwam_policy.common.arguments import add_json, add_robot, write_figures

NAME, GROUP = "check-safety", "check"
HELP = "inject faults into the running nodes; needs no robot"
EXAMPLE = "./fastwam check-safety --json faults.json"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--write", type=Path, metavar="MD", help="replace the fault table of docs/results/faults.md")
    add_robot(parser)
    add_json(parser, "write the rows as JSON")


def run(given: argparse.Namespace) -> int:
    """Inject them, and print the table; 1 where a fault did not end as it should."""
    import os
    import platform

    from fastwam_policy.common.console import PlainConsole
    from fastwam_policy.fault_injection.fault_table import around_table, as_json, table, write_table
    from fastwam_policy.fault_injection.injection import check_safety

    if given.write:
        around_table(given.write)
    rows = check_safety(given.robot)
    PlainConsole().print(table(rows))
    write_figures(given.json, as_json(rows))
    if given.write:
        write_table(given.write, rows, f"Measured on {platform.system()} {platform.machine()}, {os.cpu_count()} cores.")
    return int(any(row.violations or not row.as_expected for row in rows))
