//! Configuration: what was written -> what the wings need.
//!
//! `javascript` reads the text and evaluates it in an `environment`, `settings` says which keys there are,
//! `check` gives values their types, `build` fills the options; `json` shows what a text came to.
//! Everything wrong in a file is reported at once, each with its place.

mod build;
mod check;
mod coerce;
mod environment;
mod javascript;
mod json;
mod nesting;
mod reply;
mod secret;
pub mod settings;
mod value;

use crate::runtime::log;
use crate::runtime::privilege::Identity;
use crate::{admin, deliver, flush, ingest, proxy, state, takeover};
use environment::Environment;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

/// Everything the server is built from. No wing knows this type: each gets its own options.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Who the process is to be once its sockets are bound; `None` leaves it what it is, and so does reading
    /// a file without a look at the machine (`user`, `group`).
    pub identity: Option<Identity>,
    /// Workers a listener gets; `None` is one for each core this process may use (`threads`, `--threads`).
    pub threads: Option<usize>,
    /// Pin each worker to a core (`pinThreads`).
    pub pin: bool,
    /// The listeners, in the order written; never empty.
    pub listeners: Vec<ingest::source::Listen>,
    /// How lines are read.
    pub ingest: ingest::Options,
    /// What a flush does.
    pub flush: flush::Options,
    /// Backends in the order written; may be empty.
    pub backends: Vec<deliver::Backend>,
    /// What may wait for each backend.
    pub outbox: deliver::outbox::Limits,
    /// Where flushes that a backend could not take are kept on disk (`spoolDir`).
    pub spool: Option<deliver::spool::Options>,
    /// What is kept over restarts, and where (`stateFile`).
    pub state: Option<state::Options>,
    /// Where this server may be taken over (`takeoverSocket`).
    pub takeover: Option<takeover::Options>,
    /// The admin interface.
    pub admin: admin::Options,
    /// How long stopping may take before what is left is counted as dropped (`stopDeadline`).
    pub stop_deadline: Duration,
    /// How many names senders may bring (`maxNames`).
    pub max_names: usize,
    /// Resident bytes above which nothing new is taken in (`memoryLimit`).
    pub memory_limit: Option<u64>,
    /// Where the log goes, and how much of it there is.
    pub log: log::Options,
    /// Title of the process; `None` leaves it (`title`).
    pub title: Option<String>,
    /// Look for changes of the file while running (`automaticConfigReload`).
    pub watch: bool,
}

const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// Problems that are shown of a file, and warnings.
const FINDINGS_MAX: usize = 100;

/// Longest file read, in bytes; a longer one is no configuration but a mistaken path.
const FILE_BYTES_MAX: usize = 1 << 20;

impl Config {
    /// What runs when no file is given: UDP on port 8125 of all addresses, shown on the console every 10 s.
    pub fn without_file() -> Self {
        Self {
            identity: None,
            threads: None,
            pin: true,
            listeners: vec![ingest::source::Listen::Udp(
                ingest::source::udp::Options::default(),
            )],
            ingest: ingest::Options::default(),
            flush: flush::Options::default(),
            backends: vec![deliver::Backend::Console(
                deliver::console::Options::default(),
            )],
            outbox: deliver::outbox::Limits::default(),
            spool: None,
            state: None,
            takeover: None,
            admin: admin::Options::default(),
            stop_deadline: STOP_DEADLINE,
            max_names: ingest::NAMES_MAX,
            memory_limit: None,
            log: log::Options::default(),
            title: None,
            watch: true,
        }
    }
}

/// Everything a proxy is built from.
#[derive(Debug, Clone, PartialEq)]
pub struct Proxy {
    /// As of a daemon.
    pub identity: Option<Identity>,
    /// Workers a listener gets; `None` is one for each core (`threads`, `forkCount`, `--threads`).
    pub threads: Option<usize>,
    /// Pin each worker to a core (`pinThreads`).
    pub pin: bool,
    /// The listeners, in the order written; never empty.
    pub listeners: Vec<ingest::source::Listen>,
    /// Where lines go, and how.
    pub proxy: proxy::Options,
    /// The admin interface.
    pub admin: admin::Options,
    /// Where the log goes, and how much of it there is.
    pub log: log::Options,
    /// Title of the process; `None` leaves it (`title`).
    pub title: Option<String>,
    /// Look for changes of the file while running (`automaticConfigReload`).
    pub watch: bool,
}

/// A configuration that can run: of a daemon, or of a proxy.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded<C = Config> {
    /// What the wings need.
    pub config: C,
    /// What is odd in the file, in the order of its lines.
    pub warnings: Vec<Finding>,
    /// What the admin interface answers to `config`.
    pub reply: String,
    /// Values of the keys that stay as they are until a restart, for comparing; a key that was not
    /// written has none.
    pub fixed: BTreeMap<&'static str, String>,
}

impl From<Config> for Loaded {
    /// A configuration that nothing is odd about.
    fn from(config: Config) -> Self {
        Self {
            config,
            warnings: Vec::new(),
            reply: String::from("\n"),
            fixed: BTreeMap::new(),
        }
    }
}

impl<C> Loaded<C> {
    /// Keys whose values differ from those of `running` but cannot change while running, in order.
    pub fn refused(&self, running: &Self) -> Vec<&'static str> {
        let keys = self.fixed.keys().chain(running.fixed.keys());
        let mut refused: Vec<_> = keys
            .copied()
            .filter(|key| self.fixed.get(key) != running.fixed.get(key))
            .collect();
        refused.sort_unstable();
        refused.dedup();
        refused
    }
}

/// A place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line, from 1.
    pub line: u32,
    /// Character in the line, from 1.
    pub column: u32,
}

/// Something wrong or odd in a file. Displayed as one line, with the hint in brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file, as the user named it.
    pub origin: String,
    /// Where in it; `None` when it is about something that is not there.
    pub place: Option<Place>,
    /// The key it is about, dotted; may be empty.
    pub key: String,
    /// What it is.
    pub message: String,
    /// What to do; may be empty.
    pub hint: String,
}

impl Finding {
    fn write_line(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin)?;
        // `file:line:column:` is what editors jump to.
        if let Some(Place { line, column }) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        f.write_str(": ")?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_line(f)?;
        if self.hint.is_empty() {
            Ok(())
        } else {
            write!(f, " ({})", self.hint)
        }
    }
}

/// A file that cannot be used, and all reasons why. Displayed as two lines a reason: place and hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What is wrong, in the order of the lines; never empty.
    pub problems: Vec<Finding>,
    /// What is merely odd.
    pub warnings: Vec<Finding>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            problem.write_line(f)?;
            if !problem.hint.is_empty() {
                write!(f, "\n  hint: {}", problem.hint)?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl Error {
    fn whole_file(origin: &str, message: impl Into<String>) -> Self {
        Self::at(origin, None, message, "")
    }

    fn at(origin: &str, place: Option<Place>, message: impl Into<String>, hint: &str) -> Self {
        let (key, message, hint) = (String::new(), message.into(), hint.into());
        Self {
            problems: vec![Finding {
                origin: origin.into(),
                place,
                key,
                message,
                hint,
            }],
            warnings: Vec::new(),
        }
    }
}

/// A file that can be used, with everything in it calculated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evaluated {
    /// One JSON object, a line feed at its end. It is a configuration of the same meaning, but that NaN,
    /// which JSON does not have, has become null, and for what the notes say.
    pub json: String,
    /// What is hidden in it, and what it could not express: a line each.
    pub notes: Vec<String>,
    /// What is odd in the file, in the order of its lines.
    pub warnings: Vec<Finding>,
}

/// Reads and checks a file for a start: what it names is looked for on this machine, which may take as long
/// as a disk or a list of users takes. `process` and `require("os")` in it are about this process.
///
/// # Errors
/// The file cannot be read, or everything that is wrong in it.
pub fn load(path: &Path) -> Result<Loaded, Error> {
    loaded(path, &DAEMON, true)
}

/// Reads and checks a file again for a server that runs: no other file is looked at.
///
/// # Errors
/// Those of [`load`].
pub fn reload(path: &Path) -> Result<Loaded, Error> {
    loaded(path, &DAEMON, false)
}

/// As [`load`], for a file of the proxy.
///
/// # Errors
/// Those of [`load`].
pub fn load_proxy(path: &Path) -> Result<Loaded<Proxy>, Error> {
    loaded(path, &PROXY, true)
}

/// As [`reload`], for a file of the proxy.
///
/// # Errors
/// Those of [`load`].
pub fn reload_proxy(path: &Path) -> Result<Loaded<Proxy>, Error> {
    loaded(path, &PROXY, false)
}

fn loaded<C>(path: &Path, sort: &Sort<C>, looks: bool) -> Result<Loaded<C>, Error> {
    let (text, origin) = text(path)?;
    let environment = Environment::of_this_process();
    examine(&text, &origin, &environment, sort, looks).map(|(_, loaded)| loaded)
}

/// Reads and checks a file, and shows what it comes to.
///
/// # Errors
/// Those of [`load`].
pub fn evaluate(path: &Path) -> Result<Evaluated, Error> {
    let (text, origin) = text(path)?;
    evaluate_text(&text, &origin)
}

/// The same for a text; `origin` is what messages call it.
///
/// # Errors
/// Those of [`parse`].
pub fn evaluate_text(text: &str, origin: &str) -> Result<Evaluated, Error> {
    shown_as_json(text, origin, &DAEMON)
}

/// The same for a file of the proxy.
///
/// # Errors
/// Those of [`load`].
pub fn evaluate_proxy(path: &Path) -> Result<Evaluated, Error> {
    let (text, origin) = text(path)?;
    evaluate_proxy_text(&text, &origin)
}

/// The same for a text of the proxy.
///
/// # Errors
/// Those of [`parse`].
pub fn evaluate_proxy_text(text: &str, origin: &str) -> Result<Evaluated, Error> {
    shown_as_json(text, origin, &PROXY)
}

fn shown_as_json<C>(text: &str, origin: &str, sort: &Sort<C>) -> Result<Evaluated, Error> {
    let environment = Environment::of_this_process();
    let (root, Loaded { warnings, .. }) = examine(text, origin, &environment, sort, true)?;
    let json::Json {
        text: json,
        hidden,
        flagless,
    } = json::json(&root.value);
    let mut notes = Vec::new();
    if !hidden.is_empty() {
        let keys = hidden.join(", ");
        let stars = secret::HIDDEN;
        notes.push(format!(
            "{origin}: {stars} hides what is secret in {keys}; write it in before this is used"
        ));
    }
    if !flagless.is_empty() {
        let keys = flagless.join(", ");
        notes.push(format!(
            "{origin}: the flags of the regular expression in {keys} cannot be written as JSON; \
             keep the expression as it is in the file"
        ));
    }
    Ok(Evaluated {
        json: json + "\n",
        notes,
        warnings,
    })
}

/// Checks a text, without a look at files and users; `origin` is what messages call it.
///
/// # Errors
/// Everything that is wrong in it, or the first syntax error.
pub fn parse(text: &str, origin: &str) -> Result<Loaded, Error> {
    let environment = Environment::of_this_process();
    examine(text, origin, &environment, &DAEMON, false).map(|(_, loaded)| loaded)
}

/// The same for a text of the proxy.
///
/// # Errors
/// Those of [`parse`].
pub fn parse_proxy(text: &str, origin: &str) -> Result<Loaded<Proxy>, Error> {
    let environment = Environment::of_this_process();
    examine(text, origin, &environment, &PROXY, false).map(|(_, loaded)| loaded)
}

/// What a file is for: which keys it has, what they are built into, what the admin interface says of it.
struct Sort<C> {
    table: &'static [settings::Setting],
    build: fn(&check::Values, &Environment, &mut check::Checker<'_>) -> C,
    reply: fn(&value::Node) -> String,
}

const DAEMON: Sort<Config> = Sort {
    table: settings::SETTINGS,
    build: build::config,
    reply: reply::reply,
};

const PROXY: Sort<Proxy> = Sort {
    table: settings::proxy::PROXY_SETTINGS,
    build: build::proxy,
    reply: reply::plain,
};

/// What a text comes to in an environment, and what that means.
fn examine<C>(
    text: &str,
    origin: &str,
    environment: &Environment,
    sort: &Sort<C>,
    looks: bool,
) -> Result<(value::Node, Loaded<C>), Error> {
    let finding = |fault: value::Fault| Finding {
        origin: origin.into(),
        place: Some(fault.place),
        key: String::new(),
        message: fault.message,
        hint: fault.hint,
    };
    let tree = javascript::parse(text, environment).map_err(|faults| Error {
        problems: shown(faults.into_iter().map(finding).collect(), origin),
        warnings: Vec::new(),
    })?;
    let warnings = tree.warnings.into_iter().map(finding).collect();
    let mut checker = check::Checker {
        origin,
        table: sort.table,
        looks,
        problems: Vec::new(),
        warnings,
    };
    let values = checker.file(&tree.root);
    let config = (sort.build)(&values, environment, &mut checker);

    let check::Checker {
        mut problems,
        mut warnings,
        ..
    } = checker;
    // What has no place is about the file as a whole and comes last.
    let by_place = |finding: &Finding| (finding.place.is_none(), finding.place);
    problems.sort_by_key(by_place);
    warnings.sort_by_key(by_place);
    let (problems, warnings) = (shown(problems, origin), shown(warnings, origin));
    if problems.is_empty() {
        let loaded = Loaded {
            config,
            warnings,
            reply: (sort.reply)(&tree.root),
            fixed: check::fixed(sort.table, &values),
        };
        Ok((tree.root, loaded))
    } else {
        Err(Error { problems, warnings })
    }
}

/// The first of the findings, and how many more there are: a file that is something else altogether has one
/// in each line.
fn shown(mut findings: Vec<Finding>, origin: &str) -> Vec<Finding> {
    let more = findings.len().saturating_sub(FINDINGS_MAX);
    findings.truncate(FINDINGS_MAX);
    if more > 0 {
        findings.push(Finding {
            origin: origin.into(),
            place: None,
            key: String::new(),
            message: format!("and {more} more of the kind"),
            hint: String::new(),
        });
    }
    findings
}

/// The text of a file, and what messages call it.
fn text(path: &Path) -> Result<(String, String), Error> {
    let origin = path.display().to_string();
    let bytes = read(path).map_err(|message| Error::whole_file(&origin, message))?;
    Ok((decode(&bytes, &origin)?.to_owned(), origin))
}

/// The bytes of a file, or in one line why there are none.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    if path.is_dir() {
        return Err("cannot be read: it is a directory; name a file in it".into());
    }
    let cannot = |error: std::io::Error| {
        let way_out = match error.kind() {
            std::io::ErrorKind::NotFound => "check the path",
            std::io::ErrorKind::PermissionDenied => {
                "give this user the right to read it, e.g. with chmod a+r"
            }
            _ => "check the path",
        };
        format!("cannot be read: {error}; {way_out}")
    };
    let file = std::fs::File::open(path).map_err(cannot)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(cannot)?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(format!(
            "is longer than {FILE_BYTES_MAX} bytes and hardly a configuration; check the path"
        ));
    }
    Ok(bytes)
}

fn decode<'b>(bytes: &'b [u8], origin: &str) -> Result<&'b str, Error> {
    std::str::from_utf8(bytes).map_err(|error| {
        if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
            return Error::whole_file(
                origin,
                "is UTF-16; save it as UTF-8, e.g. with iconv -f UTF-16 -t UTF-8",
            );
        }
        let (good, rest) = bytes.split_at(error.valid_up_to());
        let good = String::from_utf8_lossy(good);
        let last_line = good.rsplit('\n').next().unwrap_or_default();
        let line = good.bytes().filter(|&byte| byte == b'\n').count() as u32 + 1;
        let column = last_line.trim_start_matches('\u{feff}').chars().count() as u32 + 1;
        let message = format!("the byte 0x{:02x} is not UTF-8", rest[0]);
        let hint = "save the file as UTF-8; if it is Latin-1, with iconv -f LATIN1 -t UTF-8";
        Error::at(origin, Some(Place { line, column }), message, hint)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A file with one key, inside the objects it belongs into.
    fn nested(name: &str, value: &str) -> String {
        let inside = |value, key| format!("{{{key}: {value}}}");
        name.rsplit('.').fold(value.to_owned(), inside)
    }

    fn survives(bytes: &[u8]) {
        if let Ok(text) = decode(bytes, "any")
            && let Err(error) = parse(text, "any")
        {
            assert!(!error.problems.is_empty());
            assert!(!error.to_string().is_empty());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_result_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            survives(&bytes);
        }

        #[test]
        fn any_pieces_of_a_configuration_give_a_result_or_an_error(
            pieces in proptest::collection::vec(
                prop_oneof![
                    proptest::sample::select(settings::SETTINGS.iter().map(|s| s.name).collect::<Vec<_>>()),
                    proptest::sample::select(vec![
                        "{", "}", "[", "]", "(", ")", ":", ",", ";", "'", "\"", "`", "${", "/", "//", "/*",
                        "*/", "\n", "\r", "\\", "-", "+", "=", "=>", "...", "?", "null", "NaN", "1", "0x",
                        "1e999", "'inf'", "metric", "bins", "if", "else", "async", "function", "class",
                        "new", "module.exports", "\u{feff}", "ü", "\u{2028}", "process.env", "process",
                        "require('os')", ".hostname()", ".split", ".replace", ".join", "[0]", ".slice",
                        "/a/g", "parseInt", "||", "??", "?.", "&&", "**", "%", "<<", "===", "<", "!",
                        "'\u{1f600}'", ".length", "typeof", "return", "Math.max",
                    ]),
                ],
                0..60,
            )
        ) {
            survives(pieces.concat().as_bytes());
            survives(format!("{{{}}}", pieces.join(" ")).as_bytes());
        }

        #[test]
        fn any_value_of_any_setting_gives_a_result_or_an_error(
            at in 0..settings::SETTINGS.len(),
            value in "(null|true|[-+]?[0-9.]{1,8}|1e30[0-9]|'.{0,6}'|-?Infinity|NaN\
                      |\\[\\]|\\[\\{\\}\\]|\\[[0-9,]{1,6}\\]|\\{\\}|\\{a: 1\\})",
        ) {
            let name = settings::SETTINGS[at].name;
            survives(nested(name, &value).as_bytes());
        }

        #[test]
        fn any_value_of_any_setting_of_the_proxy_gives_a_result_or_an_error(
            at in 0..settings::proxy::PROXY_SETTINGS.len(),
            value in "(null|true|[-+]?[0-9.]{1,8}|'.{0,6}'|NaN|\\[\\]|\\[\\{\\}\\]|\\{\\}\
                      |\\[\\{host: (1|'h'|''), port: [0-9]{0,5}0, adminport: '[0-9a]{0,5}'\\}\\])",
        ) {
            let name = settings::proxy::PROXY_SETTINGS[at].name;
            if let Err(error) = parse_proxy(&nested(name, &value), "any") {
                prop_assert!(!error.problems.is_empty());
            }
        }
    }

    #[test]
    fn every_default_of_the_table_is_the_default_of_the_wings() {
        let Loaded { config: bare, .. } = parse("{}", "bare").expect("the defaults");
        for setting in settings::SETTINGS {
            let default = setting.default;
            let text = nested(setting.name, default);
            let Loaded {
                config, warnings, ..
            } = parse(&text, setting.name).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(config, bare, "{}", setting.name);
            let expected = match setting.effect {
                _ if default == "undefined" => None,
                settings::Effect::Now => None,
                settings::Effect::Later => Some("has no effect yet"),
                settings::Effect::Never => Some("has no effect, in StatsD neither"),
            };
            // The one without a place is that graphiteHost is missing.
            let placed: Vec<_> = warnings
                .iter()
                .filter(|w| w.place.is_some())
                .map(|w| w.message.as_str())
                .collect();
            assert_eq!(
                placed,
                expected.into_iter().collect::<Vec<_>>(),
                "{}",
                setting.name
            );
        }
    }

    #[test]
    fn every_default_of_the_table_of_the_proxy_is_the_default_of_its_options() {
        const NODES: &str = "nodes: [{host: 'h', port: 1, adminport: 2}]";
        let of = |rest: &str| {
            let text = format!("{{{NODES}, {rest}}}");
            parse_proxy(&text, "proxy").unwrap_or_else(|error| panic!("{text}: {error}"))
        };
        let bare = of("");
        let options = proxy::Options {
            nodes: bare.config.proxy.nodes.clone(),
            ..proxy::Options::default()
        };
        assert_eq!(bare.config.proxy, options);
        assert_eq!(bare.config.threads, Some(1));
        for setting in settings::proxy::PROXY_SETTINGS {
            if setting.name == "nodes" {
                continue;
            }
            // Inside the object it belongs into, without the brackets of the whole.
            let text = nested(setting.name, setting.default);
            let loaded = of(&text[1..text.len() - 1]);
            assert_eq!(loaded.config, bare.config, "{}", setting.name);
            assert_eq!(loaded.warnings, [], "{}", setting.name);
        }
    }

    #[test]
    fn without_a_file_only_the_backend_differs() {
        let Loaded { config, .. } = parse("{backends: ['console']}", "console").expect("a console");
        assert_eq!(config, Config::without_file());
        let ingest::source::Listen::Udp(udp) = &config.listeners[0] else {
            panic!("{:?}", config.listeners)
        };
        assert_eq!((udp.port, &udp.address), (8125, &None));
        assert_eq!(config.flush.interval, Duration::from_secs(10));
    }

    #[test]
    fn text_that_is_not_utf_8_is_named_with_its_place() {
        let error = decode(b"{\n  a: 'caf\xe9'}", "cfg").expect_err("Latin-1");
        assert_eq!(
            error.to_string(),
            "cfg:2:10: the byte 0xe9 is not UTF-8\n  hint: save the file as UTF-8; \
             if it is Latin-1, with iconv -f LATIN1 -t UTF-8"
        );
        let error = decode(b"\xff\xfe{\0}\0", "cfg").expect_err("UTF-16");
        assert_eq!(
            error.to_string(),
            "cfg: is UTF-16; save it as UTF-8, e.g. with iconv -f UTF-16 -t UTF-8"
        );
    }
}
