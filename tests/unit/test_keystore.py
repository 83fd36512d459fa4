"""config.json: refused when it is not safe or not whole, replaced atomically, held by one process."""

import os
import stat
from pathlib import Path

import msgspec
import pytest

from claudemesh.errors import AddressError, LocalError
from claudemesh.peer.config import BrokerAddress, LogPin, MeshKeys, make_peer, make_user, read_config, write_config
from claudemesh.peer.keystore import CONFIG_FILE, Keystore
from claudemesh.peer.runtime import Runtime
from claudemesh.types import UnixMillis

RUNTIME = Runtime()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "config"


def mesh_keys(mesh: str = "aa" * 32, alias: str = "home") -> MeshKeys:
    return MeshKeys(
        mesh=mesh,
        alias=alias,
        broker=BrokerAddress("wss://broker.example/ws", "bb" * 32),
        peer=make_peer(os.urandom(64), UnixMillis(5)),
        log=LogPin(0, mesh),
    )


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_configuration_is_private_from_its_first_byte(directory: Path) -> None:
    """0700 and 0600 whatever the umask."""
    with Keystore.open(directory) as keystore:
        keystore.identity(RUNTIME)

    assert mode(directory) == 0o700
    assert mode(directory / CONFIG_FILE) == 0o600


def test_what_is_written_is_read_again(directory: Path) -> None:
    """Identity, meshes and labels survive a restart."""
    with Keystore.open(directory) as keystore:
        identity = keystore.identity(RUNTIME)
        keystore.put_mesh(mesh_keys())
        keystore.set_labels("alice", "laptop")
        written = keystore.config

    with Keystore.open(directory) as reopened:
        assert reopened.config == written
        assert reopened.identity(RUNTIME) == identity


def test_a_mesh_is_replaced_and_removed_by_mesh_and_peer(directory: Path) -> None:
    """A change of one mesh leaves the others as they are."""
    first, second = mesh_keys(), mesh_keys("cc" * 32, "work")
    with Keystore.open(directory) as keystore:
        keystore.put_mesh(first)
        keystore.put_mesh(second)

        keystore.put_mesh(msgspec.structs.replace(first, log=LogPin(7, "dd" * 32)))
        assert keystore.mesh(first.mesh).log.seq == 7
        keystore.remove_mesh(first)

        assert keystore.meshes == [second]


def test_a_mesh_is_found_by_alias_or_prefix_and_never_guessed(directory: Path) -> None:
    """One mesh needs no name; two do."""
    with Keystore.open(directory) as keystore:
        with pytest.raises(AddressError, match="no_mesh"):
            keystore.find_mesh(None)
        keystore.put_mesh(mesh_keys())
        assert keystore.find_mesh(None).alias == "home"
        keystore.put_mesh(mesh_keys("cc" * 32, "work"))

        assert keystore.find_mesh("work").mesh == "cc" * 32
        assert keystore.find_mesh("cccccccc").alias == "work"
        assert keystore.free_alias("work") == "work-2"
        with pytest.raises(AddressError, match="ambiguous_mesh"):
            keystore.find_mesh(None)
        with pytest.raises(AddressError, match="unknown_mesh_alias"):
            keystore.find_mesh("wo")


@pytest.mark.parametrize("wide", [0o644, 0o640, 0o604])
def test_a_file_that_others_can_read_is_refused(directory: Path, wide: int) -> None:
    """N05: refused with the chmod that mends it; the file is not touched."""
    with Keystore.open(directory) as keystore:
        keystore.identity(RUNTIME)
    (directory / CONFIG_FILE).chmod(wide)

    with pytest.raises(LocalError, match="chmod 600") as caught:
        Keystore.open(directory)

    assert caught.value.code == "config_mode"
    assert mode(directory / CONFIG_FILE) == wide


def test_a_directory_that_others_can_enter_is_refused(directory: Path) -> None:
    """The names and sizes in it are private too."""
    directory.mkdir(mode=0o755)
    directory.chmod(0o755)

    with pytest.raises(LocalError, match="chmod 700") as caught:
        Keystore.open(directory)

    assert caught.value.code == "config_mode"


def test_a_symbolic_link_is_refused(directory: Path, tmp_path: Path) -> None:
    """Neither read through nor replaced: its target may be anywhere."""
    with Keystore.open(directory) as keystore:
        keystore.identity(RUNTIME)
    target = tmp_path / "elsewhere"
    (directory / CONFIG_FILE).rename(target)
    (directory / CONFIG_FILE).symlink_to(target)

    with pytest.raises(LocalError, match="symbolic link") as caught:
        Keystore.open(directory)

    assert caught.value.code == "config_mode"


@pytest.mark.parametrize("cut", [1, 20, 200, -2])
def test_a_half_written_file_is_refused_and_kept(directory: Path, cut: int) -> None:
    """N05: secrets are never guessed or repaired."""
    with Keystore.open(directory) as keystore:
        keystore.identity(RUNTIME)
        keystore.put_mesh(mesh_keys())
    whole = (directory / CONFIG_FILE).read_bytes()
    (directory / CONFIG_FILE).write_bytes(whole[:cut])

    with pytest.raises(LocalError) as caught:
        Keystore.open(directory)

    assert caught.value.code == "config_damaged"
    assert (directory / CONFIG_FILE).read_bytes() == whole[:cut]


def test_a_secret_that_does_not_belong_to_its_key_is_refused() -> None:
    """A file pasted together from two is damaged, however well formed."""
    keys = mesh_keys()
    mixed = msgspec.structs.replace(keys, peer=msgspec.structs.replace(keys.peer, sign_sk="11" * 32))
    raw = msgspec.json.encode({"identity": make_user(os.urandom(32)), "meshes": [mixed]})

    with pytest.raises(LocalError, match="does not belong") as caught:
        read_config(raw)

    assert "11" * 32 not in str(caught.value)


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"null", b"{", b'{"identity":{"user":"x"}}', b'{"surprise":1}', b'{"v":2}', b"\xff\xfe"]
)
def test_what_is_not_a_configuration_has_its_own_code(raw: bytes) -> None:
    """No other exception escapes."""
    with pytest.raises(LocalError) as caught:
        read_config(raw)

    assert caught.value.code == "config_damaged"


def test_a_failed_write_leaves_the_old_file(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """N05: a full disk refuses the change, in memory too, and leaves no temporary file."""
    with Keystore.open(directory) as keystore:
        keystore.identity(RUNTIME)
        before, config = (directory / CONFIG_FILE).read_bytes(), keystore.config

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(LocalError) as caught:
                keystore.put_mesh(mesh_keys())

        assert caught.value.code == "disk"
        assert keystore.config == config
    assert (directory / CONFIG_FILE).read_bytes() == before
    assert sorted(path.name for path in directory.iterdir()) == [CONFIG_FILE, "daemon.lock"]


def test_a_left_over_temporary_file_is_removed(directory: Path) -> None:
    """It holds secrets of a write that was cut short."""
    Keystore.open(directory).close()
    leftover = directory / ".config-abc"
    leftover.write_text("{")

    Keystore.open(directory).close()

    assert not leftover.exists()


def test_only_one_holder_at_a_time(directory: Path) -> None:
    """Two daemons would race for counters and windows."""
    with Keystore.open(directory):
        with pytest.raises(LocalError) as caught:
            Keystore.open(directory)
        assert caught.value.code == "config_locked"

    Keystore.open(directory).close()


def test_no_secret_is_in_a_repr(directory: Path) -> None:
    """Tracebacks and logs show keys shortened, secrets never."""
    with Keystore.open(directory) as keystore:
        keystore.identity(RUNTIME)
        keystore.put_mesh(mesh_keys())
        config = keystore.config
        assert config.identity is not None
        peer = config.meshes[0].peer

        shown = repr(config)

        for secret in (config.identity.user_sk, peer.sign_sk, peer.boxes[0].box_sk):
            assert secret is not None
            assert secret not in shown
            assert secret in write_config(config).decode()
