/*
 * A file as operators of StatsD write them: a comment that lists the keys,
 *
 *   port:      where to listen
 *   backends:  where to send
 *
 * and then an object, its lists with leading commas.
 */
({
  graphitePort: 2003
, graphiteHost: "graphite.example.com"
, port: 8125
, mgmt_port: 8126
, backends: [ "./backends/graphite"
            , "./backends/repeater"
            , "statsd-librato-backend" ]
, repeater: [ { host: "10.8.3.214", port: 8125 } ]
, percentThreshold: 95
, librato: { email: "a@example.com", token: "t" }
, graphite: { legacyNamespace: true }
})
