#!/usr/bin/env bash
# pytest with these arguments. What failed is run once more, with nothing beside it: the tests of live nodes share a
# few busy cores, where anything may be late. What passes alone is named, and worth a look.
. "$(dirname "${BASH_SOURCE[0]}")/start.sh"
. scripts/env.sh || exit
cache=$(mktemp -d) || exit
trap 'rm -rf "$cache"' EXIT
.venv/bin/pytest -o cache_dir="$cache" "$@"
status=$?
[ "$status" = 1 ] || exit "$status"  # 1: tests failed; all else is not about a test
say "Once more, with nothing beside it, what failed above"
.venv/bin/pytest -o cache_dir="$cache" "$@" -n 0 -vv --last-failed --last-failed-no-failures none | tee "$cache/again"
[ "${PIPESTATUS[0]}" = 0 ] || exit 1
! grep -q ' SKIPPED ' "$cache/again" || die "what is skipped the second time has not passed"
say "Failed beside others and passed alone: the machine was too busy, or they race. What went wrong is above"
sed -n 's/ PASSED.*//p' "$cache/again"
