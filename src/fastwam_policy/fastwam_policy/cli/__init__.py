"""The command line, one module a command: see :mod:`fastwam_policy.cli.main`."""
