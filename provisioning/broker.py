"""The broker's folder: mosquitto's configuration, its access list, its certificate."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Collection
from pathlib import Path

from hardware.host.errors import PlainError
from provisioning import files
from sync.wire.bounds import MAX_PACKET_BYTES

INGEST_WORKERS = tuple(f"ingest-{number}" for number in range(1, 9))
AUDITOR = "auditor"

# Mosquitto takes the name of a client from its certificate (%u), and makes the client id equal to it. A kiosk
# has its own branch; the first two lines hold for every client, and no role's name is a kiosk's id.
# Mosquitto 2.0 checks a subscription when a message is delivered, not when it is made: SUBACK says "granted"
# to a client that will never get a message.
# Topics by their exact names: on each that a kiosk may publish on, it may have the broker retain a message,
# which an ingest worker clears where it is a result or a reminder. It may write there for that alone: nothing
# that it says there is signed by a kiosk, and is believed by nobody.
ACCESS_LIST = """\
pattern write clinic/v1/%u/up/result
pattern write clinic/v1/%u/up/reminder
pattern write clinic/v1/%u/up/status
pattern read clinic/v1/%u/down/#
"""
INGEST_ACCESS = """\

user {name}
topic read clinic/v1/+/up/#
topic write clinic/v1/+/down/receipt
topic write clinic/v1/+/up/result
topic write clinic/v1/+/up/reminder
"""
AUDITOR_ACCESS = """\

user {name}
topic read clinic/#
"""

CONFIGURATION = """\
# The clinic's broker: MQTT 5 over TLS 1.3, every client with a certificate of the clinic's authority.
per_listener_settings false
{user}
listener {port} {address}
tls_version tlsv1.3
cafile {folder}/ca.crt
certfile {folder}/server.crt
keyfile {folder}/server.key
require_certificate true
use_identity_as_username true
use_username_as_clientid true
max_connections {connections}

allow_anonymous false
acl_file {folder}/acl

# What a client that stays away can make the broker hold is bounded in number, size and time. Nothing is lost
# by it: a kiosk keeps what has no receipt and sends it again.
max_packet_size {packet}
max_inflight_messages 500
max_queued_messages 2000
max_queued_bytes 67108864
persistent_client_expiration 7d
queue_qos0_messages false

persistence true
persistence_location {folder}/data/
autosave_interval 30

set_tcp_nodelay true
sys_interval 10
log_dest stderr
log_type error
log_type warning
log_type notice
log_timestamp_format %Y-%m-%dT%H:%M:%S%z
connection_messages true
"""

_FILES = ("server.key", "server.crt", "ca.crt", "acl", "mosquitto.conf")
# The file system's own, where the folder is a mount point.
_NOT_FOREIGN = ("data", "lost+found")


class BrokerRefused(PlainError):
    """A broker that cannot be made in this folder, or not for this account."""

    exit_status = 2


def access_list() -> str:
    """The access list for kiosks, the ingest workers and the auditor."""
    workers = (INGEST_ACCESS.format(name=name) for name in INGEST_WORKERS)
    return "".join([ACCESS_LIST, *workers, AUDITOR_ACCESS.format(name=AUDITOR)])


def write_broker(
    folder: Path,
    *,
    port: int,
    root: bytes,
    certificate: bytes,
    key: bytes,
    address: str = "127.0.0.1",
    max_connections: int = 1000,
    user: str | None = None,
) -> Path:
    """Write the broker's folder, and return its mosquitto.conf; what the broker has stored stays.

    The folder belongs to the account `user`, by default whoever calls this; mosquitto, started by root, runs
    as that one. Raises BrokerRefused where only root could give it away, where that account could put another
    folder in its place, and where it holds anything but a broker.
    `root` is the clinic's root certificate, `certificate` the server's chain, leaf first; all PEM.
    """
    account = _account(user)
    given = account if account is not None and account.pw_uid != os.geteuid() else None
    if given:
        _check_giving(folder, given)
    _check_ours(folder)
    written = os.fsencode(folder.resolve()).decode(errors="surrogateescape")
    if not written.isprintable():
        raise BrokerRefused(
            f"{folder} has characters in its path that mosquitto does not read in its configuration, such as "
            "a tab: choose a folder without."
        )
    folder = files.make_folder(folder).resolve()
    owner = (given.pw_uid, given.pw_gid) if given else None
    if owner:
        _check_data(folder / "data")
    files.make_folder(folder / "data")
    files.write(folder / "server.key", key, files.PRIVATE, owner)
    files.write(folder / "server.crt", certificate, files.PUBLIC, owner)
    files.write(folder / "ca.crt", root, files.PUBLIC, owner)
    configuration = CONFIGURATION.format(
        folder=written,
        port=port,
        address=address,
        # No line for a user id without an account: mosquitto asks for a name only where root starts it.
        user="" if account is None else f"user {account.pw_name}\n",
        connections=max_connections,
        packet=MAX_PACKET_BYTES,
    )
    files.write(folder / "acl", access_list(), files.PRIVATE, owner)
    files.write(folder / "mosquitto.conf", configuration, files.PRIVATE, owner)
    if owner:
        _give(folder, owner)
    return folder / "mosquitto.conf"


def _account(user: str | None) -> pwd.struct_passwd | None:
    """The account `user`, else that of whoever is at work here, whatever LOGNAME says; None: it has none."""
    try:
        return pwd.getpwuid(os.geteuid()) if user is None else pwd.getpwnam(user)
    except KeyError as error:
        if user is not None:
            raise BrokerRefused(
                f"There is no account '{user}': name one of this machine, such as mosquitto."
            ) from error
        return None


def _check_giving(folder: Path, account: pwd.struct_passwd) -> None:
    if os.geteuid() != 0:
        raise BrokerRefused(f"Only root can make a broker for '{account.pw_name}': run this command as root.")
    groups = os.getgrouplist(account.pw_name, account.pw_gid)
    instead = "choose a folder such as /var/lib/dermakiosk-broker."
    # As it was named too: a link on the way to it is as good as another folder.
    for path in (folder.absolute(), folder.resolve()):
        for child, parent in zip((path, *path.parents), path.parents, strict=False):
            found = parent.stat() if parent.exists() else None
            if found is None or not _may(found, account, groups) & stat.S_IXOTH:
                raise BrokerRefused(
                    f"{parent} is not there, or '{account.pw_name}' may not enter it: {instead}"
                )
            may_write = found.st_uid == account.pw_uid or _may(found, account, groups) & stat.S_IWOTH
            if may_write and not (found.st_mode & stat.S_ISVTX and _is_anothers(child, account)):
                raise BrokerRefused(
                    f"'{account.pw_name}' may write to {parent}, and so put another folder in the place of"
                    f" {child}: {instead}"
                )


def _may(found: os.stat_result, account: pwd.struct_passwd, groups: Collection[int]) -> int:
    """What `account` may do: the three bits of others, whichever apply to it."""
    shift = 6 if found.st_uid == account.pw_uid else 3 if found.st_gid in groups else 0
    return found.st_mode >> shift & stat.S_IRWXO


def _is_anothers(child: Path, account: pwd.struct_passwd) -> bool:
    return os.path.lexists(child) and child.lstat().st_uid != account.pw_uid


def _check_ours(folder: Path) -> None:
    """One that was cut while it was made has no mosquitto.conf, which comes last, and nothing foreign."""
    ours = CONFIGURATION.partition("\n")[0].encode()
    if files.read(folder / "mosquitto.conf", len(ours)) == ours:
        return
    begun = tuple(f".{name}." for name in _FILES)
    found = folder.iterdir() if folder.is_dir() else ()
    for path in found:
        if path.name not in (*_FILES[:-1], *_NOT_FOREIGN) and not path.name.startswith(begun):
            raise BrokerRefused(f"{folder} holds something else than a broker: choose another folder.")


def _check_data(data: Path) -> None:
    if os.path.lexists(data) and not stat.S_ISDIR(data.lstat().st_mode):
        raise BrokerRefused(
            f"{data} is a link or a file, and root gives away a folder only: put a folder there, with what"
            " the broker has stored."
        )


def _give(folder: Path, owner: tuple[int, int]) -> None:
    """Give `folder` and what the broker has stored to `owner`, who may have put anything there before."""
    with files.opened(folder / "data", os.O_DIRECTORY) as data:
        for name in os.listdir(data):
            _give_stored(name, data, owner)
        os.fchown(data, *owner)
    with files.opened(folder, os.O_DIRECTORY) as handle:
        os.fchown(handle, *owner)


def _give_stored(name: str, data: int, owner: tuple[int, int]) -> None:
    """A file that has another name elsewhere is not the broker's alone."""
    try:
        with files.opened(name, dir_fd=data) as handle:
            found = os.fstat(handle)
            if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
                os.fchown(handle, *owner)
    except OSError as error:
        if error.errno not in files.NO_FILE:
            raise
