//! Requests and answers as they are on the wire.

use serde_json::Value;
use std::io::{Read, Write};

/// The longest head, in bytes.
const HEAD_MAX: usize = 16 * 1024;

/// A request as it came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// With its query.
    pub(crate) path: String,
    /// Names and values as they were written.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Whether it came through TLS.
    pub(crate) encrypted: bool,
}

impl Request {
    /// The first header of a name, in whatever case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter();
        let found = found.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    fn length(&self) -> Option<usize> {
        let length = self.header("content-length")?;
        Some(length.parse().expect("a length is a number"))
    }
}

/// An answer as it goes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

impl Answer {
    /// JSON.
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self {
            status,
            headers: vec![("Content-Type", "application/json;charset=utf-8".into())],
            body: body.to_string(),
        }
    }

    /// Plain text, or nothing.
    pub(crate) fn text(status: u16, body: &str) -> Self {
        Self {
            status,
            headers: vec![("Content-Type", "text/plain".into())],
            body: body.into(),
        }
    }

    /// With one header more.
    pub(crate) fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut line = |text: String| {
            bytes.extend_from_slice(text.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        };
        line(format!("HTTP/1.1 {} Reason", self.status));
        for (name, value) in &self.headers {
            line(format!("{name}: {value}"));
        }
        if self.status != 204 {
            line(format!("Content-Length: {}", self.body.len()));
        }
        line(String::new());
        bytes.extend_from_slice(self.body.as_bytes());
        bytes
    }
}

/// Reads a head, and returns what of the body came along. Nothing when the peer has nothing more to say.
pub(super) fn read_head(stream: &mut impl Read) -> Option<(Request, Vec<u8>)> {
    let mut bytes: Vec<u8> = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        assert!(bytes.len() < HEAD_MAX, "a head that does not end");
        if bytes.first().is_some_and(|byte| !byte.is_ascii_uppercase()) {
            // Not HTTP: TLS perhaps.
            return None;
        }
        let mut more = [0; 1024];
        match stream.read(&mut more) {
            Ok(length) if length > 0 => bytes.extend_from_slice(&more[..length]),
            _ => return None,
        }
    };
    let rest = bytes.split_off(end + 4);
    let head = String::from_utf8(bytes).expect("a head is text");
    let mut lines = head.trim_end().split("\r\n");
    let mut first = lines.next()?.split(' ');
    let request = Request {
        method: first.next()?.into(),
        path: first.next()?.into(),
        headers: lines
            .map(|line| line.split_once(": ").expect("a header has a name"))
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
        ..Request::default()
    };
    assert_eq!(first.next(), Some("HTTP/1.1"));
    Some((request, rest))
}

/// Reads the rest of a body; false when the peer breaks off.
pub(super) fn read_body<S: Read + Write>(
    stream: &mut S,
    request: &Request,
    body: &mut Vec<u8>,
) -> bool {
    let length = request.length().unwrap_or(0);
    assert!(body.len() <= length, "more bytes than Content-Length says");
    if request.header("expect").is_some() {
        let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
    }
    let left = (length - body.len()) as u64;
    stream.take(left).read_to_end(body).is_ok() && body.len() == length
}
