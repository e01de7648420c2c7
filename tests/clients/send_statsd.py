"""Sends a fixed set of metrics with the PyPI client `statsd`; tests/clients.rs knows the outcome.

Usage: send_statsd.py udp HOST PORT | tcp HOST PORT | unix PATH
"""

import sys

import statsd


def client(transport, *address):
    if transport == "udp":
        return statsd.StatsClient(address[0], int(address[1]), prefix="shop")
    if transport == "tcp":
        return statsd.TCPStatsClient(address[0], int(address[1]), prefix="shop")
    return statsd.UnixSocketStatsClient(address[0], prefix="shop")


def main():
    sender = client(*sys.argv[1:])
    for _ in range(10):
        sender.incr("orders")
    sender.decr("orders", 2)
    sender.timing("page", 320)
    sender.gauge("queue", 7)
    sender.gauge("queue", -2, delta=True)
    sender.set("users", "ann")
    with sender.pipeline() as pipe:
        pipe.incr("packed", 3)
        pipe.timing("page", 80)
        pipe.set("users", "bob")
    sender.close()


if __name__ == "__main__":
    main()
