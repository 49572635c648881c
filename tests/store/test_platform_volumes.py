"""What Kubernetes and Docker guarantee of volumes and Secrets is accepted where it is named, and nothing else is."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from store_media import KEY

from resilient_auth import ConfigurationError, FileStore, MountedKey
from resilient_auth._store.sealing.keys import load_keys

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="needs a user that may change owners and mount"
)

_GROUP = 65_321

# What is imported later could not be read any more by a user who may not enter the interpreter's directories.
_POD = """
import os, sys, tempfile, resilient_auth
from pathlib import Path
path, user, key = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
key = bytes.fromhex(key) if key else None
with tempfile.TemporaryDirectory() as warm, resilient_auth.FileStore(Path(warm, "a.db")) as store:
    store.write("token", "a", b"x", ttl=60)
os.umask(0o022)
os.setgroups([int(sys.argv[5])])
os.setgid(user)
os.setuid(user)
try:
    store = resilient_auth.FileStore(path, key, **eval(sys.argv[4]))
except resilient_auth.ConfigurationError as error:
    print(error)
else:
    found = store.read("token", "a")
    print(found and found.value)
    store.write("token", "a", str(user).encode(), ttl=60)
    lease = store.lease("a", 5)
    assert lease is not None
    store.release(lease)
    if len(sys.argv) > 6:
        print("ready", flush=True)
        sys.stdin.readline()
    store.close()
"""


def kubelet(volume: Path) -> None:
    """Do what kubelet does to a volume at each start of a pod with an `fsGroup`."""
    for path in (volume, *volume.rglob("*")):
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            continue
        os.chown(path, status.st_uid, _GROUP)
        path.chmod(stat.S_IMODE(status.st_mode) | (0o2770 if path.is_dir() else 0o660))


@pytest.fixture
def volume() -> Iterator[Path]:
    """A volume as a driver hands it over: root's."""
    with tempfile.TemporaryDirectory() as made:
        os.chmod(made, 0o711)
        path = Path(made, "volume")
        path.mkdir(mode=0o755)
        yield path


@pytest.fixture
def pod(program: Callable[..., Any]) -> Callable[..., Any]:
    """Start a store in a process of its own, as an unprivileged user in the group."""

    def start(path: Path, user: int, options: str = f"dict(trusted_group={_GROUP})", key: str = "") -> str:
        child = program(_POD, path, user, key, options, _GROUP)
        out, err = child.communicate(timeout=60)
        assert child.returncode == 0, err
        return str(out).strip()

    return start


class TestFsGroup:
    @pytest.mark.parametrize("below", ["store.db", "deeper/store.db"])
    def test_a_store_on_such_a_volume_outlives_pods(self, volume: Path, pod: Any, below: str) -> None:
        """Though kubelet opens its files, and its key file, to the group each time, and users change."""
        path = volume / below
        kubelet(volume)
        assert pod(path, 1001) == "None"
        for before, user in ((1001, 1001), (1001, 1002), (1002, 1001)):
            kubelet(volume)
            assert pod(path, user) == f"b'{before}'"
        assert {stat.S_IMODE(each.stat().st_mode) & 0o007 for each in volume.rglob("*")} == {0}
        assert not [each for each in volume.rglob("*") if "refused" in each.name]

    def test_pods_of_other_users_share_it_at_the_same_time(self, volume: Path, pod: Any, program: Any) -> None:
        """Without another start of either."""
        kubelet(volume)
        first = program(_POD, volume / "store.db", 1001, KEY.hex(), f"dict(trusted_group={_GROUP})", _GROUP, "stay")
        assert first.stdout.readline() == "None\n"
        assert first.stdout.readline() == "ready\n"
        assert pod(volume / "store.db", 1002, key=KEY.hex()) == "b'1001'"
        out, err = first.communicate("\n", timeout=30)
        assert first.returncode == 0, f"{out} {err}"

    def test_without_the_option_it_is_refused_with_it_named(self, volume: Path, pod: Any) -> None:
        """The group may be anybody's."""
        kubelet(volume)
        for _ in range(2):
            assert f"give trusted_group={_GROUP}" in pod(volume / "store.db", 1001, "{}", KEY.hex())

    @pytest.mark.parametrize("change", ["other group", "world", "another user's file", "directory of another group"])
    def test_with_it_nobody_else_gets_in(self, volume: Path, pod: Any, change: str) -> None:
        """Neither another group, nor everybody, nor a file that isn't the group's."""
        path = volume / "store.db"
        kubelet(volume)
        assert pod(path, 1001, key=KEY.hex()) == "None"
        kubelet(volume)
        if change == "other group":
            os.chown(path, 1001, 4321)
        elif change == "world":
            path.chmod(0o664)
        elif change == "another user's file":
            os.chown(path, 1002, 4321)
            path.chmod(0o600)
        else:
            os.chown(volume, 0, 4321)
            volume.chmod(0o2775)
        said = pod(path, 1001, key=KEY.hex())
        assert any(words in said for words in ("is open to others", "belongs to user", "others can write")), said

    def test_a_directory_whose_files_would_not_take_its_group_is_refused(self, volume: Path, pod: Any) -> None:
        """The error names the command."""
        os.chown(volume, 0, _GROUP)
        volume.chmod(0o770)
        assert f"chmod g+s {volume}" in pod(volume / "store.db", 1001, key=KEY.hex())

    @pytest.mark.parametrize("group", [-1, 2.5, "users", True])
    def test_a_wrong_group_is_named(self, directory: Path, group: Any) -> None:
        """It is a number."""
        with pytest.raises(ConfigurationError, match="trusted_group"):
            FileStore(directory / "a.db", KEY, trusted_group=group)


@pytest.fixture
def secret(directory: Path) -> Iterator[Path]:
    """A Secret as Kubernetes mounts it: a link to a link to root's file, on a read-only file system."""
    where = directory / "secret"
    where.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", where], capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        (where / "..2026_11").mkdir()
        (where / "..2026_11/key").write_bytes(KEY)
        (where / "..data").symlink_to("..2026_11")
        (where / "key").symlink_to("..data/key")
        yield where / "key"
    finally:
        subprocess.run(["umount", "-l", where], check=True)


class TestSecrets:
    @pytest.mark.parametrize("mode", [0o400, 0o440, 0o444])
    def test_a_mounted_one_is_taken_where_it_is_named(self, directory: Path, secret: Path, mode: int) -> None:
        """By `MountedKey`; a path alone says nothing of a mount, and names it."""
        secret.chmod(mode)
        subprocess.run(["mount", "-o", "remount,ro", secret.parent], check=True)
        (key,) = load_keys(MountedKey(secret), label="file")
        assert key.id == load_keys(KEY, label="file")[0].id
        with FileStore(directory / "a.db", MountedKey(secret)) as store:
            assert store.write("token", "a", b"x", ttl=60)
        if mode != 0o400:
            with pytest.raises(ConfigurationError, match="give MountedKey"):
                load_keys(secret, label="file")

    def test_a_file_that_isnt_mounted_read_only_is_refused(self, secret: Path) -> None:
        """Anybody's mistake could have opened that one."""
        secret.chmod(0o444)
        with pytest.raises(ConfigurationError, match="read-only mount"):
            load_keys(MountedKey(secret), label="file")

    @pytest.mark.parametrize("how", ["group may write", "another user's"])
    def test_one_that_others_may_replace_is_refused(self, secret: Path, how: str) -> None:
        """Read-only here needn't be read-only where it comes from."""
        secret.chmod(0o464 if how == "group may write" else 0o444)
        if how == "another user's":
            os.chown(secret, 4321, -1)
        subprocess.run(["mount", "-o", "remount,ro", secret.parent], check=True)
        with pytest.raises(ConfigurationError, match=r"read-only mount|belongs to user 4321"):
            load_keys(MountedKey(secret), label="file")

    def test_one_that_isnt_there_says_what_to_do(self, directory: Path) -> None:
        """And a wrong argument is named."""
        with pytest.raises(ConfigurationError, match="mount the Secret"):
            load_keys(MountedKey(directory / "key"), label="file")
        for wrong in (b"x", None, ""):
            with pytest.raises(ConfigurationError, match="MountedKey needs"):
                MountedKey(wrong)  # type: ignore[arg-type]
        assert "key" in repr(MountedKey("/run/secrets/key"))


def test_a_process_without_a_home_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """An arbitrary user id of a container has neither HOME nor an entry in passwd."""
    text = """
import os, resilient_auth, sys, tempfile, pathlib
with tempfile.TemporaryDirectory() as warm, resilient_auth.FileStore(pathlib.Path(warm, "a.db")): pass
import pwd
os.environ.pop("HOME", None)
os.setuid(54321)
for make in (resilient_auth.FileStore, resilient_auth.FileStore.for_desktop):
    try:
        make("~/tokens.db")
    except resilient_auth.ConfigurationError as error:
        print(error)
"""
    ran = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout.count("set HOME, or give an absolute path") == 2, ran.stderr
