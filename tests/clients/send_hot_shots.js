// Sends a fixed set of metrics with the npm client `hot-shots`; tests/clients.rs knows the outcome.
//
// Usage: send_hot_shots.js udp HOST PORT | uds PATH | tcp HOST PORT, and `datadog` for Datadog's fields
"use strict";

const StatsD = require("hot-shots");

const [protocol, ...rest] = process.argv.slice(2);
const datadog = rest[rest.length - 1] === "datadog";
const address = protocol === "uds" ? { path: rest[0] } : { host: rest[0], port: Number(rest[1]) };
const options = datadog
  ? { datadog: true, containerID: "0123456789abcdef", cardinality: "low", includeDatadogTelemetry: false }
  : {};
const client = new StatsD({
  protocol,
  ...address,
  ...options,
  prefix: "shop",
  globalTags: { env: "prod" },
  errorHandler: (error) => {
    console.error(error);
    process.exitCode = 1;
  },
});

for (let n = 0; n < 10; n++) {
  client.increment("orders", 1, ["dc:eu", "kind:book"]);
}
client.increment("orders", 5, ["kind:book", "dc:eu"]);
client.decrement("stock", 2);
client.gauge("queue", 7);
client.gauge("queue", 3.5);
client.set("users", "ann");
client.set("users", "bob");
client.unique("users", "ann");
client.timing("page", 320, { path: "/cart" });
client.timing("page", 80, { path: "/cart" });
client.histogram("size", 10);
client.distribution("spread", 20, ["urgent"]);
client.increment(["one", "two"], 4);
client.close();
