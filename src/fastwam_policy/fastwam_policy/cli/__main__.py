"""`python -m fastwam_policy.cli`."""

from fastwam_policy.cli.main import main

main()
