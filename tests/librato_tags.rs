//! Tags of DogStatsD on their way from a datagram to the store of the Librato of the tests.

#[allow(
    dead_code,
    unused_imports,
    reason = "each test program uses a part of it"
)]
mod daemon;
#[allow(
    dead_code,
    unused_imports,
    reason = "each test program uses a part of it"
)]
mod librato_api;

use daemon::{Daemon, FakeCarbon, config_without_ticks};
use librato_api::{FakeApi, Rules};
use serde_json::json;
use std::collections::BTreeMap;

const LINES: &str = "hits:1|c|#env:prod,Service:web\n\
    hits:2|c|#service:api,urgent\n\
    hits#region=us,env=dev:3|c|#env:it's new,url:http\n\
    hits:4|c|#:lost\n\
    plain:5|c\n\
    lat;route=/x:7|ms\n";

/// Everything stored of one flush of [`LINES`]: name, tags, and value or count. With it, the server's log.
fn stored(dialect: &str, legacy: bool) -> (Vec<String>, String) {
    let api = FakeApi::start(Rules::default());
    let carbon = FakeCarbon::start();
    let config = config_without_ticks(
        &carbon,
        json!({
            "dialect": dialect,
            "keyNameSanitize": false,
            "deleteIdleStats": true,
            "backends": ["librato"],
            "librato": {
                "email": "user@example.com", "token": "tok123", "api": api.url(),
                "host": "h1", "writeToLegacy": legacy,
            },
        }),
    );
    let mut daemon = Daemon::start(&config, &["--threads", "1"]);
    let sent = daemon.client().send(LINES.as_bytes());
    assert_eq!(sent.expect("it is up"), LINES.len());
    assert_eq!(daemon.terminate().code(), Some(0));
    let stored = api.stored().into_iter().map(|it| {
        let tags = |tags: &BTreeMap<String, String>| {
            let tags = tags.iter().map(|(key, value)| format!("{key}={value}"));
            tags.collect::<Vec<_>>().join(",")
        };
        let value = it.numbers.get("value").or(it.numbers.get("count"));
        format!(
            "{} [{}] {}",
            it.name,
            tags(&it.tags),
            value.expect("a number")
        )
    });
    (stored.collect(), daemon.lines().join("\n"))
}

/// Decisions D8 and D13 in README, and D12: the one flush is that of the stop.
#[test]
fn tags_become_tags_and_what_cannot_is_left_out_and_said() {
    let (stored, log) = stored("auto", false);
    assert_eq!(
        stored,
        [
            "hits [env=prod,service=web] 1",
            "hits [service=api,urgent=urgent] 2",
            "hits [env=it_s new,region=us,url=http] 3",
            // Its one tag was lost, so it has those of the post.
            "hits [host=h1] 4",
            "plain [host=h1] 5",
            "lat [route=/x] 1",
            "lat.90 [route=/x] 1",
        ]
    );
    assert!(
        log.contains("librato: 1 tags of a flush were left out"),
        "{log}"
    );
}

#[test]
fn in_the_dialect_of_statsd_they_stay_in_the_name() {
    let (stored, log) = stored("statsd", false);
    assert_eq!(
        stored,
        [
            "hits_env_prod_Service_web [host=h1] 1",
            "hits_service_api_urgent [host=h1] 2",
            // Of a tag that begins with # the reference takes all that follows for its own.
            "hits [env=http,region=us] 3",
            "hits_lost [host=h1] 4",
            "plain [host=h1] 5",
            "lat_route_x [host=h1] 1",
            "lat_route_x.90 [host=h1] 1",
        ]
    );
    assert!(!log.contains("tags of a flush were left out"), "{log}");
}

#[test]
fn the_old_way_has_no_tags() {
    let (stored, _) = stored("auto", true);
    let old = stored.iter().filter(|it| it.contains(" [] "));
    let old: Vec<_> = old.map(|it| it.replace(" [] ", " ")).collect();
    assert_eq!(
        old,
        [
            "hits 1", "hits 2", "hits 3", "hits 4", "plain 5", "lat 1", "lat.90 1"
        ]
    );
    assert_eq!(stored.len(), 14);
}
