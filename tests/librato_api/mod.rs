//! A Librato that believes nothing: an API on 127.0.0.1 that checks each post as the service did, stores
//! what passes as the service did, and fails on demand.

mod poster;
mod proxy;
mod rules;
mod tls;
mod wire;

pub(crate) use poster::{HASTY, PATIENT, batch, counts, error, kind, options, post};
pub(crate) use proxy::{Manner, proxy, proxy_on};
pub(crate) use rules::{Rules, Stored};
pub(crate) use tls::{Authority, Encrypts};
pub(crate) use wire::{Answer, Request};

use rules::Book;
use socket2::SockRef;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// How long an awaited request may take before the test fails.
const DEADLINE: Duration = Duration::from_secs(30);

/// What happens to one request instead of, or before, its check.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// It is not checked; this is the answer.
    Answer(Answer),
    /// It is checked, and the answer comes so much later.
    Late(Duration),
    /// These bytes are the answer, and the connection ends.
    Raw(Vec<u8>),
    /// These bytes, none perhaps, and then nothing until the peer goes away.
    Hang(Vec<u8>),
    /// These bytes, none perhaps, and the connection is reset.
    Reset(Vec<u8>),
    /// These bytes again and again, one at a time and so long apart, until the peer goes away.
    Trickle(Vec<u8>, Duration),
    /// It is checked, and answered after [`FakeApi::release`].
    Held,
    /// It is answered as soon as its head is there, and its body is not read.
    Early(Answer),
}

/// A running API. It goes away with the test.
pub(crate) struct FakeApi {
    url: String,
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    book: Book,
    faults: VecDeque<Fault>,
    requests: Vec<Request>,
    under_way: usize,
    most_under_way: usize,
    /// Peers that went away from a request that hung.
    left: usize,
    /// Whether requests that are held get their answers.
    released: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no test panics with the lock held")
    }
}

impl FakeApi {
    /// Listens in plain HTTP.
    pub(crate) fn start(rules: Rules) -> Self {
        Self::serve(rules, None)
    }

    /// Listens in HTTPS, as `localhost`.
    pub(crate) fn start_encrypted(rules: Rules, encrypts: Encrypts) -> Self {
        Self::serve(rules, Some(encrypts))
    }

    /// Listens in plain HTTP on a socket that a test prepared.
    pub(crate) fn accept_on(listener: TcpListener) -> Self {
        Self::serve_on(listener, Rules::default(), None)
    }

    fn serve(rules: Rules, encrypts: Option<Encrypts>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port for the API");
        Self::serve_on(listener, rules, encrypts)
    }

    fn serve_on(listener: TcpListener, rules: Rules, encrypts: Option<Encrypts>) -> Self {
        let port = listener.local_addr().expect("it is bound").port();
        let url = match encrypts {
            Some(_) => format!("https://localhost:{port}"),
            None => format!("http://127.0.0.1:{port}"),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                book: Book::new(rules),
                faults: VecDeque::new(),
                requests: Vec::new(),
                under_way: 0,
                most_under_way: 0,
                left: 0,
                released: false,
            }),
            changed: Condvar::new(),
        });
        let of_connections = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (shared, encrypts) = (Arc::clone(&of_connections), encrypts.clone());
                thread::spawn(move || match encrypts {
                    Some(encrypts) => {
                        if let Some(mut stream) = encrypts.accept(stream) {
                            converse(&mut stream, &shared, |stream| &stream.sock, true);
                        }
                    }
                    None => converse(&mut { stream }, &shared, |stream| stream, false),
                });
            }
        });
        Self { url, port, shared }
    }

    /// Where it is, as `librato.api` has it.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The next requests meet these, one each.
    pub(crate) fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        self.shared.state().faults.extend(faults);
    }

    /// From now on requests meet nothing.
    pub(crate) fn heal(&self) {
        self.shared.state().faults.clear();
    }

    /// Those that are held get their answers, now and from now on.
    pub(crate) fn release(&self) {
        self.shared.state().released = true;
        self.shared.changed.notify_all();
    }

    /// The service knows a name with a type, `COUNTER` or `GAUGE`, on both routes.
    pub(crate) fn declare(&self, name: &str, kind: &str) {
        self.shared.state().book.declare(name, kind);
    }

    /// Every request so far, in the order they came.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.state().requests.clone()
    }

    /// Everything stored so far.
    pub(crate) fn stored(&self) -> Vec<Stored> {
        self.shared.state().book.stored().to_vec()
    }

    /// How many requests were under way at a time, at most.
    pub(crate) fn most_under_way(&self) -> usize {
        self.shared.state().most_under_way
    }

    /// Waits until so many requests have come.
    pub(crate) fn wait_for_requests(&self, count: usize) -> Vec<Request> {
        self.wait_for(|state| state.requests.len() >= count)
            .requests
            .clone()
    }

    /// Waits for a request that is wanted.
    pub(crate) fn wait_for_request(&self, is: impl Fn(&Request) -> bool) {
        drop(self.wait_for(|state| state.requests.iter().any(&is)));
    }

    /// Waits until what is stored satisfies somebody, and returns it.
    pub(crate) fn wait_for_stored(&self, is: impl Fn(&[Stored]) -> bool) -> Vec<Stored> {
        let state = self.wait_for(|state| is(state.book.stored()));
        state.book.stored().to_vec()
    }

    /// Waits until so many peers have gone away from requests that hung.
    pub(crate) fn wait_for_left(&self, count: usize) {
        drop(self.wait_for(|state| state.left >= count));
    }

    fn wait_for(&self, is: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let (state, waited) = self
            .shared
            .changed
            .wait_timeout_while(self.shared.state(), DEADLINE, |state| !is(state))
            .expect("no test panics with the lock held");
        if waited.timed_out() {
            let requests = state.requests.iter().rev().take(10).cloned();
            let requests: Vec<_> = requests.collect();
            // Nobody may panic with the lock: connections go on.
            drop(state);
            panic!("waited {DEADLINE:?} in vain; the last requests: {requests:?}");
        }
        state
    }
}

/// Answers one request after another.
fn converse<S: Read + Write>(
    stream: &mut S,
    shared: &Shared,
    socket: impl Fn(&S) -> &TcpStream,
    encrypted: bool,
) {
    while let Some((mut request, mut rest)) = wire::read_head(stream) {
        request.encrypted = encrypted;
        let (fault, body) = {
            let mut state = shared.state();
            state.under_way += 1;
            state.most_under_way = state.most_under_way.max(state.under_way);
            let fault = state.faults.pop_front();
            let early = matches!(fault, Some(Fault::Early(_)));
            drop(state);
            (fault, early || wire::read_body(stream, &request, &mut rest))
        };
        if !body {
            // The peer broke off.
            shared.state().under_way -= 1;
            return;
        }
        request.body = rest;
        let goes_on = request.header("connection").is_none_or(|it| it != "close");
        let answer = {
            let mut state = shared.state();
            let answer = match &fault {
                None | Some(Fault::Late(_) | Fault::Held) => Some(state.book.check(&request)),
                Some(Fault::Answer(answer) | Fault::Early(answer)) => Some(answer.clone()),
                Some(_) => None,
            };
            state.requests.push(request);
            shared.changed.notify_all();
            answer
        };
        match &fault {
            Some(Fault::Late(delay)) => thread::sleep(*delay),
            Some(Fault::Raw(bytes) | Fault::Hang(bytes)) => {
                let _ = stream.write_all(bytes);
                let _ = stream.flush();
            }
            Some(Fault::Held) => {
                let held = |state: &mut State| !state.released;
                drop(shared.changed.wait_while(shared.state(), held));
            }
            Some(Fault::Reset(bytes)) => {
                let _ = stream.write_all(bytes);
                let _ = stream.flush();
                let _ = SockRef::from(socket(stream)).set_linger(Some(Duration::ZERO));
            }
            _ => {}
        }
        if let Some(Fault::Trickle(bytes, apart)) = &fault {
            let mut bytes = bytes.iter().cycle();
            while bytes.next().is_some_and(|byte| {
                let written = stream.write_all(&[*byte]);
                thread::sleep(*apart);
                written.is_ok()
            }) {}
        }
        if let Some(Fault::Hang(_) | Fault::Trickle(..)) = fault {
            let _ = stream.read_to_end(&mut Vec::new());
            let mut state = shared.state();
            state.left += 1;
            state.under_way -= 1;
            shared.changed.notify_all();
            return;
        }
        // Before the answer, or the peer's next request might be counted beside this one.
        shared.state().under_way -= 1;
        let Some(answer) = answer else { return };
        if stream.write_all(&answer.bytes()).is_err() || !goes_on {
            if matches!(fault, Some(Fault::Early(_))) {
                // What is left unread would reset the connection before the answer is read.
                let _ = socket(stream).shutdown(std::net::Shutdown::Write);
                let _ = stream.read_to_end(&mut Vec::new());
            }
            return;
        }
    }
}
