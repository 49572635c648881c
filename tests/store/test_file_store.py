"""A file that survives restarts, kills and damage, and that nobody else can read."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from store_media import KEY, OTHER_KEY

from resilient_auth import ConfigurationError, FileStore, StoreUnavailable
from resilient_auth._store.paths import exclusive
from resilient_auth.events import StoreFailed, StoreRecovered, StoreRejected
from resilient_auth.store import BackendFailed
from resilient_auth.testing import ManualClock, capture_events, no_jitter

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs a user that may mount and change owners")


def value_of(store: FileStore, name: str = "a", kind: str = "token") -> bytes | None:
    found = store.read(kind, name)
    return None if found is None else found.value


def modes_in(directory: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.lstat().st_mode) for path in directory.iterdir()}


def made(path: Path, key: Any = KEY, **records: bytes) -> None:
    """Make a store with some records, and close it."""
    with FileStore(path, key) as store:
        for name, value in (records or {"a": b"SECRET" * 50}).items():
            store.write("token", name, value, ttl=3600)


@pytest.fixture
def path(directory: Path) -> Path:
    return directory / "tokens.db"


class TestKeeping:
    def test_a_restart_finds_what_was_written(self, path: Path) -> None:
        """Records, versions and fences outlive the process."""
        with FileStore(path, KEY) as store:
            version = store.write("token", "a", b"x", ttl=60)
            lease = store.lease("a", 5)
            assert lease is not None
            store.release(lease)
        with FileStore(path, KEY) as store:
            found = store.read("token", "a")
            assert found is not None
            assert (found.value, found.version) == (b"x", version)
            later = store.lease("a", 5)
            assert later is not None
            assert later.fence > lease.fence

    @pytest.mark.parametrize("umask", [0o000, 0o777])
    def test_nobody_else_can_read_any_of_its_files(self, directory: Path, umask: int) -> None:
        """From their first byte, while it is open, after damage, and whatever the umask."""
        before = os.umask(umask)
        try:
            path = directory / "deeper" / "tokens.db"
            if umask:
                path = directory / "tokens.db"
            with FileStore(path) as store:
                store.write("token", "a", b"x", ttl=60)
                while_open = modes_in(path.parent)
            path.write_bytes(b"garbage" * 1000)
            with FileStore(path) as store:
                store.write("token", "a", b"x", ttl=60)
        finally:
            os.umask(before)
        assert set(while_open) >= {"tokens.db", "tokens.db-wal", "tokens.db.key"}
        assert "tokens.db.refused-1" in modes_in(path.parent)
        assert while_open["tokens.db"] == while_open["tokens.db-wal"] == 0o600
        assert not [name for name, mode in (while_open | modes_in(path.parent)).items() if mode & 0o077]
        assert not path.parent.stat().st_mode & 0o077

    def test_none_of_its_bytes_tell_a_token_or_a_name(self, path: Path) -> None:
        """Neither while it is open nor afterwards."""
        seen = b""
        with FileStore(path, KEY, owner="web-shop") as store:
            for number in range(30):
                store.write("token", f"alice-{number}@example.com", b"eyJ0eXAi.SECRET" * 20, ttl=60)
            store.lease("alice@example.com", 5)
            seen += b"".join(file.read_bytes() for file in path.parent.iterdir())
        seen += b"".join(file.read_bytes() for file in path.parent.iterdir())
        for word in (b"alice", b"example", b"SECRET", b"web-shop", KEY):
            assert word not in seen

    def test_a_life_is_measured_by_the_clock_and_what_is_over_is_swept(self, path: Path) -> None:
        """An expired record is a miss at once, and its bytes go with later writes."""
        clock = ManualClock(1_800_000_000.0)
        with FileStore(path, KEY, clock=clock) as store:
            for number in range(50):
                store.write("token", str(number), b"x", ttl=60)
            clock.advance(61)
            assert value_of(store, "1") is None
            assert list(store.scan("token")) == []
            clock.advance(3600)
            for number in range(3):
                store.write("token", f"new-{number}", b"x", ttl=60)
        with contextlib.closing(sqlite3.connect(path)) as db:
            assert db.execute("SELECT count(*) FROM records WHERE key LIKE 'token.%'").fetchone() == (3,)

    def test_a_key_file_is_made_once_by_whoever_is_first(self, path: Path, program: Any) -> None:
        """Processes that start together on nothing end up with one key and one file."""
        text = """
import sys, resilient_auth
sys.stdin.readline()
with resilient_auth.FileStore(sys.argv[1]) as store:
    store.write("token", sys.argv[2], b"x", ttl=600)
    print(store.write("token", "shared", sys.argv[2].encode(), ttl=600, expected=None))
"""
        children = [program(text, path, number) for number in range(4)]
        ends = [child.communicate("go\n", timeout=30) for child in children]
        assert [child.returncode for child in children] == [0] * 4, ends
        assert sum(out.strip() != "None" for out, _ in ends) == 1
        with FileStore(path) as store:
            assert {record.name for record in store.scan("token")} == {*"0123", "shared"}
        assert not [name for name in modes_in(path.parent) if "refused" in name]

    def test_a_stores_threads_share_it(self, path: Path) -> None:
        """Comparisons hold between threads of one store, and nothing fails."""
        failures: list[BaseException] = []
        with FileStore(path, KEY, timeout=20.0) as store:
            store.write("token", "count", b"0", ttl=60)

            def count() -> None:
                try:
                    for _ in range(10):
                        while True:
                            found = store.read("token", "count")
                            assert found is not None
                            more = b"%d" % (int(found.value) + 1)
                            if store.write("token", "count", more, ttl=60, expected=found.version):
                                break
                except BaseException as error:
                    failures.append(error)

            threads = [threading.Thread(target=count) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert not failures
            assert value_of(store, "count") == b"80"


class TestDyingProcesses:
    def test_an_acknowledged_write_survives_sigkill(self, path: Path, program: Any) -> None:
        """Whenever it strikes."""
        text = """
import sys, resilient_auth
store = resilient_auth.FileStore(sys.argv[1])
for number in range(100_000):
    store.write("token", sys.argv[2], b"%d" % number, ttl=600)
    print(number, flush=True)
"""
        acknowledged: dict[str, int] = {}
        for turn in range(6):
            child = program(text, path, turn)
            child.stdout.readline()
            time.sleep(0.005 * turn)
            child.kill()
            # What readline had read ahead is in the same buffer: communicate() would miss it.
            acknowledged[str(turn)] = int((child.stdout.read().strip() or "0").split("\n")[-1])
        with FileStore(path) as store:
            for name, number in acknowledged.items():
                found = value_of(store, name)
                assert found is not None
                assert int(found) in (number, number + 1)

    @pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes can be told apart on Linux")
    def test_a_dead_holders_lease_is_taken_over_at_once_and_a_living_ones_is_not(
        self, path: Path, program: Any
    ) -> None:
        """On one machine, nobody waits for a lease of a process that is gone."""
        text = """
import sys, resilient_auth
store = resilient_auth.FileStore(sys.argv[1])
print(store.lease("a", 600).fence, flush=True)
sys.stdin.readline()
"""
        child = program(text, path)
        fence = int(child.stdout.readline())
        with FileStore(path) as store:
            assert store.lease("a", 5) is None
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
            lease = store.lease("a", 5)
            assert lease is not None
            assert lease.fence > fence

    def test_a_lease_ends_at_its_time_whatever_the_wall_clock_does(self, path: Path) -> None:
        """It is measured on the clock that all processes of a machine share and nobody sets."""
        clock = ManualClock(1_800_000_000.0)
        with FileStore(path, KEY, clock=clock) as store:
            first = store.lease("a", 10)
            clock.jump(600)
            assert store.lease("a", 10) is None
            clock.jump(-1200)
            clock.advance(10.1)
            second = store.lease("a", 10)
            assert first is not None
            assert second is not None
            assert second.fence > first.fence
            assert store.renew(first, 10) is None
            store.release(first)
            assert store.lease("a", 10) is None

    def test_a_lease_of_before_the_machine_was_started_again_is_over(self, path: Path) -> None:
        """The clock of leases began anew."""
        before, after = ManualClock(1_800_000_000.0), ManualClock(1_800_000_100.0)
        before.advance(5_000)
        with FileStore(path, KEY, clock=before) as store:
            assert store.lease("a", 600)
        with FileStore(path, KEY, clock=after) as store:
            assert store.lease("a", 600)

    def test_a_forked_child_works_and_so_does_its_parent(self, path: Path, program: Any) -> None:
        """While threads of the parent write."""
        text = """
import os, sys, threading, resilient_auth
store = resilient_auth.FileStore(sys.argv[1], timeout=20.0)
over = threading.Event()
def write(number):
    turn = 0
    while not over.is_set():
        turn += 1
        store.write("token", f"thread-{number}", b"%d" % turn, ttl=600)
threads = [threading.Thread(target=write, args=(n,)) for n in range(3)]
for thread in threads: thread.start()
for number in range(8):
    pid = os.fork()
    if not pid:
        try:
            store.write("token", f"child-{number}", b"x", ttl=600)
            assert store.read("token", f"child-{number}").value == b"x"
            assert store.read("token", "thread-0") is not None or number == 0
        except BaseException:
            import traceback; traceback.print_exc(); os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
over.set()
for thread in threads: thread.join()
print(sorted(record.name for record in store.scan("token")))
"""
        child = program(text, path)
        out, err = child.communicate(timeout=60)
        assert child.returncode == 0, err
        assert all(f"child-{number}" in out for number in range(8))


class TestDamage:
    def test_every_edited_byte_is_a_clean_start_or_a_miss(self, path: Path) -> None:
        """Never a crash, never another value than what was written, and the store works again."""
        made(path, a=b"A" * 900, b=b"B" * 5000)
        whole = path.read_bytes()
        step = max(1, len(whole) // 100)
        # The first page's header is where SQLite, and we, look first.
        for position in sorted({*range(100), *range(100, len(whole), step)}):
            for file in path.parent.iterdir():
                file.unlink()
            path.write_bytes(whole[:position] + bytes((whole[position] ^ 0x55,)) + whole[position + 1 :])
            path.chmod(0o600)
            with FileStore(path, KEY) as store:
                assert value_of(store, "a") in (None, b"A" * 900), position
                assert value_of(store, "b") in (None, b"B" * 5000), position
                assert {record.name for record in store.scan("token")} <= {"a", "b"}
                assert store.write("token", "a", b"new", ttl=60), position
                assert value_of(store, "a") == b"new", position

    @pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.3, 0.5, 0.9, 0.999])
    def test_a_truncated_file_is_a_clean_start(self, path: Path, share: float) -> None:
        """Wherever it was cut."""
        made(path)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * share)])
        with FileStore(path, KEY) as store:
            assert value_of(store) in (None, b"SECRET" * 50)
            assert store.write("token", "a", b"new", ttl=60)
        with FileStore(path, KEY) as store:
            assert value_of(store) == b"new"

    @pytest.mark.parametrize("content", [b"not a database", b"\0" * 8192, b"SQLite format 3\0" + b"\xff" * 8000])
    def test_a_foreign_file_is_set_aside_and_told(self, path: Path, content: bytes) -> None:
        """It is kept, closed to others, for whoever looks into it."""
        path.write_bytes(content)
        path.chmod(0o600)
        with capture_events() as events, FileStore(path, KEY) as store:
            (told,) = events.wait_for(StoreRejected)
            assert (told.kind, told.code) == ("file", "malformed")
            assert store.write("token", "a", b"x", ttl=60)
        aside = path.with_name("tokens.db.refused-1")
        assert aside.read_bytes() == content
        assert stat.S_IMODE(aside.stat().st_mode) == 0o600

    def test_another_applications_database_is_refused(self, path: Path) -> None:
        """Neither written into nor moved away from under it."""
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("CREATE TABLE theirs (x)")
            db.commit()
        path.chmod(0o600)
        before = path.read_bytes()
        with pytest.raises(ConfigurationError, match="another application"):
            FileStore(path, KEY)
        assert path.read_bytes() == before
        assert not [name for name in modes_in(path.parent) if "refused" in name]

    def test_a_trigger_put_into_it_never_runs(self, path: Path) -> None:
        """What has more in it than we made is set aside."""
        made(path)
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("CREATE TRIGGER t AFTER INSERT ON records BEGIN DELETE FROM records; END")
            db.commit()
        with FileStore(path, KEY) as store:
            store.write("token", "b", b"x", ttl=60)
            assert value_of(store, "b") == b"x"

    def test_what_is_set_aside_is_bounded(self, path: Path) -> None:
        """A disk that damages every file isn't filled with them."""
        for _ in range(7):
            path.write_bytes(os.urandom(5000))
            path.chmod(0o600)
            FileStore(path, KEY).close()
        assert sorted(name for name in modes_in(path.parent) if "refused" in name) == [
            f"tokens.db.refused-{number}" for number in (1, 2, 3)
        ]

    def test_damage_under_a_running_store_is_a_clean_start(self, path: Path) -> None:
        """And a file that vanishes is made anew."""
        with FileStore(path, KEY) as store:
            store.write("token", "a", b"x", ttl=60)
            fresh = path.with_name("garbage")
            fresh.write_bytes(b"garbage" * 1000)
            fresh.chmod(0o600)
            fresh.replace(path)
            assert value_of(store) in (None, b"x")  # the log may have held it
            assert store.write("token", "a", b"y", ttl=60)
            assert value_of(store) == b"y"
            path.unlink()
            assert value_of(store) is None
            assert store.write("token", "a", b"z", ttl=60)
        with FileStore(path, KEY) as store:
            assert value_of(store) == b"z"

    def test_processes_that_find_damage_together_begin_one_new_file(self, path: Path, program: Any) -> None:
        """None of them sets aside what another one has just begun."""
        path.write_bytes(b"garbage" * 1000)
        path.chmod(0o600)
        text = """
import sys, resilient_auth
sys.stdin.readline()
key = bytes.fromhex(sys.argv[3])
with resilient_auth.FileStore(sys.argv[1], key, timeout=20.0) as store:
    store.write("token", sys.argv[2], b"x", ttl=600)
"""
        children = [program(text, path, number, KEY.hex()) for number in range(4)]
        for child in children:
            _, err = child.communicate("go\n", timeout=30)
            assert child.returncode == 0, err
        with FileStore(path, KEY) as store:
            assert {record.name for record in store.scan("token")} == set("0123")
        assert [name for name in modes_in(path.parent) if "refused" in name] == ["tokens.db.refused-1"]

    def test_a_good_file_that_came_meanwhile_is_not_set_aside(self, path: Path) -> None:
        """Another process had begun it between the look and the deed."""
        made(path)
        good = path.read_bytes()
        path.write_bytes(b"garbage" * 1000)
        found: list[bytes | None] = []

        def start() -> None:
            with FileStore(path, KEY, timeout=10.0) as store:
                found.append(value_of(store))

        with exclusive(path.with_name("tokens.db.lock"), 1.0):
            starting = threading.Thread(target=start)
            starting.start()
            time.sleep(0.3)  # it looks, and waits for its turn
            assert starting.is_alive()
            replacement = path.with_name("replacement")
            replacement.write_bytes(good)
            replacement.chmod(0o600)
            replacement.replace(path)
        starting.join()
        assert found == [b"SECRET" * 50]
        assert not [name for name in modes_in(path.parent) if "refused" in name]

    def test_one_process_at_a_time_sets_a_file_up(self, path: Path) -> None:
        """The others wait, and not for ever."""
        with exclusive(path, 1.0), pytest.raises(BackendFailed, match="busy"), exclusive(path, 0.05):
            pass
        with exclusive(path, 1.0):
            pass


class TestBinding:
    def test_a_copy_is_refused_elsewhere_and_the_original_is_untouched(self, path: Path) -> None:
        """With its key file beside it, too."""
        with FileStore(path) as store:
            store.write("token", "a", b"x", ttl=60)
        copy = path.with_name("copy.db")
        shutil.copy(path, copy)
        shutil.copy(f"{path}.key", f"{copy}.key")
        before = copy.read_bytes()
        with pytest.raises(ConfigurationError, match="bound_to_path=False"):
            FileStore(copy)
        assert copy.read_bytes() == before
        with FileStore(path) as store:
            assert value_of(store) == b"x"

    def test_a_file_that_lives_at_another_mount_is_refused_and_goes_on_living(
        self, path: Path, program: Callable[..., Any]
    ) -> None:
        """The error says which process has it open; whoever comes next doesn't destroy it either."""
        text = """
import sys, resilient_auth
store = resilient_auth.FileStore(sys.argv[1], bytes.fromhex(sys.argv[2]))
store.write("token", "a", b"x", ttl=60)
print("ready", flush=True)
sys.stdin.readline()
print(store.read("token", "a").value == b"x", flush=True)
"""
        child = program(text, path, KEY.hex())
        assert child.stdout.readline() == "ready\n"
        elsewhere = path.parent / "elsewhere"
        elsewhere.mkdir(mode=0o700)
        if subprocess.run(["mount", "--bind", path.parent, elsewhere], capture_output=True, check=False).returncode:
            pytest.skip("nothing can be mounted here")
        try:
            for _ in range(3):
                for where, options in ((elsewhere / path.name, {}), (path, {"owner": "two"}), (path, {"purpose": "x"})):
                    with pytest.raises(ConfigurationError, match="isn't taken from it") as refused:
                        FileStore(where, KEY, **options)
                    if os.path.exists("/proc/self/fd"):
                        assert f"process {child.pid}" in str(refused.value)
        finally:
            subprocess.run(["umount", "-l", elsewhere], check=True)
        out, err = child.communicate("\n", timeout=30)
        assert out == "True\n", err
        assert not [name for name in modes_in(path.parent) if "refused" in name]
        with FileStore(path, KEY) as store:
            assert value_of(store) == b"x"

    def test_a_file_may_move_where_its_owner_says_so(self, path: Path) -> None:
        """With `bound_to_path=False`."""
        with FileStore(path, KEY, bound_to_path=False) as store:
            store.write("token", "a", b"x", ttl=60)
        moved = path.rename(path.with_name("moved.db"))
        with FileStore(moved, KEY, bound_to_path=False) as store:
            assert value_of(store) == b"x"

    @pytest.mark.parametrize("options", [{"owner": "shop"}, {"purpose": "sessions"}])
    def test_another_owners_file_is_refused(self, path: Path, options: dict[str, str]) -> None:
        """Also with the right key."""
        made(path)
        with pytest.raises(ConfigurationError, match="another owner"):
            FileStore(path, KEY, **options)
        with FileStore(path, KEY) as store:
            assert value_of(store)

    def test_two_owners_at_odds_about_a_file_do_not_take_turns_in_throwing_it_away(self, path: Path) -> None:
        """The one whose file was replaced by hand is unavailable; it sets nothing aside."""
        made_by_two = path.with_name("two.db")
        with FileStore(made_by_two, KEY, owner="two", bound_to_path=False) as two:
            two.write("token", "a", b"two's", ttl=60)
        with FileStore(path, KEY, owner="one") as one:
            one.write("token", "a", b"one's", ttl=60)
            path.rename(path.with_name("one.db"))
            for suffix in ("-wal", "-shm"):
                path.with_name(f"{path.name}{suffix}").unlink(missing_ok=True)
            made_by_two.rename(path)
            with pytest.raises(StoreUnavailable, match="foreign"):
                one.read("token", "a")
        with FileStore(path, KEY, owner="two", bound_to_path=False) as two:
            assert value_of(two) == b"two's"
        assert not [name for name in modes_in(path.parent) if "refused" in name]

    def test_the_wrong_key_is_the_owners_to_mend(self, path: Path) -> None:
        """It is said at construction, and nothing is lost."""
        made(path)
        before = path.read_bytes()
        with pytest.raises(ConfigurationError, match="another key"):
            FileStore(path, OTHER_KEY)
        assert path.read_bytes() == before
        with FileStore(path, [OTHER_KEY, KEY]) as store:
            assert value_of(store)
        with FileStore(path, OTHER_KEY) as store:
            assert value_of(store) is None  # sealed by the key that was dropped, and not set aside as damaged

    def test_a_lost_key_file_is_the_owners_to_mend(self, path: Path) -> None:
        """A new one isn't made beside a file that it can't open."""
        made(path, None)
        path.with_name("tokens.db.key").unlink()
        with pytest.raises(ConfigurationError, match="another key"):
            FileStore(path)
        assert not path.with_name("tokens.db.key").exists()

    def test_a_newer_releases_file_is_the_owners_to_mend(self, path: Path) -> None:
        """It is left as it is."""
        made(path)
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute(f"PRAGMA user_version = {0x02020202}")
        with pytest.raises(ConfigurationError, match="newer release"):
            FileStore(path, KEY)
        assert not [name for name in modes_in(path.parent) if "refused" in name]


class TestWhatOthersCanReach:
    @pytest.mark.parametrize("suffix", ["", ".key", "-wal"])
    def test_a_file_open_to_others_is_the_owners_to_close(self, path: Path, suffix: str) -> None:
        """The error names the command."""
        made(path, None)
        exposed = path.with_name(path.name + suffix)
        exposed.touch()
        exposed.chmod(0o644)
        with pytest.raises(ConfigurationError, match=f"chmod 600 {exposed}"):
            FileStore(path)
        exposed.chmod(0o600)
        FileStore(path).close()

    def test_a_directory_that_others_can_write_to_is_refused(self, path: Path) -> None:
        """They could put another file in its place."""
        path.parent.chmod(0o777)
        with pytest.raises(ConfigurationError, match="chmod go-w"):
            FileStore(path, KEY)

    def test_links_pipes_and_directories_are_refused(self, path: Path) -> None:
        """Without following or waiting for them."""
        other = path.with_name("other")
        other.touch(mode=0o600)
        path.symlink_to(other)
        with pytest.raises(ConfigurationError, match="symbolic link"):
            FileStore(path, KEY)
        path.unlink()
        os.mkfifo(path, 0o600)
        with pytest.raises(ConfigurationError, match="regular file"):
            FileStore(path, KEY)
        path.unlink()
        path.mkdir()
        with pytest.raises(ConfigurationError, match="regular file"):
            FileStore(path, KEY)
        path.rmdir()
        os.link(other, path)
        with pytest.raises(ConfigurationError, match="second name"):
            FileStore(path, KEY)
        with pytest.raises(ConfigurationError, match="make it"):
            FileStore(path.parent / "no" / "such" / "tokens.db", KEY)

    @root
    def test_another_users_file_or_directory_is_refused(self, path: Path) -> None:
        """Whoever owns it can open it to himself again."""
        made(path)
        os.chown(path, 12345, -1)
        with pytest.raises(ConfigurationError, match="user 12345"):
            FileStore(path, KEY)
        os.chown(path, 0, -1)
        os.chown(path.parent, 12345, -1)
        with pytest.raises(ConfigurationError, match="user 12345"):
            FileStore(path, KEY)


@pytest.fixture
def small_disk(directory: Path) -> Iterator[Path]:
    """A disk of half a megabyte of its own."""
    where = directory / "disk"
    where.mkdir(mode=0o700)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k,mode=700", "tmpfs", str(where)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True)


class TestADiskThatFails:
    @root
    def test_a_full_one_still_gives_what_it_holds_and_recovers(self, small_disk: Path) -> None:
        """Also to a process that starts with it full."""
        path = small_disk / "tokens.db"
        clock = ManualClock()
        store = FileStore(path, KEY, clock=clock, jitter=no_jitter)
        store.write("token", "a", b"x", ttl=3600)
        filler = small_disk / "filler"
        with capture_events() as events:
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            failed = None
            for _ in range(200):  # the log has room for some more
                try:
                    store.write("token", "b", bytes(4000), ttl=3600)
                except StoreUnavailable as error:
                    failed = error
                    break
            assert failed is not None
            assert failed.reason == "full"
            assert value_of(store) == b"x"
            (told,) = events.wait_for(StoreFailed)
            assert told.code == "full"
            filler.unlink()
            clock.advance(30)
            assert store.write("token", "b", b"y", ttl=3600)
            events.wait_for(StoreRecovered)
        store.close()
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        with FileStore(path, KEY, clock=clock) as started_full:
            assert value_of(started_full) == b"x"
            with pytest.raises(StoreUnavailable):
                started_full.write("token", "b", bytes(4000), ttl=60)
            assert value_of(started_full) == b"x"
            filler.unlink()
            clock.advance(30)
            assert started_full.write("token", "b", b"z", ttl=60)
            assert value_of(started_full, "b") == b"z"

    @root
    def test_a_read_only_one_still_gives_what_it_holds(self, small_disk: Path) -> None:
        """And the application starts on one that holds nothing."""
        path, empty = small_disk / "tokens.db", small_disk / "other.db"
        made(path)
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
        clock = ManualClock()
        with FileStore(path, KEY, clock=clock) as store:
            assert value_of(store) == b"SECRET" * 50
            with pytest.raises(StoreUnavailable):
                store.write("token", "b", b"x", ttl=60)
            assert value_of(store) == b"SECRET" * 50
            with FileStore(empty) as other, pytest.raises(StoreUnavailable):
                other.read("token", "a")
            subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
            clock.advance(30)
            assert store.write("token", "b", b"x", ttl=60)
            assert value_of(store) == b"SECRET" * 50

    @root
    def test_one_that_was_read_only_for_a_while_keeps_what_it_holds(self, small_disk: Path) -> None:
        """A connection from before doesn't take the file for a damaged one."""
        path = small_disk / "tokens.db"
        made(path)
        clock = ManualClock()
        with FileStore(path, KEY, clock=clock) as keeps_the_log:
            assert value_of(keeps_the_log)
            keeps_the_log.write("token", "b", b"x", ttl=3600)
            copy_of_log = {name: (small_disk / name).read_bytes() for name in ("tokens.db-wal", "tokens.db-shm")}
        for name, content in copy_of_log.items():
            (small_disk / name).write_bytes(content)
            (small_disk / name).chmod(0o600)
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
        with FileStore(path, KEY, clock=clock) as store:
            with contextlib.suppress(StoreUnavailable):
                store.read("token", "a")
            subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
            clock.advance(30)
            assert store.write("token", "c", b"x", ttl=3600)
            assert value_of(store) == b"SECRET" * 50
        assert not [name for name in modes_in(small_disk) if "refused" in name]

    def test_a_file_that_may_not_grow_is_no_crash(self, path: Path, program: Any) -> None:
        """A limit on file sizes, as containers set it."""
        text = """
import resource, sys, resilient_auth
store = resilient_auth.FileStore(sys.argv[1])
store.write("token", "a", b"x", ttl=600)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
try:
    for _ in range(100):
        store.write("token", "b", bytes(10_000), ttl=600)
except resilient_auth.StoreUnavailable as error:
    print(error.reason, store.read("token", "a").value)
"""
        child = program(text, path)
        out, err = child.communicate(timeout=30)
        assert out.split() in (["io_error", "b'x'"], ["full", "b'x'"]), (out, err)
        with FileStore(path) as store:
            assert value_of(store) == b"x"

    def test_one_that_another_process_holds_costs_no_more_than_the_timeout(self, path: Path) -> None:
        """Reads go on meanwhile; the breaker answers the third write at once."""
        with FileStore(path, KEY, timeout=0.1) as store:
            store.write("token", "a", b"x", ttl=60)
            with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                for reason in ("busy", "busy", "circuit_open"):
                    began = time.monotonic()
                    with pytest.raises(StoreUnavailable) as failed:
                        store.write("token", "a", b"y", ttl=60)
                    assert failed.value.reason == reason
                    assert time.monotonic() - began < 1.0
                    assert value_of(store) == b"x"
                other.execute("ROLLBACK")


class TestDesktops:
    def test_the_platform_keeps_the_key(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """In its persistence, and nowhere else; a second start finds it there."""
        import msal_extensions
        from msal_extensions.persistence import PersistenceNotFound

        kept: dict[str, str] = {}

        class Keychain(msal_extensions.FilePersistence):  # type: ignore[misc]
            is_encrypted = True

            def save(self, content: str) -> None:
                kept[self.get_location()] = content

            def load(self) -> str:
                if self.get_location() not in kept:
                    raise PersistenceNotFound(location=self.get_location())
                return kept[self.get_location()]

        monkeypatch.setattr(msal_extensions, "build_encrypted_persistence", Keychain)
        with FileStore.for_desktop(path) as store:
            store.write("token", "a", b"x", ttl=60)
        with FileStore.for_desktop(path) as store:
            assert value_of(store) == b"x"
        (text,) = kept.values()
        assert len(base64.urlsafe_b64decode(text)) == 32
        assert not path.with_name("tokens.db.key").exists()

    def test_without_one_there_is_no_fallback_to_the_clear(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error says what to install."""
        import msal_extensions

        def nothing(location: str) -> Callable[[], None]:
            raise RuntimeError("SECRET detail")

        monkeypatch.setattr(msal_extensions, "build_encrypted_persistence", nothing)
        with pytest.raises(ConfigurationError, match="libsecret") as failed:
            FileStore.for_desktop(path)
        assert "SECRET" not in str(failed.value)
        assert not path.exists()
