#!/bin/bash
# Renews provisioning/locks: for each extra of setup.cfg all packages that it brings, each with its version and the
# hashes of its files, for every Python and processor that we run on. Versions that still fit stay as they are.
# Usage: provisioning/locks.sh [--upgrade] [--upgrade-package NAME]…
set -euo pipefail
unset CDPATH
cd "$(dirname "$0")/.."
folder=provisioning/locks uv=.venv/bin/uv
# A version that says it is for older Pythons only, which uv does not look at.
passed_over='backports-strenum <1.3'

compile() { # compile EXTRA ARGUMENT…: setuptools is what setup.sh installs this checkout itself with.
  local extra=$1
  shift
  sed -n 's/^requires = \["\(.*\)"\]$/\1/p' pyproject.toml |
    UV_CUSTOM_COMPILE_COMMAND='make locks' "$uv" pip compile --quiet setup.cfg - --extra "$extra" --universal \
      --python-version 3.10 --constraint <(echo "$passed_over") \
      --generate-hashes --annotation-style line --output-file "$folder/$extra.txt" "$@"
  sed -i 's#, -c [^,]*##g; s#via -c [^,]*, #via #; /# via -c [^,]*$/d' "$folder/$extra.txt"  # who wants a package, not what bounded its version
}

[ -x "$uv" ] || { printf 'Error: uv is not here: run make setup-test, then make locks again.\n' >&2; exit 1; }
compile test "$@"
# The others are parts of it, so that what is tested is what a kiosk and a clinic get.
for extra in demo kiosk clinic machines; do
  compile "$extra" --constraint "$folder/test.txt" --upgrade
done
