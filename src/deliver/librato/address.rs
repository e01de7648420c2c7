//! Where posts go, as the configuration has it: the API's address, and a proxy's.

use std::fmt;
use std::net::Ipv6Addr;

/// The API: `scheme://host[:port][/base]`. Credentials, query and fragment are ignored, as
/// the reference does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Api {
    /// Whether the connection is encrypted.
    pub(super) https: bool,
    /// A name, or an IPv4 address.
    pub(super) host: String,
    /// The scheme's own unless one was given.
    pub(super) port: u16,
    /// What stands before every route: empty, or `/` and more, without a `/` at its end.
    base: String,
}

impl Api {
    /// Reads an address.
    ///
    /// # Errors
    /// What is wrong with it, and how it should be; never a credential that stands in it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = scheme(text).unwrap_or_default();
        let https = match scheme.as_str() {
            "https" => true,
            "http" => false,
            _ => return Err("an address begins with `https://` or `http://`".into()),
        };
        let (_, authority, path) = split(rest);
        let (host, port) = host_and_port(authority, if https { 443 } else { 80 })?;
        let host = match host {
            Host::Name(name) => name,
            // The HTTP client reads the host up to the first colon.
            Host::V6(address) => {
                return Err(format!(
                    "the host cannot be an IPv6 address; give it a name, e.g. with the line \
                     `{address} librato-api` in /etc/hosts, and write `{scheme}://librato-api:{port}`"
                ));
            }
        };
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let base = path.trim_end_matches('/');
        if !base.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("a path has no spaces or letters beyond ASCII; write them as %XX".into());
        }
        Ok(Self {
            https,
            host,
            port,
            base: base.into(),
        })
    }

    /// The URL of a route. The scheme's own port is left out, and so it is in the `Host` header.
    pub(super) fn url(&self, route: &str) -> String {
        let (scheme, own) = if self.https {
            ("https", 443)
        } else {
            ("http", 80)
        };
        let (host, base) = (&self.host, &self.base);
        if self.port == own {
            format!("{scheme}://{host}{base}{route}")
        } else {
            format!("{scheme}://{host}:{}{base}{route}", self.port)
        }
    }
}

/// A proxy: `http://[user[:password]@]host[:port]`.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Proxy {
    /// A name or an address.
    pub(super) host: String,
    /// 80 unless one was given.
    pub(super) port: u16,
    /// The value of the header that lets us in, if one is needed.
    pub(super) authorization: Option<String>,
    /// The password in it; it is shown nowhere.
    pub(super) password: String,
}

impl Proxy {
    /// Reads an address.
    ///
    /// # Errors
    /// What is wrong with it, and how it should be; never the credentials.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match scheme(text) {
            Some((scheme, rest)) if scheme == "http" => {
                let (credentials, authority, _) = split(rest);
                let (host, port) = host_and_port(authority, 80)?;
                let (user, password) = credentials
                    .map(|credentials| credentials.split_once(':').unwrap_or((credentials, "")))
                    .map(|(user, password)| (unescape(user), unescape(password)))
                    .unwrap_or_default();
                let authorization = credentials.map(|_| basic(&user, &password));
                Ok(Self {
                    host: match host {
                        Host::Name(name) => name,
                        Host::V6(address) => address.to_string(),
                    },
                    port,
                    authorization,
                    password,
                })
            }
            Some((scheme, _)) if scheme == "https" => Err(
                "a proxy is spoken to in plain HTTP: what goes through it is encrypted all the same \
                 when the API is https; write `http://`"
                    .into(),
            ),
            _ => Err("a proxy's address is `http://host:port`".into()),
        }
    }
}

/// Not derived: the password must not get into a log.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

/// Host and port, as messages have them: no credentials.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = (&self.host, self.port);
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

/// The scheme in lower case, and what comes behind `://`.
fn scheme(text: &str) -> Option<(String, &str)> {
    let (scheme, rest) = text.trim().split_once("://")?;
    Some((scheme.to_ascii_lowercase(), rest))
}

/// Credentials, host with port, and the path with all that follows.
fn split(text: &str) -> (Option<&str>, &str, &str) {
    let end = text.find(['/', '?', '#']).unwrap_or(text.len());
    let (authority, path) = text.split_at(end);
    match authority.rsplit_once('@') {
        Some((credentials, host)) => (Some(credentials), host, path),
        None => (None, authority, path),
    }
}

/// What stands for a host.
enum Host {
    /// A name, or an IPv4 address.
    Name(String),
    /// What stood in brackets.
    V6(Ipv6Addr),
}

fn host_and_port(text: &str, default: u16) -> Result<(Host, u16), String> {
    // The colons of an address are no end of it.
    let end = match text.starts_with('[') {
        true => text.find(']').unwrap_or(text.len()),
        false => 0,
    };
    let (host, port) = match text[end..].split_once(':') {
        Some((host, port)) => (&text[..end + host.len()], port),
        None => (text, ""),
    };
    let port = match port {
        "" => default,
        port => {
            let port = port.parse().ok().filter(|port| *port > 0);
            port.ok_or("a port is a number from 1 to 65535")?
        }
    };
    if host.starts_with('[') {
        let inside = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        let address = inside.and_then(|it| it.parse().ok());
        let address = address.ok_or("what stands in brackets is an IPv6 address")?;
        return Ok((Host::V6(address), port));
    }
    if host.is_empty() {
        return Err("there is no host in it".into());
    }
    let is_of_names = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if !host.bytes().all(is_of_names) {
        return Err(
            "a host consists of letters of ASCII, digits, `.`, `-` and `_`; \
             other letters are written in the form that begins with xn--"
                .into(),
        );
    }
    Ok((Host::Name(host.into()), port))
}

/// The value of a header for basic authentication.
pub(super) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64(format!("{user}:{password}").as_bytes()))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * at)) as usize & 63];
            text.push(if at <= group.len() { digit.into() } else { '=' });
        }
    }
    text
}

/// Replaces `%XX` by the byte it stands for.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digit = |at: usize| char::from(*tail.get(at)?).to_digit(16);
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high << 4 | low) as u8);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(api: &str) -> String {
        Api::parse(api).expect("an address").url("/v1/metrics")
    }

    /// Decision D11 in README: the port is the scheme's own.
    #[test]
    fn an_api_is_scheme_host_port_and_base() {
        for (api, expected) in [
            ("https://a.example", "https://a.example/v1/metrics"),
            ("HTTPS://a.example:443/", "https://a.example/v1/metrics"),
            ("http://a.example", "http://a.example/v1/metrics"),
            ("http://a.example:/", "http://a.example/v1/metrics"),
            ("http://a.example:443", "http://a.example:443/v1/metrics"),
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080/v1/metrics"),
            ("http://a/b/c/?d=e#f", "http://a/b/c/v1/metrics"),
            ("http://user:secret@a?b", "http://a/v1/metrics"),
            (" http://a ", "http://a/v1/metrics"),
        ] {
            assert_eq!(url(api), expected, "{api}");
        }
        let api = Api::parse("http://a").expect("an address");
        assert_eq!((api.port, api.https), (80, false));
        let api = Api::parse("https://a").expect("an address");
        assert_eq!((api.port, api.https), (443, true));
    }

    #[test]
    fn what_is_no_api_is_refused_with_a_reason() {
        for (api, reason) in [
            ("", "begins with"),
            ("a.example", "begins with"),
            ("ftp://a", "begins with"),
            ("http://", "no host"),
            ("http://user@:80", "no host"),
            ("http://a:0", "a port"),
            ("http://a:65536", "a port"),
            ("http://a:b", "a port"),
            (
                "http://[::1]:8080/",
                "`::1 librato-api` in /etc/hosts, and write `http://librato-api:8080`",
            ),
            ("https://[2001:db8::1]", "write `https://librato-api:443`"),
            ("http://[::1]:0", "a port"),
            ("http://[::1]8080", "in brackets"),
            ("http://[::1", "in brackets"),
            ("http://[]:80", "in brackets"),
            ("http://::1", "a port"),
            ("http://m\u{fc}nchen", "xn--"),
            ("http://a b", "a host"),
            ("http://a/b c", "a path"),
        ] {
            let error = Api::parse(api).expect_err(api);
            assert!(error.contains(reason), "{api}: {error}");
        }
    }

    #[test]
    fn a_proxy_may_ask_for_credentials() {
        let proxy = Proxy::parse("http://user:p%40ss@proxy:3128/").expect("an address");
        assert_eq!((proxy.host.as_str(), proxy.port), ("proxy", 3128));
        assert_eq!(proxy.authorization, Some(basic("user", "p@ss")));
        assert_eq!(proxy.password, "p@ss");
        assert_eq!(format!("{proxy:?}"), "Proxy(proxy:3128)");
        let proxy = Proxy::parse("http://proxy").expect("an address");
        assert_eq!((proxy.port, proxy.authorization), (80, None));
        let proxy = Proxy::parse("http://user@[2001:db8::1]:3128").expect("an address");
        assert_eq!((proxy.host.as_str(), proxy.port), ("2001:db8::1", 3128));
        assert_eq!(format!("{proxy:?}"), "Proxy([2001:db8::1]:3128)");
        let proxy = Proxy::parse("http://[::1]/").expect("an address");
        assert_eq!((proxy.host.as_str(), proxy.port), ("::1", 80));
        for (proxy, reason) in [
            ("https://u:secret@proxy", "plain HTTP"),
            ("socks5://proxy", "`http://host:port`"),
            ("proxy:3128", "`http://host:port`"),
            ("http://u:secret@", "no host"),
            ("http://u:secret@[fe80::1%eth0]:3128", "in brackets"),
        ] {
            let error = Proxy::parse(proxy).expect_err(proxy);
            assert!(error.contains(reason), "{proxy}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn credentials_are_encoded() {
        // The vectors of RFC 4648, and the pair that the reference was seen to send.
        for (plain, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
            ("\u{ff}?>", "w78/Pg=="),
        ] {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
        let header = "Basic dXNlckBleGFtcGxlLmNvbTp0b2sxMjM=";
        assert_eq!(basic("user@example.com", "tok123"), header);
        assert_eq!(unescape("%41%c3%bc%4%%zz+"), "A\u{fc}%4%%zz+");
    }
}
