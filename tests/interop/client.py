"""Sends a fixed set of metrics with the PyPI client `statsd`; tests/interop.rs knows the outcome.

Usage: client.py HOST PORT
"""

import datetime
import sys

import statsd


def main():
    client = statsd.StatsClient(sys.argv[1], int(sys.argv[2]), prefix="shop")

    for _ in range(100):
        client.incr("orders")
    client.incr("orders", 11, rate=1)
    client.decr("stock", 2)

    with client.pipeline() as pipe:
        # One datagram, so that no flush can fall between the values of one timer or set.
        for milliseconds in (450, 120, 553, 994, 334, 844, 675, 496):
            pipe.timing("checkout", milliseconds)
        pipe.timing("upload", datetime.timedelta(seconds=1, milliseconds=250))
        for user in ("ann", "bob", "ann", "eve"):
            pipe.set("users", user)
        pipe.incr("carts", 2.5)
        pipe.incr("carts", 0.25)

    client.gauge("queue", 100)
    client.gauge("queue", 5, delta=True)
    client.gauge("queue", -30, delta=True)
    # The client turns a negative absolute value into a zero followed by a delta.
    client.gauge("celsius", 20)
    client.gauge("celsius", -7.5)

    @client.timer("decorated")
    def work():
        return sum(range(1000))

    for _ in range(3):
        work()
    with client.timer("block"):
        pass
    stopwatch = client.timer("stopwatch").start()
    stopwatch.stop()


if __name__ == "__main__":
    main()
