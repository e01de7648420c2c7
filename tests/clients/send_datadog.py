"""Sends a fixed set of metrics with the PyPI client `datadog`; tests/clients.rs knows the outcome.

Usage: send_datadog.py URL plain|buffered|aggregated [marked]

URL is what DD_DOGSTATSD_URL would hold. With `marked`, every line has the fields by which an agent finds out
who sent it. Exits with 3 when the client says that it could not send everything.
"""

import os
import sys


def main():
    url, mode, marked = sys.argv[1], sys.argv[2], sys.argv[3:] == ["marked"]
    os.environ["DD_DOGSTATSD_URL"] = url
    if marked:
        os.environ["DD_EXTERNAL_ENV"] = "it-false,cn-shop,pu-0123"
    from datadog.dogstatsd import DogStatsd

    options = {}
    if marked:
        options = {"container_id": "0123456789abcdef", "cardinality": "low"}
    else:
        # Whether the client finds itself in a container is for the machine to say.
        options = {"origin_detection_enabled": False}
    statsd = DogStatsd(
        namespace="shop",
        constant_tags=["env:prod"],
        disable_buffering=mode == "plain",
        disable_aggregation=mode != "aggregated",
        **options,
    )
    for _ in range(10):
        statsd.increment("orders", tags=["dc:eu", "kind:book"])
    # The same set in another order, and one tag twice.
    statsd.increment("orders", 5, tags=["kind:book", "dc:eu", "kind:book"])
    statsd.decrement("stock", 2)
    statsd.gauge("queue", 7)
    statsd.gauge("queue", 3.5)
    statsd.set("users", "ann")
    statsd.set("users", "bob")
    statsd.set("users", "ann")
    statsd.timing("page", 320, tags=["path:/cart"])
    statsd.timing("page", 80, tags=["path:/cart"])
    statsd.histogram("size", 10)
    statsd.distribution("spread", 20, tags=["urgent"])
    statsd.flush_aggregated_metrics()
    statsd.flush()
    statsd.stop()
    if statsd.packets_dropped:
        # It does not wait at a unix socket whose queue is full, but it counts.
        sys.exit(3)


if __name__ == "__main__":
    main()
