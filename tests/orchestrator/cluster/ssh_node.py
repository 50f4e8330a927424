"""A machine to rent, for nothing: an SSH server that is a node of its own to whoever logs in.

It has its own user, home, /tmp and processes, by Linux's namespaces, and shares this machine's network and programs.
So `ray stop` there stops no Ray of anybody else, nothing is written outside one folder, and what was started there
ends with it.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

USER = "ubuntu"
"""User of the node, that of cluster.yaml."""
USER_ID = 52022
"""Number of that user: nobody's on the machines that run this."""
NEEDED = ("sshd", "ssh", "ssh-keygen", "rsync", "tmux", "unshare")
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

# Runs as process 1 of the node. The folders are bound over the machine's own, for the node alone. /tmp comes last,
# since the node's folder may be below it.
START = """
set -e
mount -t tmpfs tmpfs /run && mkdir -p /run/sshd && cp "$NODE"/etc/* /run/sshd/ && chmod 600 /run/sshd/host_key
mount --bind "$NODE/etc/passwd" /etc/passwd
mount -t tmpfs tmpfs /home && mkdir "/home/$NODE_USER" && mount --bind "$NODE_HOME" "/home/$NODE_USER"
mount --bind "$NODE/tmp" /tmp
cd /
exec env -i PATH="$PATH" "$(command -v sshd)" -D -e -f /run/sshd/config
"""

CONFIG = """
ListenAddress {address}:22
HostKey /run/sshd/host_key
PidFile none
UsePAM no
PasswordAuthentication no
AllowUsers {user}
Subsystem sftp internal-sftp
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SshNode:
    """A running node."""

    address: str
    """Where its SSH server listens, on port 22: an address of 127.0.0.0/8."""
    key: Path
    """Private key that opens it."""
    home: Path
    """Home of its user, as seen from this machine."""
    tmp: Path
    """/tmp of the node, as seen from this machine."""
    log: Path
    """What the SSH server wrote."""

    def run(self, command: str) -> str:
        """Output of a command that the node's user runs there. Raises CalledProcessError if it fails."""
        options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
        ssh = ["ssh", "-F", "none", "-i", str(self.key), *options, f"{USER}@{self.address}", command]
        return subprocess.run(ssh, check=True, capture_output=True, text=True, timeout=120).stdout


def reason_to_skip() -> str | None:
    """What this machine lacks for a node of its own; None if it can have one."""
    missing = [name for name in NEEDED if shutil.which(name, path=PATH) is None]
    if missing:
        return f"a node of its own needs {', '.join(missing)} (Debian: openssh-server, openssh-client, rsync, tmux)"
    tried = subprocess.run(["unshare", "--mount", "--pid", "--fork", "--mount-proc", "true"], capture_output=True)
    if os.geteuid() != 0 or tried.returncode != 0:
        return "a node of its own needs Linux and its administrator (unshare, mount)"
    return None


@contextmanager
def ssh_node(folder: Path, *, address: str, home: Path) -> Iterator[SshNode]:
    """A node whose files are in `folder` and whose user's home is `home`; its processes end with the block."""
    etc, tmp, key = folder / "etc", folder / "tmp", folder / "key"
    for path in (etc, tmp, home / ".ssh"):
        path.mkdir(parents=True, exist_ok=True)
    tmp.chmod(0o1777)
    for path in (etc / "host_key", key):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    (etc / "config").write_text(CONFIG.format(address=address, user=USER))
    entry = f"{USER}:*:{USER_ID}:{USER_ID}::/home/{USER}:/bin/bash\n"
    (etc / "passwd").write_text(Path("/etc/passwd").read_text() + entry)
    (home / ".ssh" / "authorized_keys").write_text(key.with_suffix(".pub").read_text())
    for path in (home, home / ".ssh", home / ".ssh" / "authorized_keys"):
        os.chown(path, USER_ID, USER_ID)
        path.chmod(0o700 if path.is_dir() else 0o600)
    log = folder / "sshd.log"
    environment = {"PATH": PATH, "NODE": str(folder), "NODE_HOME": str(home), "NODE_USER": USER}
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", START]
    with log.open("w") as output:
        process = subprocess.Popen(unshare, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        _wait_for(address, process, log)
        yield SshNode(address=address, key=key, home=home, tmp=tmp, log=log)
    finally:
        process.kill()  # with unshare dies process 1 of the node, and with that all others
        process.wait()


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection((address, 22), timeout=1).close()
            return
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
