// Sends a fixed set of metrics with the npm client `node-statsd`; tests/clients.rs knows the outcome.
//
// Usage: send_node_statsd.js HOST PORT
"use strict";

const StatsD = require("node-statsd");

const [host, port] = process.argv.slice(2);
const client = new StatsD({ host, port: Number(port), prefix: "shop.", global_tags: ["env:prod"] });

const sends = [
  ...Array.from({ length: 10 }, () => (done) => client.increment("orders", 1, 1, ["dc:eu"], done)),
  (done) => client.decrement("stock", 2, done),
  (done) => client.gauge("queue", 7, done),
  (done) => client.gauge("queue", 3.5, done),
  (done) => client.set("users", "ann", done),
  (done) => client.unique("users", "bob", done),
  (done) => client.timing("page", 320, done),
  (done) => client.histogram("size", 10, done),
  (done) => client.increment(["one", "two"], 4, 1, [], done),
];

// It closes without waiting for what it still has to send.
function next(error) {
  if (error) {
    throw error;
  }
  const send = sends.shift();
  if (send) {
    send(next);
  } else {
    client.close();
  }
}
next();
