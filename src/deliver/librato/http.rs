//! One POST and its answer. This is the only file that knows which HTTP client we use.
//!
//! What the client, minreq, would do on its own and must not, and what keeps it from that:
//!
//! * Its timeouts are whole seconds, kept by a thread that it leaves behind, and cover neither the look-up
//!   of a name nor a handshake or a proxy's answer: it is given none, and [`super::tunnel`] keeps the
//!   deadline.
//! * It takes a proxy from the environment, waits for a proxy without end and panics when one goes away:
//!   the only proxy it meets is the tunnel's entrance.
//! * It follows redirections, with the credentials: that is switched off.
//! * It reads a body without end, and heads almost: we stop at [`BODY_MAX`], the tunnel at [`ANSWER_MAX`].
//! * It takes an answer that is none for a status of 503, half a status for a whole one, and a head that
//!   breaks off for a complete one: an answer counts when its head has ended. Encrypted we see no head: one
//!   that the server ends in the middle, as TLS ends a connection, counts as complete.
//! * It refuses answers over a header, and panics over some, in a thread of its own: the status counts all
//!   the same, where we see it, or a post that was taken would be sent again.

use super::address::{Api, Proxy, basic};
use super::reply::Reply;
use super::tunnel::{self, Carried, ENTRANCE_USER, Entrance, Route};
use std::fmt;
use std::io::{self, Read};
use std::time::Instant;

/// How much of an answer's body is read, in bytes.
const BODY_MAX: u64 = 1024 * 1024;

/// How much a peer may say in all, certificates included, in bytes.
const ANSWER_MAX: u64 = 4 * BODY_MAX;

/// The most that a TLS client says in records of application data before its request, in bytes: the end of
/// its handshake and an alert come to 88. The head of a request alone is longer than this.
const HANDSHAKE_DATA_MAX: u64 = 128;

/// What we call ourselves.
const USER_AGENT: &str = concat!("statsd-fast/", env!("CARGO_PKG_VERSION"));

/// The reason that the client makes up for an answer without a status line.
const NO_STATUS_LINE: &str = "Server did not provide a status line";

/// A post without an answer.
#[derive(Debug)]
pub(super) struct Unanswered {
    /// Why.
    pub(super) error: io::Error,
    /// Whether any of the request may have gone out; if not, the server has not processed it.
    pub(super) sent: bool,
}

impl Unanswered {
    fn unsent(error: io::Error) -> Self {
        Self { error, sent: false }
    }
}

/// Posts to one API. A connection for each post, from any thread.
pub(super) struct Client {
    api: Api,
    proxy: Option<Proxy>,
    authorization: String,
}

impl Client {
    /// Connects to nothing yet.
    pub(super) fn new(api: Api, proxy: Option<Proxy>, email: &str, token: &str) -> Self {
        Self {
            api,
            proxy,
            authorization: basic(email, token),
        }
    }

    /// Where a route leads, for messages: without credentials.
    pub(super) fn url(&self, route: &str) -> String {
        self.api.url(route)
    }

    /// What we show to the server and to the proxy, and must not show to anybody else.
    pub(super) fn credentials(&self) -> impl Iterator<Item = &str> {
        let proxy = self.proxy.iter();
        let of_proxy =
            proxy.flat_map(|proxy| [proxy.authorization.as_deref(), Some(&proxy.password)]);
        [Some(&*self.authorization)]
            .into_iter()
            .chain(of_proxy)
            .flatten()
            .map(|secret| secret.trim_start_matches("Basic "))
    }

    /// Posts JSON and waits for the answer, at most until the deadline.
    ///
    /// # Errors
    /// When there was no answer, for whatever reason.
    pub(super) fn post(
        &self,
        route: &str,
        body: &[u8],
        deadline: Instant,
    ) -> Result<Reply, Unanswered> {
        let way = Route {
            host: &self.api.host,
            port: self.api.port,
            proxy: self.proxy.as_ref(),
        };
        let peer = tunnel::dial(&way, deadline).map_err(Unanswered::unsent)?;
        let request = minreq::post(self.url(route))
            .with_header("Authorization", &*self.authorization)
            .with_header("Content-Type", "application/json")
            .with_header("User-Agent", USER_AGENT)
            .with_header("Connection", "close")
            .with_body(body)
            .with_follow_redirects(false);
        let carried = tunnel::carry(&peer, ANSWER_MAX, deadline, |entrance| {
            exchange(request, entrance, deadline)
        });
        let Carried {
            answer,
            heard,
            said,
        } = carried.map_err(Unanswered::unsent)?;
        let sent = match self.api.https {
            true => said.data > HANDSHAKE_DATA_MAX,
            false => said.bytes > 0,
        };
        // What the client does not bear may still have a status. Encrypted, we see none.
        let status = heard.status.filter(|_| !self.api.https);
        let status = status.filter(|_| heard.empty_line || heard.broken.is_none());
        if let (Some(Err(_)) | None, Some(status)) = (&answer, status) {
            return Ok(Reply {
                status,
                ..Reply::default()
            });
        }
        let error = match (answer, heard.broken) {
            (Some(Ok(reply)), _) if self.api.https || heard.empty_line => return Ok(reply),
            (Some(Ok(_)), None) => io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the answer broke off in its head",
            ),
            // What the client makes of a broken connection says less than what broke it.
            (_, Some(broken)) => broken,
            (Some(Err(error)), None) => error,
            (None, None) => io::Error::other(
                "the HTTP client panicked over the answer; please report the message above",
            ),
        };
        Err(Unanswered { error, sent })
    }
}

/// Not derived: the credentials must not get into a log.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({}, {:?})", self.url(""), self.proxy)
    }
}

fn exchange(request: minreq::Request, entrance: &Entrance, deadline: Instant) -> io::Result<Reply> {
    let (address, password) = (entrance.address, &entrance.password);
    let proxy = minreq::Proxy::new(format!("http://{ENTRANCE_USER}:{password}@{address}"));
    let request = request.with_proxy(proxy.map_err(as_io)?);
    let mut response = request.send_lazy().map_err(as_io)?;
    if Instant::now() >= deadline {
        // The head may be what there was of it when the tunnel was shut.
        return Err(tunnel::timed_out());
    }
    if response.status_code == 503 && response.reason_phrase == NO_STATUS_LINE {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "no answer, or none in HTTP",
        ));
    }
    if !(100..1000).contains(&response.status_code) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the answer broke off in its first line",
        ));
    }
    let header = |name: &str| {
        let found = response
            .headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim().to_owned())
    };
    let mut reply = Reply {
        status: response.status_code,
        json: header("content-type")
            .is_some_and(|kind| kind.to_ascii_lowercase().starts_with("application/json")),
        retry_after: header("retry-after"),
        location: header("location"),
        body: Vec::new(),
        cut: false,
    };
    // The status decides; a body that breaks off is read as far as it goes.
    let _ = (&mut response)
        .take(BODY_MAX + 1)
        .read_to_end(&mut reply.body);
    reply.cut = reply.body.len() as u64 > BODY_MAX;
    reply.body.truncate(BODY_MAX as usize);
    Ok(reply)
}

fn as_io(error: minreq::Error) -> io::Error {
    match error {
        minreq::Error::IoError(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
    }
}
