#!/usr/bin/env bash
# pytest with these arguments. What failed is run once more, with nothing beside it: the tests of live nodes share a
# few busy cores, where anything may be late. A fault fails twice; what passes alone is named, and worth a look.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/env.sh
cache=$(mktemp -d)
trap 'rm -rf "$cache"' EXIT
pytest -o cache_dir="$cache" "$@"
status=$?
[ "$status" = 1 ] || exit "$status"  # 1: tests failed; all else is not about a test
printf '\nOnce more, with nothing beside it, what failed above:\n'
pytest -o cache_dir="$cache" "$@" -n 0 -vv --last-failed --last-failed-no-failures none || exit
printf '\nThese failed beside others and passed alone: the machine was too busy, or they race. See above.\n'
