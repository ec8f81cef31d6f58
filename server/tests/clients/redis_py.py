"""redis-py against a running server: usage `redis_py.py UNIX_SOCKET TCP_PORT`.

Every test runs over the Unix socket and over TCP, with RESP2 and with RESP3. The keyspace is emptied
before each test, so the order of tests does not matter.
"""

import sys
import threading
import unittest

import redis

SOCKET, PORT = sys.argv[1], int(sys.argv[2])


def text(value):
    """Releases of redis-py differ in which replies they decode."""
    return value.decode() if isinstance(value, bytes) else value


class Behaviour:
    """The tests; each subclass below runs them over its own kind of connection."""

    protocol = 2

    def connect(self, **options):
        raise NotImplementedError

    def setUp(self):
        self.client = self.connect()
        self.client.flushall()

    def tearDown(self):
        self.client.close()

    def test_strings(self):
        client = self.client
        self.assertTrue(client.set("key", "value"))
        self.assertEqual(client.get("key"), b"value")
        self.assertIsNone(client.get("missing"))
        self.assertIsNone(client.set("key", "other", nx=True))
        self.assertEqual(client.set("key", "other", get=True), b"value")
        self.assertEqual(client.append("key", "!"), 6)
        self.assertEqual(client.strlen("key"), 6)
        self.assertEqual(client.getrange("key", 0, 2), b"oth")
        self.assertEqual(client.setrange("key", 5, "?"), 6)
        self.assertEqual(client.getdel("key"), b"other?")
        self.assertEqual(client.exists("key"), 0)
        self.assertTrue(client.setnx("key", "a"))
        self.assertEqual(client.getset("key", "b"), b"a")
        everything = bytes(range(256))
        client.set(everything, everything)
        self.assertEqual(client.get(everything), everything)
        large = b"x" * (5 << 20)
        client.set("large", large)
        self.assertEqual(client.get("large"), large)

    def test_numbers(self):
        client = self.client
        self.assertEqual(client.incr("n"), 1)
        self.assertEqual(client.incrby("n", 41), 42)
        self.assertEqual(client.decr("n", 2), 40)
        self.assertEqual(client.incrbyfloat("f", 1.5), 1.5)
        client.set("text", "abc")
        with self.assertRaisesRegex(redis.ResponseError, "not an integer"):
            client.incr("text")

    def test_many_keys(self):
        client = self.client
        numbers = {f"key:{number}": str(number) for number in range(500)}
        self.assertTrue(client.mset(numbers))
        self.assertEqual(client.mget(list(numbers)), [value.encode() for value in numbers.values()])
        self.assertEqual(client.dbsize(), 500)
        self.assertFalse(client.msetnx({"key:7": "x", "fresh": "x"}))
        self.assertTrue(client.msetnx({"fresh:1": "x", "fresh:2": "x"}))
        self.assertEqual(client.delete(*numbers), 500)
        self.assertEqual(client.unlink("fresh:1", "fresh:2", "fresh:3"), 2)
        self.assertEqual(client.dbsize(), 0)

    def test_expiry(self):
        client = self.client
        client.set("key", "value", ex=1000)
        self.assertTrue(900 < client.ttl("key") <= 1000)
        self.assertTrue(client.persist("key"))
        self.assertEqual(client.ttl("key"), -1)
        self.assertEqual(client.ttl("missing"), -2)
        self.assertTrue(client.expire("key", 500, nx=True))
        self.assertFalse(client.expire("key", 400, gt=True))
        self.assertTrue(client.pexpireat("key", 33177117420123))
        self.assertEqual(client.pexpiretime("key"), 33177117420123)
        self.assertEqual(client.getex("key", persist=True), b"value")
        self.assertEqual(client.expiretime("key"), -1)
        self.assertTrue(client.expireat("key", 1))
        self.assertIsNone(client.get("key"))

    def test_keys(self):
        client = self.client
        client.set("a", "1", ex=1000)
        self.assertTrue(client.rename("a", "b"))
        self.assertTrue(client.copy("b", "c"))
        self.assertFalse(client.copy("b", "c"))
        self.assertFalse(client.renamenx("b", "c"))
        self.assertEqual(client.type("c"), b"string")
        self.assertEqual(client.touch("b", "c", "missing"), 2)
        self.assertIn(client.randomkey(), (b"b", b"c"))
        self.assertTrue(client.move("c", 5))
        with self.assertRaisesRegex(redis.ResponseError, "no such key"):
            client.rename("missing", "x")
        other = self.connect(db=5)
        self.assertEqual(other.get("c"), b"1")
        other.close()

    def test_scan(self):
        client = self.client
        names = {f"key:{number}".encode() for number in range(3000)}
        pipeline = client.pipeline(transaction=False)
        for name in names:
            pipeline.set(name, "x")
        pipeline.execute()
        self.assertEqual(set(client.scan_iter()), names)
        self.assertEqual(set(client.scan_iter(count=7)), names)
        self.assertEqual(set(client.scan_iter(match="key:29*", count=100)), {n for n in names if n.startswith(b"key:29")})
        self.assertEqual(list(client.scan_iter(_type="hash")), [])
        self.assertEqual(set(client.keys("key:1?")), {f"key:{number}".encode() for number in range(10, 20)})

    def test_pipeline(self):
        pipeline = self.client.pipeline(transaction=False)
        for number in range(2000):
            pipeline.set(f"key:{number}", number)
            pipeline.get(f"key:{number}")
            pipeline.incr("counter")
        pipeline.execute_command("BOGUS")
        replies = pipeline.execute(raise_on_error=False)
        self.assertEqual(len(replies), 6001)
        self.assertIsInstance(replies.pop(), redis.ResponseError)
        for number in range(2000):
            self.assertEqual(replies[3 * number : 3 * number + 3], [True, str(number).encode(), number + 1])

    def test_decoded_replies(self):
        client = self.connect(decode_responses=True)
        client.set("k\u20ac", "v\u20ac")
        self.assertEqual(client.get("k\u20ac"), "v\u20ac")
        self.assertEqual(client.keys(), ["k\u20ac"])
        client.close()

    def test_server(self):
        client = self.client
        self.assertTrue(client.ping())
        self.assertEqual(client.echo("hello"), b"hello")
        self.assertIn("redis_version", client.info())
        self.assertIn("used_memory", client.info("memory"))
        self.assertEqual([text(part) for pair in client.config_get("databases").items() for part in pair], ["databases", "16"])
        self.assertTrue(client.config_set("timeout", 0))
        self.assertEqual(len(client.time()), 2)
        self.assertTrue(client.client_setname("me"))
        self.assertEqual(text(client.client_getname()), "me")
        self.assertGreater(client.client_id(), 0)
        mine = client.client_info()
        self.assertEqual(mine["name"], "me")
        self.assertIn(int(mine["id"]), [int(entry["id"]) for entry in client.client_list()])
        self.assertGreater(client.command_count(), 50)
        self.assertIn("get", client.command())
        self.assertEqual([text(key) for key in client.command_getkeys("MSET", "a", 1, "b", 2)], ["a", "b"])
        self.assertEqual(client.object("encoding", "missing"), None)
        client.set("n", 1)
        self.assertEqual(client.object("encoding", "n"), b"int")
        self.assertGreater(client.memory_usage("n"), 0)
        self.assertEqual(client.lcs("n", "n"), b"1")
        self.assertEqual(client.wait(0, 0), 0)

    def test_many_threads_share_a_pool(self):
        threads_count, steps = 8, 300
        failures = []

        def work():
            try:
                for _ in range(steps):
                    self.client.incr("shared")
            except redis.RedisError as error:
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(threads_count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        self.assertEqual(int(self.client.get("shared")), threads_count * steps)


class Unix2(Behaviour, unittest.TestCase):
    def connect(self, **options):
        return redis.Redis(unix_socket_path=SOCKET, protocol=self.protocol, socket_timeout=60, **options)


class Tcp2(Behaviour, unittest.TestCase):
    def connect(self, **options):
        return redis.Redis(host="127.0.0.1", port=PORT, protocol=self.protocol, socket_timeout=60, **options)


class Unix3(Unix2):
    protocol = 3


class Tcp3(Tcp2):
    protocol = 3


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
