//! Sends a fixed set of metrics with the clients `cadence` and `dogstatsd`; tests/clients.rs knows the outcome.
//!
//! Usage: clients cadence|cadence-buffered|dogstatsd udp HOST:PORT|unix PATH

use cadence::prelude::*;
use cadence::{
    BufferedUdpMetricSink, BufferedUnixMetricSink, StatsdClient, StatsdClientBuilder,
    UdpMetricSink, UnixMetricSink,
};
use dogstatsd::{Client, DogstatsdError, DogstatsdResult, OptionsBuilder};
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [client, transport, address] = &arguments[..] else {
        panic!("usage: clients CLIENT udp|unix ADDRESS");
    };
    match client.as_str() {
        "cadence" | "cadence-buffered" => cadence(client == "cadence-buffered", transport, address),
        "dogstatsd" => dogstatsd(transport, address),
        _ => panic!("there is no client {client}"),
    }
}

fn cadence(buffered: bool, transport: &str, address: &str) {
    let any = || UdpSocket::bind("0.0.0.0:0").expect("a socket");
    let unbound = || UnixDatagram::unbound().expect("a socket");
    let builder: StatsdClientBuilder = match (transport, buffered) {
        ("udp", false) => {
            let sink = UdpMetricSink::from(address, any()).expect("a sink");
            StatsdClient::builder("shop", sink)
        }
        ("udp", true) => {
            let sink = BufferedUdpMetricSink::from(address, any()).expect("a sink");
            StatsdClient::builder("shop", sink)
        }
        (_, false) => StatsdClient::builder("shop", UnixMetricSink::from(address, unbound())),
        (_, true) => {
            StatsdClient::builder("shop", BufferedUnixMetricSink::from(address, unbound()))
        }
    };
    let client = builder.with_tag("env", "prod").build();
    for _ in 0..10 {
        let count = client.count_with_tags("orders", 1).with_tag("dc", "eu");
        count.with_tag("kind", "book").try_send().expect("sent");
    }
    let count = client.count_with_tags("orders", 5).with_tag("kind", "book");
    count.with_tag("dc", "eu").try_send().expect("sent");
    client.decr("stock").expect("sent");
    client.gauge("queue", 7).expect("sent");
    client.gauge("queue", 3.5).expect("sent");
    client.set("users", 1).expect("sent");
    client.set("users", 2).expect("sent");
    let page = || client.time_with_tags("page", Duration::from_millis(320));
    page().with_tag("path", "/cart").try_send().expect("sent");
    client.time("packed", vec![10, 20, 30]).expect("sent");
    client.histogram("size", 10).expect("sent");
    let spread = client.distribution_with_tags("spread", 20);
    spread.with_tag_value("urgent").try_send().expect("sent");
    client.meter("meter", 2).expect("sent");
    client.flush().expect("flushed");
}

fn dogstatsd(transport: &str, address: &str) {
    let mut builder = OptionsBuilder::new();
    builder
        .namespace("shop".into())
        .default_tag("env:prod".into());
    match transport {
        "udp" => builder.to_addr(address.into()),
        _ => builder.socket_path(Some(address.into())),
    };
    let client = Client::new(builder.build()).expect("a client");
    for _ in 0..10 {
        sent(|| client.incr("orders", ["dc:eu", "kind:book"]));
    }
    sent(|| client.incr_by_value("orders", 5, ["kind:book", "dc:eu"]));
    sent(|| client.decr("stock", [""; 0]));
    sent(|| client.gauge("queue", "7", [""; 0]));
    sent(|| client.gauge("queue", "3.5", [""; 0]));
    sent(|| client.set("users", "ann", [""; 0]));
    sent(|| client.set("users", "bob", [""; 0]));
    sent(|| client.timing("page", 320, ["path:/cart"]));
    sent(|| client.histogram("size", "10", [""; 0]));
    sent(|| client.distribution("spread", "20", ["urgent"]));
}

/// Sends once more what a unix socket refuses because its queue is full: this client does not wait.
fn sent(send: impl Fn() -> DogstatsdResult) {
    loop {
        match send() {
            Ok(()) => return,
            Err(DogstatsdError::IoError(error)) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::yield_now();
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}
