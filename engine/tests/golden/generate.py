#!/usr/bin/env python3
"""Makes the golden files anew, in this folder, with the redis-server in PATH (7.0.15 made those that are kept).

What it writes differs from the kept files in times and memory figures alone."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile


class Redis:
    def __init__(self, folder):
        path = os.path.join(folder, "socket")
        options = ["--port", "0", "--unixsocket", path, "--dir", folder, "--save", ""]
        self.folder = folder
        self.process = subprocess.Popen(["redis-server", *options], stdout=subprocess.PIPE, text=True)
        for line in self.process.stdout:
            if "ready to accept connections" in line and "socket" in line:
                break
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.connect(path)
        self.replies = self.connection.makefile("rb")

    def run(self, *words):
        words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        request = b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
        self.connection.sendall(b"*%d\r\n%s" % (len(words), request))
        reply = self.replies.readline()
        if reply.startswith(b"-"):
            sys.exit(reply.decode())
        if reply.startswith(b"$"):
            return self.replies.read(int(reply[1:]) + 2)[:-2]
        return reply

    def keep(self, name):
        self.run("SAVE")
        shutil.copy(os.path.join(self.folder, "dump.rdb"), name + ".rdb")
        self.run("FLUSHALL")
        self.run("SELECT", 0)


def strings(redis):
    for number in [0, 1, -1, 127, 128, -128, -129, 32767, 32768, -32768, -32769, 2147483647, 2147483648,
                   -2147483648, -2147483649, 9223372036854775807, -9223372036854775808]:
        redis.run("SET", "int:%d" % number, number)
    for text in ["007", "-0", "+1", " 1", "1.5", "99999999999999999999"]:
        redis.run("SET", "text:" + text, text)
    redis.run("SET", "12345", "an integer for a key")
    redis.run("SET", "", "an empty key")
    redis.run("SET", "empty", "")
    redis.run("SET", b"\x00\xff\r\n", bytes(range(256)))
    redis.run("SET", "key:" + "k" * 300, "a long key")
    redis.run("SELECT", 1)
    redis.run("SET", "expires:far", "v", "PXAT", 4102444800123)
    redis.run("SET", "expires:latest", "5", "PXAT", 281474976710655)
    redis.run("SELECT", 15)
    redis.run("SET", "20", "x" * 20)
    redis.run("SET", "21", "x" * 21)
    redis.run("SET", "1000", "x" * 1000)
    words = ["word %d of a long text;" % (number * number % 97) for number in range(300)]
    redis.run("SET", "words", " ".join(words))
    redis.run("SET", "20000", "0123456789abcdef" * 1250)
    redis.run("SET", "expires:compressed", "abc" * 100, "PXAT", 4102444800000)


def accesses(redis, option, number):
    redis.run("SET", "v", "v")
    payload = redis.run("DUMP", "v")
    redis.run("RESTORE", "old", 0, payload, option, number)
    redis.run("RESTORE", "expires", 4102444800000, payload, "ABSTTL", option, number)
    redis.run("DEL", "v")


def main():
    with tempfile.TemporaryDirectory() as folder:
        redis = Redis(folder)
        try:
            redis.keep("empty")
            strings(redis)
            redis.keep("strings")
            redis.run("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
            accesses(redis, "IDLETIME", 1000)
            redis.keep("idle")
            redis.run("CONFIG", "SET", "maxmemory-policy", "allkeys-lfu")
            accesses(redis, "FREQ", 200)
            redis.keep("frequency")
            redis.run("CONFIG", "SET", "maxmemory-policy", "noeviction")
            for name, command in [
                ("list", ["RPUSH", "a list", "v"]),
                ("set", ["SADD", "a set", "v"]),
                ("sorted_set", ["ZADD", "a sorted set", 1, "v"]),
                ("hash", ["HSET", "a hash", "field", "v"]),
                ("stream", ["XADD", "a stream", "1-1", "field", "v"]),
                ("function", ["FUNCTION", "LOAD", "#!lua name=library\n"
                              "redis.register_function('f', function() return 1 end)"]),
            ]:
                redis.run(*command)
                redis.keep(name)
        finally:
            redis.process.terminate()
            redis.process.wait()


if __name__ == "__main__":
    main()
