//! Nodes behind a proxy that the test can look into: a UDP socket that keeps every datagram, and an admin port
//! that answers as it is told.

pub(crate) mod cost;

use super::daemon::{Admin, DEADLINE, Daemon, free_tcp_port, free_udp_port};
use serde_json::{Value, json};
use statsd_fast::runtime::sys::socket;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A node that keeps what it gets. Dropped, it is dead: nobody listens at its ports any more.
pub(crate) struct Node {
    /// Where it takes datagrams.
    pub(crate) address: SocketAddr,
    admin: SocketAddr,
    socket: Arc<UdpSocket>,
    datagrams: Arc<Mutex<Vec<Vec<u8>>>>,
    up: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Node {
    /// Starts on ports of 127.0.0.1 that nobody has.
    pub(crate) fn start() -> Self {
        // Ports that nobody else takes while the node is dead.
        let address = SocketAddr::from(([127, 0, 0, 1], free_udp_port()));
        Self::start_at(address, free_tcp_port())
    }

    /// Starts at an address and an admin port; 0 lets the kernel choose.
    pub(crate) fn start_at(address: SocketAddr, admin: u16) -> Self {
        let socket = UdpSocket::bind(address).expect("a port for the node");
        let wide = socket2::SockRef::from(&socket);
        wide.set_recv_buffer_size(4 << 20)
            .expect("a receive buffer");
        let listener = TcpListener::bind((address.ip(), admin)).expect("a port for its admin");
        // Both threads look now and then whether it is over.
        let tick = Some(Duration::from_millis(5));
        socket.set_read_timeout(tick).expect("a timeout");
        listener.set_nonblocking(true).expect("nonblocking");
        let mut node = Self {
            address: socket.local_addr().expect("an address"),
            admin: listener.local_addr().expect("an address"),
            socket: Arc::new(socket),
            datagrams: Arc::default(),
            up: Arc::new(AtomicBool::new(true)),
            over: Arc::default(),
            threads: Vec::new(),
        };
        let (socket, datagrams) = (node.socket.clone(), node.datagrams.clone());
        let over = node.over.clone();
        node.threads.push(thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            loop {
                // Looked at first: what comes before the end is taken.
                let is_over = over.load(Ordering::SeqCst);
                match socket.recv(&mut buffer) {
                    Ok(length) => datagrams
                        .lock()
                        .expect("no panic")
                        .push(buffer[..length].into()),
                    Err(_) if is_over => return,
                    Err(_) => {}
                }
            }
        }));
        let (up, over) = (node.up.clone(), node.over.clone());
        node.threads.push(thread::spawn(move || {
            while !over.load(Ordering::SeqCst) {
                match listener.accept() {
                    Ok((mut stream, _)) => {
                        stream.set_nonblocking(false).expect("blocking");
                        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
                        let mut question = [0; 64];
                        let length = stream.read(&mut question).unwrap_or(0);
                        if question[..length] == *b"health\r\n" {
                            let up = up.load(Ordering::SeqCst);
                            let answer = if up { "health: up\n" } else { "health: down\n" };
                            // The one who asked may be gone.
                            let _ = stream.write_all(answer.as_bytes());
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        thread::sleep(Duration::from_millis(1));
                    }
                    Err(error) => panic!("the admin port of a node: {error}"),
                }
            }
        }));
        node
    }

    /// What the ring calls it.
    pub(crate) fn label(&self) -> String {
        format!("{}:{}", self.address.ip(), self.address.port())
    }

    /// How it stands in a file.
    pub(crate) fn written(&self) -> Value {
        json!({
            "host": self.address.ip().to_string(),
            "port": self.address.port(),
            "adminport": self.admin.port(),
        })
    }

    /// What its admin port says from now on.
    pub(crate) fn say(&self, up: bool) {
        self.up.store(up, Ordering::SeqCst);
    }

    /// Every datagram so far.
    pub(crate) fn datagrams(&self) -> Vec<Vec<u8>> {
        self.datagrams.lock().expect("no panic").clone()
    }

    /// Every line so far.
    pub(crate) fn lines(&self) -> Vec<Vec<u8>> {
        let datagrams = self.datagrams();
        let lines = datagrams
            .iter()
            .flat_map(|it| it.split(|byte| *byte == b'\n'));
        lines.map(<[u8]>::to_vec).collect()
    }

    /// Forgets what came so far.
    pub(crate) fn forget(&self) {
        self.datagrams.lock().expect("no panic").clear();
    }

    /// Ends it. Returns the lines it got, those included that it had not read.
    pub(crate) fn die(mut self) -> Vec<Vec<u8>> {
        self.end();
        self.lines()
    }

    fn end(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().expect("no panic");
        }
        let drops = socket::memory(self.socket.as_fd()).map(|memory| memory.drops);
        if !thread::panicking() {
            assert_eq!(drops.ok(), Some(0), "a node of the test was too slow");
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
    }
}

/// Waits until `done` says so.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < DEADLINE, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// The configuration of a proxy in front of these nodes, with `options` on top.
pub(crate) fn config<'n>(nodes: impl IntoIterator<Item = &'n Node>, options: Value) -> Value {
    let nodes: Vec<_> = nodes.into_iter().map(Node::written).collect();
    let mut config = json!({
        "nodes": nodes,
        "address": "127.0.0.1",
        "port": "0",
        "mgmt_port": "0",
        // No test waits so long: a check that is slow on a busy machine does not move names by itself.
        "checkInterval": 10_000,
    });
    for (key, value) in options.as_object().expect("options are an object") {
        config[key] = value.clone();
    }
    config
}

/// A running proxy.
pub(crate) struct Proxy(pub(crate) Daemon);

impl Proxy {
    /// Starts the real program.
    pub(crate) fn start(config: &Value) -> Self {
        Self(Daemon::start(config, &["proxy"]))
    }

    /// A reply of its admin interface.
    pub(crate) fn ask(&self, command: &str) -> String {
        let admin = self.0.admin().expect("it has an admin interface");
        Admin::once(admin, command)
    }

    /// Its counters by name; those of nodes have the label before it.
    pub(crate) fn meters(&self) -> BTreeMap<String, u64> {
        let reply = self.ask("meters\n");
        let body = reply.strip_suffix("END\n\n").expect("a whole reply");
        let meters = body.lines().map(|line| {
            let (name, value) = line.rsplit_once(": ").expect("a name and a value");
            (name.to_owned(), value.parse().expect("a number"))
        });
        meters.collect()
    }

    /// Waits until it has taken so many lines.
    pub(crate) fn wait_for_lines(&self, lines: u64) {
        wait_until("the proxy has all lines", || {
            self.meters()["lines"] >= lines
        });
    }

    /// Stops it and returns its last line.
    pub(crate) fn stop(mut self) -> String {
        assert_eq!(self.0.terminate().code(), Some(0));
        self.0.wait_for_line("stopped: ")
    }
}

/// A port that nobody listens at, over TCP.
pub(crate) fn nobody() -> u16 {
    free_tcp_port()
}
