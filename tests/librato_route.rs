//! The way to a Librato: through proxies, encrypted, and with an environment that would lead elsewhere; and
//! that no thread stays on it.

#[allow(
    dead_code,
    unused_imports,
    reason = "each test program uses a part of it"
)]
mod librato_api;

use librato_api::{
    Authority, FakeApi, Fault, HASTY, Manner, PATIENT, Rules, batch, counts, error, kind, options,
    post, proxy, proxy_on,
};
use statsd_fast::deliver::librato::Options;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Instant;
use std::{env, fs, thread};

#[test]
fn posts_go_through_a_proxy_that_is_asked_to_connect() {
    let api = FakeApi::start(Rules::default());
    let (address, heads) = proxy(Manner::Connects);
    let through = |credentials: &str| Options {
        proxy: Some(format!("http://{credentials}{address}")),
        ..options(api.url())
    };
    let host = format!("127.0.0.1:{}", api.port());
    let plain = format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    assert_eq!(counts(&post(&through(""), vec![batch("a")])), [1, 0, 0]);
    assert_eq!(heads.recv(), Ok(format!("{plain}\r\n")));
    assert_eq!(
        counts(&post(&through("user:pass@"), vec![batch("a")])),
        [1, 0, 0]
    );
    let asks = "Proxy-Authorization: Basic dXNlcjpwYXNz\r\n";
    assert_eq!(heads.recv(), Ok(format!("{plain}{asks}\r\n")));
    // The proxy's credentials are not for the server.
    for request in api.requests() {
        assert_eq!(request.header("proxy-authorization"), None);
        assert_eq!(request.header("host"), Some(&*host));
    }
}

#[test]
fn a_proxy_may_have_an_ipv6_address() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        println!("SKIPPED: this machine has no ::1");
        return;
    };
    let api = FakeApi::start(Rules::default());
    let (address, heads) = proxy_on(listener, Manner::Connects);
    assert!(address.starts_with("[::1]:"), "{address}");
    let through = Options {
        proxy: Some(format!("http://{address}")),
        ..options(api.url())
    };
    assert_eq!(counts(&post(&through, vec![batch("a")])), [1, 0, 0]);
    let head = heads.recv().expect("a request");
    let host = format!("127.0.0.1:{}", api.port());
    assert!(head.starts_with(&format!("CONNECT {host} ")), "{head}");
}

#[test]
fn a_proxy_that_does_not_connect_is_named() {
    for (manner, says) in [
        (
            Manner::Refuses("HTTP/1.1 407 Who?\r\n\r\n"),
            "other credentials",
        ),
        (
            Manner::Refuses("HTTP/1.1 403 No\r\n\r\n"),
            "HTTP/1.1 403 No",
        ),
        (
            Manner::Refuses("HTTP/1.1 403 You sent dXNlcjpzZWNyZXQ= or user:secret\r\n\r\n"),
            "You sent *** or user:***",
        ),
        (Manner::Refuses("HTTP/1.1 200 cut"), "the proxy"),
        (Manner::Hangs, "no answer in time"),
        (Manner::Leaves, "the proxy"),
    ] {
        let (address, heads) = proxy(manner);
        let options = Options {
            proxy: Some(format!("http://user:secret@{address}")),
            post_timeout: HASTY,
            ..options("http://127.0.0.1:1")
        };
        let outcome = post(&options, vec![batch("a")]);
        assert_eq!(counts(&outcome), [0, 1, 2], "{says}");
        assert_eq!(outcome.left, [batch("a")], "nothing was sent to the API");
        let error = error(&outcome);
        assert!(error.contains(&format!("the proxy {address}: ")), "{error}");
        assert!(error.contains(says) && !error.contains("secret"), "{error}");
        assert_eq!(heads.try_iter().count(), 2);
    }
}

/// Runs one of the ignored tests below alone in a process of its own, with these variables. What the TLS
/// library trusts and where minreq looks for a proxy is read from the environment.
fn alone(test: &str, variables: &[(&str, &str)]) {
    let program = env::current_exe().expect("this program");
    let child = Command::new(program)
        .args([test, "--exact", "--ignored", "--nocapture"])
        .envs(variables.iter().copied())
        .env("STATSD_FAST_TEST_ALONE", test)
        .output()
        .expect("this program starts");
    let text = String::from_utf8_lossy(&child.stdout) + String::from_utf8_lossy(&child.stderr);
    assert!(
        child.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

/// Whether a test was started by [`alone`]; else its environment is not what it needs.
fn is_alone(test: &str) -> bool {
    env::var_os("STATSD_FAST_TEST_ALONE").is_some_and(|it| it == test)
}

#[test]
fn certificates_are_checked() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = file.join(format!("librato-authority-{}.pem", std::process::id()));
    let authority = file.to_str().expect("a path that is text");
    alone(
        "alone_certificates_are_checked",
        &[("SSL_CERT_FILE", authority)],
    );
    fs::remove_file(file).expect("it was written");
}

#[test]
#[ignore = "certificates_are_checked runs it"]
fn alone_certificates_are_checked() {
    if !is_alone("alone_certificates_are_checked") {
        return;
    }
    let authority = Authority::new();
    let file = env::var_os("SSL_CERT_FILE").expect("where to look for authorities");
    fs::write(file, authority.pem()).expect("a file of authorities");
    let rules = || Rules {
        https_only: true,
        ..Rules::default()
    };
    let good = FakeApi::start_encrypted(rules(), authority.sign("localhost"));
    assert_eq!(
        counts(&post(&options(good.url()), vec![batch("a"), batch("b")])),
        [2, 0, 0]
    );
    let host = format!("localhost:{}", good.port());
    assert_eq!(good.requests()[0].header("host"), Some(&*host));

    let (address, heads) = proxy(Manner::Connects);
    let through = Options {
        proxy: Some(format!("http://{address}")),
        ..options(good.url())
    };
    assert_eq!(counts(&post(&through, vec![batch("a")])), [1, 0, 0]);
    assert!(
        heads
            .recv()
            .expect("a request")
            .starts_with(&format!("CONNECT {host} "))
    );

    for (encrypts, says) in [
        (
            authority.sign("elsewhere.example"),
            "another name for the server",
        ),
        (
            authority.sign_expired("localhost"),
            "a certificate out of date",
        ),
        (Authority::new().sign("localhost"), "SSL_CERT_FILE"),
    ] {
        let api = FakeApi::start_encrypted(rules(), encrypts);
        let outcome = post(&options(api.url()), vec![batch("a")]);
        assert_eq!(counts(&outcome), [0, 1, 2], "{says}");
        assert_eq!(outcome.left, [batch("a")], "it did not get that far");
        let error = error(&outcome);
        assert!(error.contains(says), "{error}");
        assert_eq!(api.requests().len(), 0, "{says}");
    }

    // What was sent may be stored.
    good.script([Fault::Reset(Vec::new()), Fault::Raw(Vec::new())]);
    let outcome = post(&options(good.url()), vec![batch("a")]);
    assert_eq!((outcome.lost, outcome.left.len()), (1, 0), "{outcome:?}");

    let clear = FakeApi::start(Rules::default());
    let wrong = clear.url().replace("http://127.0.0.1", "https://localhost");
    assert_eq!(counts(&post(&options(&wrong), vec![batch("a")])), [0, 1, 2]);
    let wrong = good.url().replace("https://localhost", "http://127.0.0.1");
    assert_eq!(counts(&post(&options(&wrong), vec![batch("a")])), [0, 1, 2]);
}

#[test]
fn no_thread_outlives_its_post() {
    alone("alone_no_thread_outlives_its_post", &[]);
}

/// The names of this process's threads that are ours.
fn threads() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").expect("a list of threads");
    tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .filter(|name| name.starts_with("librato-"))
        .collect()
}

#[test]
#[ignore = "no_thread_outlives_its_post runs it"]
fn alone_no_thread_outlives_its_post() {
    if !is_alone("alone_no_thread_outlives_its_post") {
        return;
    }
    // Takes connections and says nothing: no answer, no handshake, no answer of a proxy.
    let deaf = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = deaf.local_addr().expect("it is bound");
    for (api, proxy) in [
        (format!("http://{address}"), None),
        (format!("https://{address}"), None),
        (
            "https://127.0.0.1:1".into(),
            Some(format!("http://{address}")),
        ),
    ] {
        let options = Options {
            proxy,
            post_timeout: HASTY,
            ..options(&api)
        };
        let outcome = post(&options, vec![batch("a"), batch("b")]);
        assert_eq!(counts(&outcome), [0, 2, 4]);
        assert_eq!(kind(&outcome), ErrorKind::TimedOut, "{outcome:?}");
        // Those that wait for the peer would wait as long as this test has it open.
        let start = Instant::now();
        while !threads().is_empty() {
            assert!(start.elapsed() < PATIENT, "{api}: {:?}", threads());
            thread::yield_now();
        }
    }
}

#[test]
fn proxies_in_the_environment_are_not_used() {
    let nobody = "http://127.0.0.1:1";
    let variables = ["http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy"];
    let variables = variables.map(|name| (name, nobody));
    alone("alone_proxies_in_the_environment_are_not_used", &variables);
}

#[test]
#[ignore = "proxies_in_the_environment_are_not_used runs it"]
fn alone_proxies_in_the_environment_are_not_used() {
    if !is_alone("alone_proxies_in_the_environment_are_not_used") {
        return;
    }
    let api = FakeApi::start(Rules::default());
    assert_eq!(
        counts(&post(&options(api.url()), vec![batch("a")])),
        [1, 0, 0]
    );
}

#[test]
fn without_authorities_nobody_is_trusted() {
    let test = "alone_without_authorities_nobody_is_trusted";
    alone(test, &[("SSL_CERT_FILE", "/nonexistent/authorities.pem")]);
}

#[test]
#[ignore = "without_authorities_nobody_is_trusted runs it"]
fn alone_without_authorities_nobody_is_trusted() {
    if !is_alone("alone_without_authorities_nobody_is_trusted") {
        return;
    }
    let encrypts = Authority::new().sign("localhost");
    let api = FakeApi::start_encrypted(Rules::default(), encrypts);
    let outcome = post(&options(api.url()), vec![batch("a")]);
    assert_eq!(counts(&outcome), [0, 1, 2]);
    assert!(error(&outcome).contains("SSL_CERT_FILE"), "{outcome:?}");
}
