//! A command -> its reply, byte for byte as the reference answers, and some it does not know.

use super::{Clerk, Desk};
use crate::deliver::inspector::{self, Value, inspect};
use crate::flush::growth::Grown;
use crate::flush::question::{Excerpt, Question};
use crate::metric::meter::Meter;
use crate::metric::name::is_space;
use crate::metric::registry::Name;
use crate::metric::sample::Kind;
use crate::metric::set::Member;
use crate::runtime::clock::{monotonic_ns, rounded_seconds};
use std::io::Write as _;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const HELP: &str = "Commands: stats, counters, timers, gauges, delcounters, deltimers, delgauges, health, \
                    config, quit\n\n";
/// What `help all` adds: the reference's own list is what programs may compare.
const HELP_ALL: &str = "Commands: stats, counters, timers, gauges, delcounters, deltimers, delgauges, \
                        health, config, quit, sets, delsets, top [N], top prefixes [N], drops, \
                        meters\n\n";
const END: &str = "END\n\n";
/// Names that `top` shows when it is not told how many.
const TOP: usize = 10;

/// Commands that need no argument.
const BARE: [&str; 12] = [
    "help", "stats", "counters", "timers", "gauges", "sets", "health", "config", "quit", "top",
    "drops", "meters",
];
/// Commands that take arguments.
const WITH_ARGUMENTS: [&str; 7] = [
    "delcounters",
    "deltimers",
    "delgauges",
    "delsets",
    "health",
    "help",
    "top",
];

/// [`Clerk::quiet`] of a clerk who knows some commands without an argument, and some with. Where more of a
/// name may come it is waited for longer.
pub fn quiet(pending: &[u8], bare: &[&str], with_arguments: &[&str]) -> Option<Duration> {
    const BARE_QUIET: Duration = Duration::from_millis(200);
    const ARGUMENT_QUIET: Duration = Duration::from_secs(1);
    let text = std::str::from_utf8(pending).ok()?;
    match text.trim_matches(is_space).split_once(' ') {
        None => bare
            .contains(&text.trim_matches(is_space))
            .then_some(BARE_QUIET),
        Some((command, _)) => with_arguments.contains(&command).then_some(ARGUMENT_QUIET),
    }
}

/// The words of a line, split as the reference splits it; the first one is there, if only empty.
pub fn words(line: &str) -> Vec<&str> {
    line.trim_matches(is_space).split(' ').collect()
}

impl Clerk for Desk {
    fn quiet(&self, pending: &[u8]) -> Option<Duration> {
        quiet(pending, &BARE, &WITH_ARGUMENTS)
    }

    fn reply(&self, line: &str) -> Option<Vec<u8>> {
        to(line, self)
    }
}

/// The reply to a line; `None` for `quit`, or when the server is stopping.
fn to(line: &str, desk: &Desk) -> Option<Vec<u8>> {
    let words = words(line);
    let (command, words) = words.split_first()?;
    let mut reply = Vec::new();
    match *command {
        "help" if words == ["all"] => reply.extend_from_slice(HELP_ALL.as_bytes()),
        "help" => reply.extend_from_slice(HELP.as_bytes()),
        "stats" => stats(desk, &mut reply)?,
        "counters" => numbers(&desk.ask(Question::Counters)?, &mut reply),
        "gauges" => numbers(&desk.ask(Question::Gauges)?, &mut reply),
        "timers" => timers(&desk.ask(Question::Timers)?, &mut reply),
        "sets" => sets(&desk.ask(Question::Sets)?, &mut reply),
        "delcounters" => delete(desk, Kind::Counter, words, &mut reply)?,
        "deltimers" => delete(desk, Kind::Timer, words, &mut reply)?,
        "delgauges" => delete(desk, Kind::Gauge, words, &mut reply)?,
        "delsets" => delete(desk, Kind::Set, words, &mut reply)?,
        "top" => top(desk, words, &mut reply)?,
        "drops" => meters(desk, |meter| meter.loss, &mut reply)?,
        "meters" => meters(desk, |_| true, &mut reply)?,
        "health" => health(&desk.healthy, words, &mut reply),
        "config" => {
            let config = desk.config.lock().unwrap_or_else(PoisonError::into_inner);
            reply.extend_from_slice(config.as_bytes());
        }
        "quit" => return None,
        _ => reply.extend_from_slice(
            b"ERROR
",
        ),
    }
    Some(reply)
}

/// Appends formatted text; writing to a Vec cannot fail.
macro_rules! say {
    ($reply:expr, $($text:tt)*) => {
        let _ = write!($reply, $($text)*);
    };
}

fn stats(desk: &Desk, reply: &mut Vec<u8>) -> Option<()> {
    let messages = desk.ask(Question::Messages)?;
    let now_s = rounded_seconds(desk.clock.now_ms());
    let uptime = now_s - desk.started_s;
    // Nothing seen yet counts as seen at the start.
    let last_seen = messages.last_ns.map_or(uptime, |last_ns| {
        let since_ns = monotonic_ns().saturating_sub(last_ns);
        (since_ns / 1_000_000_000).cast_signed()
    });
    say!(reply, "uptime: {uptime}\n");
    say!(reply, "messages.last_msg_seen: {last_seen}\n");
    say!(reply, "messages.bad_lines_seen: {}\n", messages.bad);
    let backends = desk.backends.lock().unwrap_or_else(PoisonError::into_inner);
    for status in backends.iter() {
        for (field, value) in status.fields() {
            // Moments are shown as the seconds since.
            let value = if field.starts_with("last_") {
                now_s - value
            } else {
                value
            };
            say!(reply, "{}.{field}: {value}\n", status.backend());
        }
    }
    reply.extend_from_slice(END.as_bytes());
    Some(())
}

fn dump<'a>(entries: impl Iterator<Item = (&'a str, Value<'a>)> + 'a, reply: &mut Vec<u8>) {
    inspect(Value::object(entries), inspector::Options::default(), reply);
    say!(reply, "\n{END}");
}

fn numbers(values: &[(Name, f64)], reply: &mut Vec<u8>) {
    let entries = values.iter();
    dump(
        entries.map(|(name, value)| (&**name, Value::Number(*value))),
        reply,
    );
}

fn timers(timers: &[(Name, Excerpt<f64>)], reply: &mut Vec<u8>) {
    let samples = |samples: &Excerpt<f64>| {
        if samples.first.is_empty() && samples.len > 0 {
            return Value::Omitted(format!("Histogram of {} values", samples.len).into());
        }
        let first = samples.first.clone();
        Value::list((0..samples.len).map(move |at| Value::Number(*first.get(at).unwrap_or(&0.0))))
    };
    let entries = timers.iter();
    dump(
        entries.map(|(name, timer)| (&**name, samples(timer))),
        reply,
    );
}

fn sets(sets: &[(Name, Excerpt<Member>)], reply: &mut Vec<u8>) {
    let members = |members: &Excerpt<Member>| {
        let first = members.first.clone();
        // Those past the first are only counted by whoever prints.
        Value::list((0..members.len).map(move |at| {
            let member = first.get(at).map_or(&b""[..], |member| member);
            Value::Text(String::from_utf8_lossy(member).into_owned().into())
        }))
    };
    let entries = sets.iter();
    dump(entries.map(|(name, set)| (&**name, members(set))), reply);
}

fn delete(desk: &Desk, kind: Kind, words: &[&str], reply: &mut Vec<u8>) -> Option<()> {
    let patterns: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let deleted = desk.ask(|deleted| Question::Delete {
        kind,
        patterns,
        deleted,
    })?;
    for (pattern, names) in words.iter().zip(deleted) {
        if names.is_empty() {
            say!(reply, "metric {pattern} not found\n");
        }
        for name in names {
            say!(reply, "deleted: {name}\n");
        }
    }
    reply.extend_from_slice(END.as_bytes());
    Some(())
}

fn top(desk: &Desk, words: &[&str], reply: &mut Vec<u8>) -> Option<()> {
    let (of_prefixes, words) = match words {
        ["prefixes", rest @ ..] => (true, rest),
        words => (false, words),
    };
    let most = match words {
        [] => Some(TOP),
        [most] => most.parse().ok(),
        _ => None,
    };
    let Some(most) = most else {
        reply.extend_from_slice(b"ERROR\n");
        return Some(());
    };
    if of_prefixes {
        for grown in desk.ask(|prefixes| Question::Prefixes { most, prefixes })? {
            let Grown {
                prefix,
                total,
                recent,
            } = grown;
            for growth in [total, recent] {
                say!(reply, "{} {} ", growth.names, growth.folded);
            }
            say!(reply, "{prefix}*\n");
        }
        reply.extend_from_slice(END.as_bytes());
        return Some(());
    }
    for busy in desk.ask(|busiest| Question::Busiest { most, busiest })? {
        say!(reply, "{} {} {}\n", busy.hits, kind(busy.kind), busy.name);
    }
    reply.extend_from_slice(END.as_bytes());
    Some(())
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Timer => "timer",
        Kind::Gauge => "gauge",
        Kind::Set => "set",
    }
}

fn meters(desk: &Desk, shown: fn(&Meter) -> bool, reply: &mut Vec<u8>) -> Option<()> {
    for reading in desk.ask(Question::Meters)? {
        if shown(reading.meter) {
            let name = reading.meter.name;
            say!(reply, "{name}: {} {}\n", reading.total, reading.recent);
        }
    }
    reply.extend_from_slice(END.as_bytes());
    Some(())
}

/// The reply to `health`, which may say what it is to be from now on.
pub fn health(healthy: &AtomicBool, words: &[&str], reply: &mut Vec<u8>) {
    // Relaxed: one flag, nothing else is published through it.
    match words.first().map(|word| word.to_lowercase()).as_deref() {
        Some("up") => healthy.store(true, Ordering::Relaxed),
        Some("down") => healthy.store(false, Ordering::Relaxed),
        _ => {}
    }
    let healthy = healthy.load(Ordering::Relaxed);
    say!(reply, "health: {}\n", if healthy { "up" } else { "down" });
}
