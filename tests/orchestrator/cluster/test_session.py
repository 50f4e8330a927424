"""Which cluster an address means, with or without a token; what a local cluster listens on."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.cluster import session as ray_session
from orchestrator.cluster.placement import nodes_to_come
from orchestrator.cluster.session import choose_cluster

ROOT = Path(__file__).parents[3]
VARIABLES = (
    "RAY_AUTH_MODE",
    "RAY_AUTH_TOKEN",
    "RAY_AUTH_TOKEN_PATH",
    "RAY_ADDRESS",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER",
)


@pytest.fixture(autouse=True)
def fresh_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without a token, no note of a running cluster, none of Ray's variables; as it was afterwards."""
    home = tmp_path / "home"
    home.mkdir()
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that what is set below is taken back
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    return home


@pytest.fixture
def listening() -> Iterator[str]:
    """An address where something listens."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"127.0.0.1:{server.getsockname()[1]}"


def write_token(home: Path) -> None:
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("f00d\n")


def note_cluster(tmp_path: Path, address: str) -> None:
    """What `ray start` leaves behind."""
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(address)


@pytest.mark.parametrize("address", ["local", "auto"])
def test_a_cluster_of_our_own_has_a_token_of_its_own(address: str, fresh_machine: Path) -> None:
    assert choose_cluster(address) == "local"
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
    assert list(fresh_machine.iterdir()) == []


def test_the_file_of_a_token_may_be_written_with_a_tilde(fresh_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (fresh_machine / "mine").write_text("f00d\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "~/mine")
    choose_cluster("local")
    assert os.environ["RAY_AUTH_TOKEN_PATH"] == str(fresh_machine / "mine")
    assert "RAY_AUTH_TOKEN" not in os.environ
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "~nobody-at-all/mine")
    with pytest.raises(ValueError, match="there is no home folder for '~nobody-at-all'"):
        choose_cluster("local")


def test_a_user_without_home_folder_has_a_cluster(fresh_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 12345)  # one whom the system does not know
    assert choose_cluster("local") == "local"
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert nodes_to_come() is None


def test_a_users_token_and_mode_are_kept(fresh_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_token(fresh_machine)
    choose_cluster("local")
    assert "RAY_AUTH_TOKEN" not in os.environ
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    choose_cluster("local")
    assert (os.environ["RAY_AUTH_MODE"], os.environ.get("RAY_AUTH_TOKEN")) == ("disabled", None)


@pytest.mark.parametrize(("answer", "mode"), [("open", "disabled"), ("closed", "token")])
def test_a_running_cluster_is_asked(
    listening: str, fresh_machine: Path, monkeypatch: pytest.MonkeyPatch, answer: str, mode: str
) -> None:
    write_token(fresh_machine)
    monkeypatch.setattr(ray_session, "PROBE", f"print('{answer}')")
    assert choose_cluster(listening) == listening
    assert os.environ["RAY_AUTH_MODE"] == mode
    assert "RAY_AUTH_TOKEN" not in os.environ
    assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in os.environ


def test_auto_finds_what_was_started_here_unless_it_is_gone(
    listening: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_session, "PROBE", "print('open')")
    note_cluster(tmp_path, f"{listening}\n")
    assert choose_cluster("auto") == listening
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:9")
    assert choose_cluster("auto") == "local"
    monkeypatch.setenv("RAY_ADDRESS", listening)
    assert choose_cluster("auto") == listening
    assert choose_cluster("local") == "local"


def test_auto_trusts_a_note_of_this_user_or_root_only(
    listening: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever connects runs what the cluster's owner likes, and anybody may write into a shared /tmp."""
    monkeypatch.setattr(ray_session, "PROBE", "print('open')")
    note_cluster(tmp_path, listening)
    said: list[str] = []
    real = os.fstat
    for owner, chosen in ((os.getuid(), listening), (0, listening), (12345, "local")):
        monkeypatch.setattr(
            os, "fstat", lambda file, owner=owner: os.stat_result([*real(file)[:4], owner, *real(file)[5:]])
        )
        assert choose_cluster("auto", tell=said.append) == chosen
    note = tmp_path / "ray" / "ray_current_cluster"
    assert said == [
        f"{note} names a running Ray cluster, but user 12345 wrote it, not you or root: it is not used; to use that "
        "cluster, give its --address"
    ]


def test_a_link_is_no_note(listening: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_session, "PROBE", "print('open')")
    note_cluster(tmp_path, listening)
    note = tmp_path / "ray" / "ray_current_cluster"
    note.rename(tmp_path / "elsewhere")
    note.symlink_to(tmp_path / "elsewhere")
    assert choose_cluster("auto") == "local"


def test_a_mode_that_the_user_set_is_not_probed(listening: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setattr(ray_session, "PROBE", "raise SystemExit('asked')")
    assert choose_cluster(listening) == listening


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:9", "--address 127.0.0.1:9: no Ray cluster answers there; expected auto, local, or host:port"),
        ("nonsense", "--address nonsense: no Ray cluster answers there"),
        ("host:99999", "--address host:99999: no Ray cluster answers there"),
        ("ray://host:10001", "--address ray://host:10001: Ray Client connections end with the terminal"),
    ],
)
def test_addresses_that_mean_nothing(address: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"^--address") as caught:
        choose_cluster(address)
    assert str(caught.value).startswith(said)
    assert "RAY_AUTH_MODE" not in os.environ


def test_a_cluster_that_wants_a_token_we_do_not_have(listening: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_session, "PROBE", "print('closed')")
    with pytest.raises(ValueError, match=r"wants a token; copy ~/.ray/auth_token from its head node"):
        choose_cluster(listening)


def test_something_else_that_listens(listening: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_session, "PROBE", "raise SystemExit('RpcError: bad')")
    with pytest.raises(ValueError, match=r"is not a Ray cluster, or runs another Ray version \(RpcError: bad\)"):
        choose_cluster(listening)


WORK = """
import json, logging, subprocess, sys
from orchestrator.cluster.session import choose_cluster
address = choose_cluster(sys.argv[1])
import numpy, ray
ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)

@ray.remote(num_cpus=0)
class Adder:
    def add(self, references):
        return float(ray.get(references[0]).sum())

large = ray.put(numpy.ones(2_000_000))
answers = [ray.get(Adder.remote().add.remote([large]), timeout=120)]
listeners = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True).stdout
print(json.dumps({"answers": answers, "session": ray.get_runtime_context().gcs_address, "listeners": listeners}))
"""
"""An actor reads what the driver owns: what fails where one side asks for a token and the other does not."""


def work(address: str) -> dict[str, object]:
    result = subprocess.run(
        [sys.executable, "-c", WORK, address],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    answer: dict[str, object] = json.loads(result.stdout.splitlines()[-1])
    return answer


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_local_cluster_listens_on_this_machine_only(fresh_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR")  # the paths of Ray's sockets may not be long
    found = work("local")
    assert found["answers"] == [2_000_000.0]
    port = str(found["session"]).rpartition(":")[2]
    ours = [line for line in str(found["listeners"]).splitlines() if "gcs_server" in line and f":{port} " in line]
    assert [line.split()[3] for line in ours] == [f"[::ffff:127.0.0.1]:{port}"]
    assert list(fresh_machine.iterdir()) == []


@contextmanager
def head(folder: Path, home: Path) -> Iterator[str]:
    """A head started by hand, without any setting."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if k not in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_TMPDIR")}
    process = subprocess.Popen(
        [
            str(Path(sys.executable).parent / "ray"), "start", "--head", "--port", str(port), "--temp-dir", str(folder),
            "--num-cpus", "1", "--include-dashboard", "false", "--disable-usage-stats", "--block",
        ],
        env=environment | {"HOME": str(home)}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            seen.append(line)
            if "Local node IP" in line:
                host = line.split("Local node IP:")[1].split("\x1b")[0].strip()
            if "Ray runtime started" in line:
                break
        else:
            raise AssertionError("".join(seen))
        yield f"{host}:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_heads_started_by_hand_with_and_without_a_token(
    fresh_machine: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a laptop that once ran Ray there is a token, on a fresh one not; both may have started the head, or join."""
    monkeypatch.delenv("RAY_TMPDIR")
    fresh, used = tmp_path_factory.mktemp("f"), tmp_path_factory.mktemp("u")
    write_token(used)
    with head(tmp_path_factory.mktemp("a"), fresh) as open_head:
        for home in (fresh, used):
            monkeypatch.setenv("HOME", str(home))
            assert work(open_head)["answers"] == [2_000_000.0]
    with head(tmp_path_factory.mktemp("b"), used) as closed_head:
        assert work(closed_head)["answers"] == [2_000_000.0]
        monkeypatch.setenv("HOME", str(fresh))
        with pytest.raises(ValueError, match="wants a token"):
            choose_cluster(closed_head)
