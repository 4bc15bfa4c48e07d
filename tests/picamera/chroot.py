"""Chroot: Debian 13 with libcamera, the real Picamera2 and what it needs, in a folder of its own."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
CHECKOUT = HERE.parent.parent
SUITE, BACKPORTS = "trixie", "trixie-backports"
# Debian 13's own libcamera, 0.4, is older than what Picamera2 is written for, and than what a Pi has.
BASE = ["ca-certificates", "gcc", "libc6-dev", "python3", "python3-prctl"]
FROM_BACKPORTS = ["libcamera-ipa", "python3-libcamera"]
ALONE = ["picamera2==0.3.38", "piexif", "simplejpeg", "videodev2"]
WITH_DEPENDENCIES = ["numpy>=2.1,<2.3", "opencv-python-headless==4.12.*", "pillow", "pydantic>=2.11,<3"]
PYTHON = "3.13"
_SITE, _SHIM, _MOUNTED = "/opt/picamera", "/opt/dmaheap.so", "/srv/checkout"
_BUILD_S = 900
# Its own mounts, which end with the command: /proc, /tmp and the checkout, that is only read.
_ENTER = f"""
root=$0; checkout=$1; shift
mount -t proc proc "$root/proc"; mount -t tmpfs tmpfs "$root/tmp"
mount --bind "$checkout" "$root{_MOUNTED}"; mount -o remount,bind,ro "$root{_MOUNTED}"
exec chroot "$root" /usr/bin/env -i PATH=/usr/bin:/bin HOME=/tmp PYTHONDONTWRITEBYTECODE=1 \\
  PYTHONPATH={_SITE}:{_MOUNTED} LD_PRELOAD={_SHIM} LIBCAMERA_LOG_LEVELS='*:ERROR,Controls:FATAL' "$@"
"""


class ChrootFailed(Exception):
    """The chroot cannot be built or entered; the message says why."""


def build(root: Path) -> bool:
    """Make the chroot at `root`; False when the one there is still good. Raises ChrootFailed."""
    _check_tools()
    recipe = hashlib.sha256()
    for part in (Path(__file__), HERE / "dmaheap.c", HERE / "virtual.yaml"):
        recipe.update(part.read_bytes())
    made_by = root / "recipe"
    if made_by.is_file() and made_by.read_text() == recipe.hexdigest():
        return False
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    mirror = _mirror()
    _run(["debootstrap", "--variant=minbase", f"--include={','.join(BASE)}", SUITE, str(root), mirror])
    (root / "etc/apt/sources.list.d/backports.list").write_text(f"deb {mirror} {BACKPORTS} main\n")
    apt = ["chroot", str(root), "/usr/bin/env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
    _run([*apt, "update"])
    _run([*apt, "--yes", "--no-install-recommends", "install", "-t", BACKPORTS, *FROM_BACKPORTS])
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-warn-conflicts", "--only-binary=:all:"]
    pip += ["--python-version", PYTHON, "--target", f"{root}{_SITE}"]
    _run([*pip, "--no-deps", *ALONE])
    _run([*pip, *WITH_DEPENDENCIES])
    _put_in_place(root)
    made_by.write_text(recipe.hexdigest())
    return True


def run(root: Path, module: str, argument: str, limit_s: float) -> subprocess.CompletedProcess[str]:
    """`python -m module argument` inside. Raises subprocess.TimeoutExpired; nothing of it is left then."""
    inside = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-euc", _ENTER, str(root)]
    command = [*inside, str(CHECKOUT), "python3", "-m", module, argument]
    return subprocess.run(command, capture_output=True, text=True, timeout=limit_s, cwd="/", check=False)


def versions(root: Path) -> str:
    """Which libcamera and which Picamera2 are in there."""
    query = ["chroot", str(root), "dpkg-query", "-W", "-f", "${Version}", "python3-libcamera"]
    libcamera = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout
    return f"libcamera {libcamera}, {ALONE[0].replace('==', ' ')}"


def _put_in_place(root: Path) -> None:
    """The DMA heap that is none, the virtual camera's configuration, the mount point."""
    heap = root / "dev/dma_heap"
    heap.mkdir(parents=True)
    (heap / "linux,cma").touch()
    virtual = root / "usr/share/libcamera/pipeline/virtual"
    virtual.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "virtual.yaml", virtual)
    (root / _MOUNTED[1:]).mkdir(parents=True)
    shutil.copy(HERE / "dmaheap.c", root / "opt")
    _run(["chroot", str(root), "gcc", "-shared", "-fPIC", "-O1", "-Wall", "-o", _SHIM, "/opt/dmaheap.c"])


def _check_tools() -> None:
    if os.geteuid() != 0:
        raise ChrootFailed("A chroot is made and entered by root: run it as 'sudo make picamera'.")
    for tool in ("debootstrap", "unshare", "apt-get"):
        if shutil.which(tool) is None:
            raise ChrootFailed(f"{tool} is not installed: install it, then run this again.")


def _mirror() -> str:
    """The Debian mirror that this machine uses itself."""
    listed = _run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(COMPONENT) $(ORIGIN)"])
    for line in listed.splitlines():
        uri, _, rest = line.partition(" ")
        if rest == "main Debian":
            return uri
    raise ChrootFailed("apt knows no Debian mirror here: run apt-get update on a Debian machine first.")


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_BUILD_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise ChrootFailed(f"'{' '.join(command)}' did not end in {_BUILD_S} s.") from error
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise ChrootFailed(f"'{' '.join(command)}' failed:\n{said}")
    return done.stdout
