//! The cluster proxy: the real program in front of nodes that keep every datagram, in front of real daemons,
//! and beside the proxy of the original.
//!
//! What needs node and npm is skipped without them, as in `live`.

mod cluster;
#[allow(
    dead_code,
    unused_imports,
    reason = "each test program uses a part of it"
)]
mod daemon;

use cluster::cost::{Cost, Sink, load, send};
use cluster::{Node, Proxy, config, wait_until};
use daemon::{
    Daemon, FakeCarbon, Flush, Original, client_of, config_without_ticks, skip_for_want_of,
};
use serde_json::{Value, json};
use statsd_fast::proxy::ring::{Ring, digest};
use statsd_fast::runtime::sys::cpu::CpuClock;
use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

/// So many nodes.
fn nodes(count: usize) -> Vec<Node> {
    (0..count).map(|_| Node::start()).collect()
}

/// Names of all sorts, with the rest of a line behind them.
fn lines_of_all_sorts() -> Vec<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = (0..2000)
        .map(|n| format!("app.{}.host{n}.latency:{n}|ms", n % 7).into_bytes())
        .collect();
    let odd: [&[u8]; 14] = [
        b"no colon",
        b":1|c",
        b"::1|c",
        b"cr:1|c\r",
        b"tags:1|c|#a:b,c:d",
        b"inline;a=b;c=d:1|c",
        b"two:1|c:2|ms",
        b"a b/c d:1|c",
        "\u{e9}t\u{e9}:1|c".as_bytes(),
        b"latin\xe9:1|c",
        b"half\xe2\x82:1|c",
        b"\xff\xfe\xfd:1|c",
        b"|pipe:1|c",
        b" ",
    ];
    lines.extend(odd.iter().map(|line| line.to_vec()));
    lines.push([&b"x".repeat(300)[..], b":1|c"].concat());
    lines
}

/// The lines in datagrams, some alone, some with others and with empty lines between.
fn datagrams(lines: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut datagrams = Vec::new();
    let mut rest = lines;
    let mut size = 0;
    while !rest.is_empty() {
        size = size % 9 + 1;
        let (some, behind) = rest.split_at(size.min(rest.len()));
        let ends: [&[u8]; 3] = [b"", b"\n", b"\n\n"];
        datagrams.push([&some.join(&b'\n')[..], ends[size % 3]].concat());
        rest = behind;
    }
    datagrams
}

/// Sends them a few at a time, so that no buffer runs over: `taken` tells how many lines have arrived.
fn send_gently(client: &UdpSocket, datagrams: &[Vec<u8>], mut taken: impl FnMut() -> usize) {
    let lines = |datagram: &Vec<u8>| {
        let lines = datagram.split(|byte| *byte == b'\n');
        lines.filter(|line| !line.is_empty()).count()
    };
    let mut sent = taken();
    for some in datagrams.chunks(50) {
        for datagram in some {
            client.send(datagram).expect("it is sent");
            sent += lines(datagram);
        }
        wait_until("what was sent has arrived", || taken() >= sent);
    }
}

fn arrived(nodes: &[Node]) -> usize {
    nodes.iter().map(|node| node.lines().len()).sum()
}

/// The lines each node got, in an order of their own.
fn shares(nodes: &[Node]) -> BTreeMap<String, Vec<Vec<u8>>> {
    let sorted = |node: &Node| {
        let mut lines = node.lines();
        lines.sort();
        (node.label(), lines)
    };
    nodes.iter().map(sorted).collect()
}

/// The lines as text, sorted.
fn texts(lines: &[Vec<u8>]) -> Vec<String> {
    let texts = lines
        .iter()
        .map(|line| String::from_utf8_lossy(line).into_owned());
    let mut texts: Vec<_> = texts.collect();
    texts.sort();
    texts
}

/// Whether the original is here; says so when not.
fn original_is_missing() -> bool {
    let missing = Original::program().err();
    if let Some(what) = missing {
        skip_for_want_of(what);
    }
    missing.is_some()
}

#[test]
fn every_line_goes_where_the_proxy_of_the_original_sends_it() {
    if original_is_missing() {
        return;
    }
    let nodes = nodes(3);
    let lines = lines_of_all_sorts();
    let datagrams = datagrams(&lines);

    let theirs = Original::start_proxy(|udp, admin| {
        let options = json!({"port": udp, "mgmt_port": admin, "mgmt_address": "127.0.0.1"});
        config(&nodes, options).to_string()
    });
    send_gently(&client_of(theirs.udp), &datagrams, || arrived(&nodes));
    let theirs = shares(&nodes);
    nodes.iter().for_each(Node::forget);

    for packing in [true, false] {
        let proxy = Proxy::start(&config(&nodes, json!({"packing": packing})));
        send_gently(&proxy.0.client(), &datagrams, || arrived(&nodes));
        let ours = shares(&nodes);
        for (label, theirs) in &theirs {
            // Of several lines they replace what is no text; we send it as it came.
            let (ours, theirs) = (texts(&ours[label]), texts(theirs));
            assert!(ours.len() > 300, "{label} has {} lines", ours.len());
            assert!(ours == theirs, "{label} got other lines");
        }
        let mut all: Vec<_> = ours.into_values().flatten().collect();
        let mut sent = lines.clone();
        all.sort();
        sent.sort();
        assert!(all == sent, "the lines are what was sent");
        nodes.iter().for_each(Node::forget);
    }
}

/// What the ring of the original makes of 30 000 names, for rings of some sizes.
const THEIR_RINGS: &str = "
    const hashring = require('hashring');
    for (const size of [1, 2, 3, 6, 7, 8, 13, 14, 20, 28, 40]) {
        const nodes = {};
        for (let n = 0; n < size; n++) nodes[`10.0.${n}.1:${8125 + n}`] = 100;
        const ring = new hashring(nodes, 'md5', {'max cache size': 10, replicas: 0});
        if (size > 2) {
            ring.remove('10.0.1.1:8126');
            ring.remove('10.0.0.1:8125');
            ring.add({'10.0.1.1:8126': 100});
        }
        const owners = [];
        for (let k = 0; k < 30000; k++) owners.push(ring.get('k' + k).split('.')[2]);
        console.log(`${size} ${owners.join(',')}`);
    }";

#[test]
fn thirty_thousand_names_have_the_owners_of_the_original() {
    if original_is_missing() {
        return;
    }
    let program = Original::program().expect("it is there");
    let output = Command::new("node")
        .args(["-e", THEIR_RINGS])
        .current_dir(program.parent().expect("a directory"))
        .output()
        .expect("node starts");
    let said = String::from_utf8(output.stdout).expect("text");
    let mut rings = 0;
    for line in said.lines() {
        let (size, owners) = line.split_once(' ').expect("a size and owners");
        let size: usize = size.parse().expect("a number");
        let labels = (0..size).map(|n| (n, format!("10.0.{n}.1:{}", 8125 + n)));
        // Of those above two, the first is gone.
        let labels: Vec<_> = labels.filter(|(n, _)| size <= 2 || *n > 0).collect();
        let ring = Ring::new(labels.iter().map(|(n, label)| (*n, &**label)));
        for (key, theirs) in owners.split(',').enumerate() {
            let ours = ring.owner(digest(format!("k{key}").as_bytes()));
            assert_eq!(ours, theirs.parse().ok(), "k{key} of {size} nodes");
        }
        rings += 1;
    }
    assert_eq!(rings, 11, "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn lines_are_packed_up_to_the_limit_and_longer_ones_go_alone() {
    let nodes = nodes(1);
    let proxy = Proxy::start(&config(&nodes, json!({"maxDatagram": 100})));
    let lines: Vec<_> = (0..40).map(|n| format!("name{n:04}:1|c")).collect();
    let long = format!("{}:1|c", "x".repeat(2000));
    let text = format!(
        "{}\n{long}\n{}",
        lines[..20].join("\n"),
        lines[20..].join("\n")
    );
    proxy.0.client().send(text.as_bytes()).expect("it is sent");
    wait_until("all came", || nodes[0].lines().len() == 41);
    let datagrams = nodes[0].datagrams();
    // Seven lines of twelve bytes and six newlines fit into a hundred.
    let sizes: Vec<_> = datagrams.iter().map(Vec::len).collect();
    assert_eq!(sizes, [90, 90, 77, 2004, 90, 90, 77]);
    let meters = proxy.meters();
    let of_node = |name: &str| meters[&format!("{} {name}", nodes[0].label())];
    assert_eq!((of_node("lines"), of_node("datagrams")), (41, 7));
    assert_eq!(of_node("bytes"), sizes.iter().sum::<usize>() as u64);
}

#[test]
fn without_packing_each_line_is_a_datagram_whatever_its_length() {
    let nodes = nodes(1);
    let proxy = Proxy::start(&config(&nodes, json!({"packing": false})));
    // Runs of one length, which the kernel cuts, longer and shorter ones between them.
    let line = |n: usize| format!("{}:{n}|c", "x".repeat(1 + n / 100 % 4 + n % 97 / 96));
    let lines: Vec<_> = (1000..1700).map(line).collect();
    proxy
        .0
        .client()
        .send(lines.join("\n").as_bytes())
        .expect("it is sent");
    wait_until("all came", || nodes[0].datagrams().len() == lines.len());
    let datagrams = nodes[0].datagrams();
    let texts = datagrams
        .iter()
        .map(|it| String::from_utf8_lossy(it).into_owned());
    assert_eq!(texts.collect::<Vec<_>>(), lines);
}

/// The lines a node lost, by its account and by what it got.
struct Lost {
    refused: u64,
    doubtful: u64,
    really: u64,
}

/// What became of the lines for a node that got these.
fn lost(meters: &BTreeMap<String, u64>, label: &str, got: &[Vec<u8>]) -> Lost {
    let of_node = |name: &str| meters[&format!("{label} {name}")];
    Lost {
        refused: of_node("refused_lines"),
        doubtful: of_node("doubtful"),
        really: of_node("lines") - got.len() as u64,
    }
}

/// Sends numbered lines, a few at a time, until `done`; returns how many there are by then.
fn send_until(proxy: &Proxy, from: u64, mut done: impl FnMut() -> bool) -> u64 {
    let client = proxy.0.client();
    let mut sent = from;
    while !done() {
        for _ in 0..20 {
            client
                .send(format!("k{sent}:1|c").as_bytes())
                .expect("it is sent");
            sent += 1;
        }
        proxy.wait_for_lines(sent);
    }
    sent
}

/// Whether the log has so many lines with this text.
fn said(proxy: &Proxy, text: &str, times: usize) -> bool {
    proxy
        .0
        .lines()
        .iter()
        .filter(|line| line.contains(text))
        .count()
        >= times
}

#[test]
fn a_node_that_dies_under_load_loses_what_its_account_says_and_comes_back() {
    let mut nodes = nodes(3);
    let proxy = Proxy::start(&config(&nodes, json!({"checkInterval": 500})));
    let sent = send_until(&proxy, 0, || arrived(&nodes) >= 1000);
    wait_until("all came", || arrived(&nodes) as u64 == sent);

    let victim = nodes.remove(1);
    let (label, address, written) = (victim.label(), victim.address, victim.written());
    let before = victim.die();
    let removal = format!("Removing node {label} from the ring.");
    let sent = send_until(&proxy, sent, || said(&proxy, &removal, 1));
    // Its names are the others' now.
    let after_removal = sent;
    let sent = send_until(&proxy, sent, || {
        arrived(&nodes) as u64 > after_removal / 2 + 1000
    });
    let meters = proxy.meters();
    let loss = lost(&meters, &label, &before);
    assert!(loss.really > 0, "the load went on while it was dead");
    assert_eq!(loss.refused, loss.really, "exact on one machine");
    assert!(
        loss.doubtful >= loss.really,
        "{} of {}",
        loss.doubtful,
        loss.really
    );
    assert_eq!(meters[&format!("{label} removals")], 1);
    wait_until("the others have the rest", || {
        arrived(&nodes) as u64 + meters[&format!("{label} lines")] == sent
    });

    let admin = written["adminport"].as_u64().expect("a port") as u16;
    nodes.push(Node::start_at(address, admin));
    proxy
        .0
        .wait_for_line(&format!("Adding node {label} to the ring."));
    let sent = send_until(&proxy, sent, || nodes[2].lines().len() > 100);
    wait_until("all came", || {
        (arrived(&nodes) + before.len()) as u64 + loss.really == sent
    });
    let history = proxy.ask("history\n");
    let events: Vec<_> = history
        .lines()
        .filter_map(|line| line.split_once(&format!(" s ago {label} ")))
        .map(|(_, what)| what.split(':').next().unwrap_or_default())
        .collect();
    assert_eq!(events, ["removed", "added"], "{history}");

    let meters = proxy.meters();
    let all = |name: &str| {
        let of_nodes = meters
            .iter()
            .filter(|(key, _)| key.ends_with(&format!(" {name}")));
        of_nodes.map(|(_, value)| value).sum::<u64>()
    };
    assert_eq!(meters["lines"], sent);
    assert_eq!(all("lines") + all("unreachable") + meters["no_node"], sent);
    assert_eq!(meters["kernel_drops"], 0);
    let last = proxy.stop();
    let account = format!(
        "; {label} {} lines, {} refused, {} doubtful",
        all_of(&meters, &label, "lines"),
        loss.refused,
        loss.doubtful
    );
    assert!(last.contains(&account), "{last} has no {account}");
    assert!(
        last.contains(&format!(" {sent} lines, 0 of our own, {sent} sent, ")),
        "{last}"
    );
}

fn all_of(meters: &BTreeMap<String, u64>, label: &str, name: &str) -> u64 {
    meters[&format!("{label} {name}")]
}

#[test]
fn a_node_that_flaps_moves_its_names_each_time_and_loses_nothing() {
    let nodes = nodes(2);
    let proxy = Proxy::start(&config(&nodes, json!({"checkInterval": 100})));
    let label = nodes[1].label();
    let mut sent = 0;
    for round in 1..=3 {
        nodes[1].say(false);
        let removal = format!("Removing node {label} from the ring.");
        sent = send_until(&proxy, sent, || said(&proxy, &removal, round));
        nodes[1].say(true);
        let adding = format!("Adding node {label} to the ring.");
        sent = send_until(&proxy, sent, || said(&proxy, &adding, round));
    }
    wait_until("all came", || arrived(&nodes) as u64 == sent);
    let meters = proxy.meters();
    let got = nodes[1].lines();
    let loss = lost(&meters, &label, &got);
    assert_eq!((loss.really, loss.refused), (0, 0));
    // A check that was slow may have removed it once more.
    assert!(said(&proxy, "Removing node", 3));
    assert!(all_of(&meters, &label, "removals") >= 3);
    assert!(!got.is_empty());
}

#[test]
fn a_node_is_given_so_many_failures_and_is_held_down() {
    let nodes = nodes(2);
    let options = json!({"checkInterval": 150, "failuresToRemove": 3, "holdDown": 400});
    let proxy = Proxy::start(&config(&nodes, options));
    let label = nodes[1].label();
    nodes[1].say(false);
    proxy
        .0
        .wait_for_line(&format!("Removing node {label} from the ring."));
    nodes[1].say(true);
    // One failure while it is held down: it has to answer well for as long again.
    wait_until("it answers well", || {
        let rows = proxy.ask("nodes\n");
        let mut rows = rows.lines();
        rows.any(|row| row.starts_with(&label) && row.ends_with("failures 0"))
    });
    nodes[1].say(false);
    wait_until("it fails", || {
        let history = proxy.ask("history\n");
        history.matches(" failed: ").count() >= 2
    });
    nodes[1].say(true);
    proxy
        .0
        .wait_for_line(&format!("Adding node {label} to the ring."));
    let history = proxy.ask("history\n");
    let events: Vec<_> = history
        .lines()
        .filter_map(|line| line.split_once(&format!(" s ago {label} ")))
        .map(|(_, what)| what.split(':').next().unwrap_or_default())
        .collect();
    assert_eq!(
        events,
        ["failed", "removed", "failed", "added"],
        "{history}"
    );
}

#[test]
fn lines_without_a_node_are_counted_and_said_once() {
    let mut nodes = nodes(1);
    let proxy = Proxy::start(&config(&nodes, json!({"checkInterval": 200})));
    let label = nodes[0].label();
    nodes.remove(0).die();
    proxy
        .0
        .wait_for_line(&format!("Removing node {label} from the ring."));
    assert_eq!(proxy.ask("status\n").lines().nth(1), Some("nodes: "));
    for n in 0..100 {
        proxy
            .0
            .client()
            .send(format!("a{n}:1|c\nb{n}:1|c").as_bytes())
            .expect("it is sent");
    }
    proxy.wait_for_lines(200);
    let meters = proxy.meters();
    assert_eq!(meters["no_node"], 200);
    proxy
        .0
        .wait_for_line("Warning: No backend statsd nodes available!");
    let drops = proxy.ask("drops\n");
    assert!(
        drops.starts_with("no_node: 200\n") && drops.ends_with("\nEND\n\n"),
        "{drops}"
    );
    assert!(!drops.contains("own_lines"), "{drops}");
    let last = proxy.stop();
    assert!(
        last.contains(" 0 sent, 0 not sent, 200 without a node"),
        "{last}"
    );
}

#[test]
fn the_admin_interface_answers_as_the_reference_and_more() {
    let nodes = nodes(2);
    let proxy = Proxy::start(&config(&nodes, json!({})));
    assert_eq!(
        proxy.ask("help\n"),
        "Commands: config, health, status, quit\n\n"
    );
    let status = proxy.ask("status\n");
    let labels = format!("nodes: {} {} \n", nodes[0].label(), nodes[1].label());
    let (uptime, rest) = status.split_once('\n').expect("two lines");
    assert!(
        uptime
            .strip_prefix("uptime: ")
            .is_some_and(|it| it.parse::<u64>().is_ok())
    );
    assert_eq!(rest, labels);
    assert_eq!(proxy.ask("health\n"), "health: up\n");
    assert_eq!(proxy.ask("health down\n"), "health: down\n");
    assert_eq!(proxy.ask("health\n"), "health: down\n");
    assert_eq!(proxy.ask("stats\n"), "ERROR\n");
    assert_eq!(proxy.ask("quit\n"), "");
    let config = proxy.ask("config\n");
    assert!(
        config.starts_with('\n') && config.contains("\ncheckInterval: 10000\n"),
        "{config}"
    );
    assert!(
        config.contains("\nnodes > 0: [object Object]\n"),
        "{config}"
    );
    assert!(!config.contains("flushInterval"), "{config}");
    let rows = proxy.ask("nodes\n");
    let row = format!(
        "{} in at {} lines 0 datagrams 0 bytes 0 dropped 0 refused 0 doubtful 0 removals 0 failures 0\n",
        nodes[0].label(),
        nodes[0].address
    );
    assert!(rows.starts_with(&row), "{rows}");
    assert!(
        proxy
            .ask("help all\n")
            .contains("nodes, drops, meters, history")
    );
}

#[test]
fn lines_come_over_tcp_and_go_over_udp() {
    let nodes = nodes(2);
    let proxy = Proxy::start(&config(&nodes, json!({"server": "./servers/tcp"})));
    let mut client = proxy.0.connect();
    client.write_all(b"first:1|c\nsec").expect("it is sent");
    client.write_all(b"ond:2|c\nthird:3|c").expect("it is sent");
    drop(client);
    wait_until("all came", || arrived(&nodes) == 3);
    let mut lines: Vec<_> = nodes.iter().flat_map(Node::lines).collect();
    lines.sort();
    assert_eq!(lines, [&b"first:1|c"[..], b"second:2|c", b"third:3|c"]);
}

#[test]
fn a_node_may_be_named_or_have_an_address_of_ipv6() {
    let six = "[::1]:0".parse().expect("an address");
    let (six, named) = (Node::start_at(six, 0), Node::start());
    let mut config = config([&six, &named], json!({}));
    config["nodes"][1]["host"] = json!("localhost");
    let proxy = Proxy::start(&config);
    let client = proxy.0.client();
    for n in 0..200 {
        client
            .send(format!("k{n}:1|c").as_bytes())
            .expect("it is sent");
    }
    let both = [six, named];
    wait_until("all came", || arrived(&both) == 200);
    assert!(both.iter().all(|node| node.lines().len() > 20));
    let status = proxy.ask("status\n");
    let ports = both.each_ref().map(|node| node.address.port());
    let labels = format!("nodes: ::1:{} localhost:{} \n", ports[0], ports[1]);
    assert!(status.ends_with(&labels), "{status}");
}

#[test]
fn a_name_that_leads_nowhere_is_a_node_that_fails() {
    let node = Node::start();
    let mut config = config([&node], json!({}));
    let lost = json!({"host": "nowhere.invalid", "port": 8125, "adminport": cluster::nobody()});
    config["nodes"].as_array_mut().expect("a list").push(lost);
    let proxy = Proxy::start(&config);
    proxy
        .0
        .wait_for_line("Removing node nowhere.invalid:8125 from the ring.");
    let sent = send_until(&proxy, 0, || node.lines().len() >= 100);
    wait_until("all came", || node.lines().len() as u64 == sent);
    assert!(
        proxy
            .ask("nodes\n")
            .contains("nowhere.invalid:8125 out at nowhere ")
    );
}

#[test]
fn its_own_counters_go_to_the_ring_when_asked() {
    let nodes = nodes(2);
    let options = json!({"prefixStats": "relay", "flushInterval": 600_000});
    let proxy = Proxy::start(&config(&nodes, options));
    proxy.0.client().send(b"a:1|c\nb:2|c").expect("it is sent");
    wait_until("both came", || arrived(&nodes) == 2);
    // The stop makes the one report there is.
    let last = proxy.stop();
    let own: Vec<_> = nodes.iter().flat_map(Node::lines).collect();
    let has = |line: &str| own.iter().any(|it| it == line.as_bytes());
    assert!(has("relay.lines:2|c") && has("relay.no_node:0|c"));
    for node in &nodes {
        let label = node.label().replace(['.', ':'], "_");
        assert!(has(&format!("relay.nodes.{label}.up:1|g")), "{label}");
    }
    let count = own.len() - 2;
    assert!(
        last.contains(&format!(" 2 lines, {count} of our own, {} sent", own.len())),
        "{last}"
    );
}

#[test]
fn a_change_of_the_file_is_refused_but_for_the_log() {
    let nodes = nodes(2);
    let mut config = config(&nodes, json!({}));
    let proxy = Proxy::start(&config);
    config["nodes"].as_array_mut().expect("a list").pop();
    config["debug"] = json!(true);
    std::fs::write(proxy.0.config_file(), config.to_string()).expect("the file can be written");
    proxy.0.wait_for_line("nodes cannot change while running");
    proxy.0.wait_for_line("the configuration was taken over");
    assert!(proxy.ask("status\n").contains(&nodes[1].label()));
}

/// What a daemon flushed that does not depend on how many datagrams the lines came in.
fn totals(flush: &Flush) -> BTreeMap<String, String> {
    let theirs = |name: &str| !name.contains("statsd");
    let values = flush.values.iter().filter(|(name, _)| theirs(name));
    values
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[test]
fn three_daemons_behind_a_proxy_flush_what_one_flushes() {
    let carbons: Vec<_> = (0..4).map(|_| FakeCarbon::start()).collect();
    let start = |carbon: &FakeCarbon| {
        Daemon::start(
            &config_without_ticks(carbon, json!({})),
            &["--threads", "1"],
        )
    };
    let mut daemons: Vec<_> = carbons.iter().map(start).collect();
    let alone = daemons.pop().expect("four");
    let written: Vec<Value> = daemons
        .iter()
        .map(|daemon| {
            json!({
                "host": "127.0.0.1",
                "port": daemon.address().port(),
                "adminport": daemon.admin().expect("an admin interface").port(),
            })
        })
        .collect();
    let proxy = Proxy::start(&config([], json!({"nodes": written, "threads": 2})));

    let (mut line, mut datagrams) = (0, Vec::new());
    for _ in 0..400 {
        let lines: Vec<_> = (0..25)
            .map(|_| {
                line += 1;
                let name = line * 7919 % 311;
                match line % 5 {
                    0 => format!("time.{name}:{}|ms", line % 97),
                    1 => format!("gauge.{name}:{}|g", name * 3),
                    2 => format!("set.{name}:{}|s", line % 13),
                    _ => format!("count.{name}:{}|c", line % 11),
                }
            })
            .collect();
        datagrams.push(lines.join("\n").into_bytes());
    }
    let direct = alone.client();
    for (number, datagram) in datagrams.iter().enumerate() {
        direct.send(datagram).expect("it is sent");
        proxy.0.client().send(datagram).expect("it is sent");
        if number % 50 == 49 {
            proxy.wait_for_lines(25 * (number as u64 + 1));
        }
    }
    let meters = proxy.meters();
    let lines: u64 = meters
        .iter()
        .filter(|(name, _)| name.ends_with(" lines"))
        .map(|(_, n)| n)
        .sum();
    assert_eq!(lines, 10_000);
    proxy.stop();

    let expected = totals(&alone.stop("TERM", &carbons[3]));
    let mut found = BTreeMap::new();
    for (daemon, carbon) in daemons.into_iter().zip(&carbons) {
        let flush = totals(&daemon.stop("TERM", carbon));
        assert!(flush.len() > 100, "each has its share");
        for (name, value) in flush {
            assert_eq!(
                found.insert(name.clone(), value),
                None,
                "{name} has two owners"
            );
        }
    }
    assert_eq!(found, expected);
}

/// A file with one node: a sink, whose admin port is that of another node.
fn in_front_of(sink: &Sink, node: &Node) -> Value {
    let written = json!({
        "host": "127.0.0.1",
        "port": sink.address.port(),
        "adminport": node.written()["adminport"],
    });
    json!({
        "nodes": [written],
        "checkInterval": 1000,
        "address": "127.0.0.1",
        "mgmt_address": "127.0.0.1",
        "port": "0",
        "mgmt_port": "0",
    })
}

/// CPU time of a process for each line that reached the sink while a sender ran for so long.
fn forwarding(process: u32, to: SocketAddr, lines: usize, forwarded: impl Fn() -> u64) -> Cost {
    const LONG: Duration = Duration::from_secs(3);
    let datagrams = load(lines);
    let clock = CpuClock::of_process(process).expect("a clock");
    // Once before, for names to be known and code to be compiled.
    send(to, &datagrams, lines as u64, LONG / 3);
    let before = (clock.used_ns().expect("alive"), forwarded());
    send(to, &datagrams, lines as u64, LONG);
    // What waits in its socket is read, too.
    std::thread::sleep(LONG / 3);
    Cost {
        ns: clock.used_ns().expect("alive") - before.0,
        lines: forwarded() - before.1,
    }
}

#[test]
#[ignore = "a measurement: it prints nanoseconds and holds nobody to them; build with --release"]
fn measure_what_a_line_forwarded_costs() {
    for lines in [1, 30] {
        let bare = Sink::start();
        let datagrams = load(lines);
        let sender = send(
            bare.address,
            &datagrams,
            lines as u64,
            Duration::from_secs(3),
        );
        let sink = bare.cost(lines as u64);
        let floor = sink.ns_a_line() + sender.ns_a_line();

        let (sink, node) = (Sink::start(), Node::start());
        let proxy = Proxy::start(&in_front_of(&sink, &node));
        let label = format!("{} lines", sink.address);
        let (process, to) = (proxy.0.process().id(), proxy.0.address());
        let ours = forwarding(process, to, lines, || proxy.meters()[&label]);
        println!(
            "{lines} lines a datagram: {:.0} ns a line, of {} lines; bare sink and bare sender {floor:.0} ns",
            ours.ns_a_line(),
            ours.lines
        );
        drop(proxy);

        if original_is_missing() {
            continue;
        }
        let (sink, node) = (Sink::start(), Node::start());
        let options = in_front_of(&sink, &node);
        let theirs = Original::start_proxy(|udp, admin| {
            let mut options = options.clone();
            (options["port"], options["mgmt_port"]) = (json!(udp), json!(admin));
            options.to_string()
        });
        // Each line is a datagram of its own.
        let cost = forwarding(theirs.process.id(), theirs.udp, lines, || {
            sink.cost(1).lines
        });
        println!(
            "{lines} lines a datagram: the original {:.0} ns a line, of {} lines: {:.0} times ours",
            cost.ns_a_line(),
            cost.lines,
            cost.ns_a_line() / ours.ns_a_line()
        );
    }
}
