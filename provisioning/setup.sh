#!/bin/bash
# Installs what the checkout needs: Debian packages, the virtual environment .venv, the face networks.
# Usage: provisioning/setup.sh demo|test|kiosk|clinic|machines: an extra of setup.cfg, of which provisioning/locks says the rest.
# "bench" is "test" and what the clinic is measured beside.
set -euo pipefail
unset CDPATH
cd "$(dirname "$0")/.."
what=${1:-demo}
# Whatever this person's shell or pip.conf says: everything goes into .venv, and nothing else is looked at there.
unset PYTHONHOME PYTHONPATH PIP_TARGET PIP_PREFIX PIP_ROOT PIP_NO_DEPS PIP_DRY_RUN
export PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0

# Who runs a kiosk or a server is another user than who installs it.
[[ $what = @(kiosk|clinic|machines) ]] && umask 022

# A set-up that was cut between the two steps at the end of it. What was cut while it was deleted has another name.
[ -e .venv ] || [ -L .venv ] || [ ! -e .venv.old ] || mv .venv.old .venv
rm -rf .venv.gone
clear_away() { [ ! -e "$1" ] && [ ! -L "$1" ] || mv "$1" .venv.gone; rm -rf .venv.gone; }

say() { printf '%s\n' "$*"; }
fail() { printf 'Error: %s\n' "$*" >&2; exit 1; }

# A 64-bit kernel may run 32-bit programs (Raspberry Pi OS does): what counts is what the programs are.
[ "$(getconf LONG_BIT)" = 64 ] ||
  fail "this system is 32-bit, and the networks' engines exist for 64-bit only: write the 64-bit image of Raspberry Pi OS onto the card, then run make again."
case $(uname -m) in
  x86_64 | aarch64) ;;
  *) fail "this computer is a $(uname -m), and the networks' engines exist for x86_64 and aarch64 only: use a Raspberry Pi 4 or 5, a Jetson or a PC." ;;
esac

# Each Debian package beside a path that it brings; only what is missing gets installed.
broker="mosquitto /usr/sbin/mosquitto"
letters=(
  "fonts-noto-core /usr/share/fonts/truetype/noto/NotoSansArabic-Regular.ttf"
  "libfribidi0 /usr/lib/$(uname -m)-linux-gnu/libfribidi.so.0"
)
rights="util-linux /usr/bin/setpriv"
browser="chromium /usr/bin/chromium"
pythons=(python3.11 python3 python3.13 python3.12 python3.10) site=()
case $what in
  demo) packages=("$broker" "$rights" "${letters[@]}") ;;
  test | bench)
    packages=("$broker" "$rights" "${letters[@]}" "$browser" "chromium-headless-shell /usr/bin/chromium-headless-shell"
      "postgresql /usr/bin/pg_createcluster" "systemd /usr/bin/systemd-analyze") ;;
  clinic | machines) packages=("$broker") ;;
  kiosk)
    packages=("$rights" "${letters[@]}" "$browser" "cage /usr/bin/cage" "seatd /usr/sbin/seatd")
    # The Pi's camera library is Debian's, for Debian's own Python.
    case $(cat /proc/device-tree/model 2>/dev/null | tr -d '\0') in
      "Raspberry Pi"*)
        packages+=("python3-picamera2 /usr/lib/python3/dist-packages/picamera2")
        pythons=(/usr/bin/python3) site=(--system-site-packages) ;;
    esac ;;
  *) fail "provisioning/setup.sh sets up demo, test, bench, kiosk, clinic or machines, not '$what'." ;;
esac
[ "$what" = bench ] && packages+=("mosquitto-clients /usr/bin/mosquitto_sub" "nodejs /usr/bin/node" "npm /usr/bin/npm")

apt_install() {
  local root=()
  command -v apt-get >/dev/null || fail "$* must be installed, and this is not Debian: install them by hand, then run make again."
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || fail "$* must be installed, and there is no sudo: ask an administrator to run 'apt-get install $*', then run make again."
    root=(sudo)
  fi
  say "Installing Debian packages: $*"
  "${root[@]}" apt-get -qq update || fail "apt-get update failed: check the network, then run make again."
  [[ " $* " != *" python3-picamera2 "* ]] || apt-cache show python3-picamera2 >/dev/null 2>&1 ||
    fail "this system's package sources have no python3-picamera2, the Pi's camera library: write the 64-bit image of Raspberry Pi OS onto the card, then run make again."
  # RUNLEVEL=1 keeps Debian from starting the new services: we start our own, in our own folders.
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -qq -y --no-install-recommends install "$@" >/dev/null ||
    fail "apt-get could not install $*: run 'apt-get install $*' to see why, then run make again."
}

missing=()
for entry in "${packages[@]}"; do
  read -r package path <<<"$entry"
  [ -e "$path" ] || missing+=("$package")
done

python=
for candidate in "${pythons[@]}"; do
  path=$(command -v "$candidate") || continue
  if "$path" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then python=$path; break; fi
done
if [ -z "$python" ]; then missing+=(python3 python3-venv); python=/usr/bin/python3
elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then missing+=(python3-venv); fi
[ ${#missing[@]} = 0 ] || apt_install "${missing[@]}"
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
  fail "$python cannot make virtual environments: install the venv package that belongs to it, then run make again."

# What is installed is what the lock names, and nothing that needs a compiler; then this checkout beside it.
# An environment of another Python, or of another place (its commands name their own path), is made anew, beside the
# old one: that stays until the new one has everything.
extra=${what/#bench/test} lock=provisioning/locks/${what/#bench/test}.txt
home=$({ "$python" -VV; pwd; echo "${site[@]}"; } | sha256sum | cut -d' ' -f1)
recipe_of() { { cat setup.cfg pyproject.toml "provisioning/locks/$1.txt" 2>/dev/null; echo "$home"; } | sha256sum | cut -d' ' -f1; }
is_there() { [ "$(cat ".venv/recipe-$1" 2>/dev/null)" = "$(recipe_of "$1")" ] && .venv/bin/python -c '' 2>/dev/null; }
# The tests' environment has all of the demo's, in the same versions.
if ! is_there "$extra" && ! { [ "$extra" = demo ] && is_there test; }; then
  say "Making the virtual environment .venv with $("$python" -V) (a few minutes the first time)"
  made=.venv
  # What a patient's kiosk or a server has is nothing but what its lock names.
  if [ "$(cat .venv/home 2>/dev/null)" != "$home" ] || ! .venv/bin/python -c '' 2>/dev/null || [[ $extra = @(kiosk|clinic|machines) ]]; then
    made=.venv.new
    "$python" -m venv --clear --prompt .venv "${site[@]}" "$made" || fail "$python could not make .venv: the lines above say why."
    echo "$home" >"$made/home"
  fi
  rm -f "$made"/recipe-*
  pip=("$made/bin/python" -m pip install -q --disable-pip-version-check)
  "${pip[@]}" --require-hashes --only-binary :all: -r "$lock" &&
    PYTHONWARNINGS=ignore "${pip[@]}" --no-deps --no-build-isolation -e . ||
    fail "pip could not install the Python packages: the lines above say which; check the network, then run make again."
  recipe_of "$extra" >"$made/recipe-$extra"
  if [ "$made" != .venv ]; then
    grep -rlF "/$made" "$made/bin" "$made/pyvenv.cfg" | xargs -d '\n' sed -i 's#/\.venv\.new\b#/.venv#g'
    sync -f "$made"  # after a power cut there is a whole one
    clear_away .venv.old
    [ ! -e .venv ] && [ ! -L .venv ] || mv .venv .venv.old
    mv "$made" .venv
    clear_away .venv.old
  fi
fi
if [ "$what" != clinic ] && [ "$what" != machines ]; then
  .venv/bin/pybabel -q compile -d kiosk_app/patient/translations 2>/dev/null ||
    fail "the translations in kiosk_app/patient/translations could not be compiled: run '.venv/bin/pybabel compile -d kiosk_app/patient/translations' to see why."
  .venv/bin/dermakiosk models fetch
fi
say "Set up: .venv/bin/dermakiosk is ready."
