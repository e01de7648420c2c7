//! State <-> text: a line of JSON for each thing, one before them that says what it is, one behind them with
//! the checksum of all that stands before it. What was cut off anywhere lacks that line.
//!
//! ```text
//! {"format":"statsd-fast state","version":1,"program":"0.1.0","written":1764430000,"gauge":[...
//! ["gauge","load","7.5",1]
//! ["numStats","120.0"]
//! ["total","hits","42.0"]
//! {"crc32":"cbf43926"}
//! ```
//!
//! Numbers stand in quotes: JSON has no Infinity, and its readers round. Another layout gets another version.

use crate::metric::kept::{Gauge, Kept, Totals};
use crate::metric::name::cleaned;
use crate::metric::registry::Name;
use crate::runtime::crc32::Crc32;
use serde_json::Value;
use std::io::{self, BufRead, Read, Write};
use std::sync::Arc;

/// What every version of the file begins with.
pub const MAGIC: &str = "{\"format\":\"statsd-fast state\",";
/// The one that is written, and read.
pub const VERSION: u64 = 1;
/// Longest first line that is read.
const HEAD_MAX: u64 = 4096;
/// Longest line behind it, in bytes: a name of a whole datagram, each byte of it escaped, is shorter.
const LINE_MAX: u64 = 1 << 20;

/// Why a file is not used. Displayed as a part of a sentence.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It never was ours.
    #[error("it is no state file of statsd-fast")]
    Foreign,
    /// Another program of ours wrote it.
    #[error("it is of version {0}, and this program reads version {VERSION}")]
    Version(u64),
    /// The end is missing.
    #[error("its end is missing: it was cut off, likely by a disk that failed or was full")]
    Torn,
    /// Something in it has changed.
    #[error("it is damaged, or was edited: {0}")]
    Damaged(String),
    /// The server was away for too long.
    #[error("it was written {age_s} s ago, and stateMaxAge is {max_s} s")]
    Old {
        /// Seconds since it was written.
        age_s: i64,
        /// The limit.
        max_s: i64,
    },
    /// The system does not give it.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
}

/// Writes everything, as of `written_s`, Unix seconds. Returns how many bytes that were.
///
/// # Errors
/// Those of `out`.
pub fn encode(kept: &Kept, written_s: i64, out: &mut impl Write) -> io::Result<u64> {
    let program = env!("CARGO_PKG_VERSION");
    let mut lines = Lines {
        out,
        crc: Crc32::new(),
        bytes: 0,
        line: Vec::new(),
    };
    let head = format!(
        "{MAGIC}\"version\":{VERSION},\"program\":\"{program}\",\"written\":{written_s},\
         \"gauge\":[\"name\",\"value\",\"flushes left\"],\"numStats\":[\"sum\"],\
         \"total\":[\"name\",\"sum\"]}}"
    );
    lines.line.extend_from_slice(head.as_bytes());
    lines.end()?;
    for gauge in &kept.gauges {
        lines.line.extend_from_slice(b"[\"gauge\",");
        quote(&gauge.name, &mut lines.line)?;
        number(gauge.value, &mut lines.line);
        lines.line.push(b',');
        let mut left = itoa::Buffer::new();
        (lines.line).extend_from_slice(left.format(gauge.flushes_left).as_bytes());
        lines.line.push(b']');
        lines.end()?;
    }
    if let Some(totals) = &kept.totals {
        lines.line.extend_from_slice(b"[\"numStats\"");
        number(totals.num_stats, &mut lines.line);
        lines.line.push(b']');
        lines.end()?;
        for (name, sum) in &totals.counters {
            lines.line.extend_from_slice(b"[\"total\",");
            quote(name, &mut lines.line)?;
            number(*sum, &mut lines.line);
            lines.line.push(b']');
            lines.end()?;
        }
    }
    lines.line.extend_from_slice(&tail(lines.crc));
    lines.end()?;
    Ok(lines.bytes)
}

/// Lines on their way out.
struct Lines<'o, W> {
    out: &'o mut W,
    crc: Crc32,
    bytes: u64,
    line: Vec<u8>,
}

impl<W: Write> Lines<'_, W> {
    fn end(&mut self) -> io::Result<()> {
        self.line.push(b'\n');
        self.crc.update(&self.line);
        self.bytes += self.line.len() as u64;
        self.out.write_all(&self.line)?;
        self.line.clear();
        Ok(())
    }
}

/// The last line, without its end.
fn tail(crc: Crc32) -> Vec<u8> {
    format!("{{\"crc32\":\"{:08x}\"}}", crc.value()).into_bytes()
}

fn quote(name: &str, line: &mut Vec<u8>) -> io::Result<()> {
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    if name.bytes().all(plain) {
        line.push(b'"');
        line.extend_from_slice(name.as_bytes());
        line.push(b'"');
        return Ok(());
    }
    serde_json::to_writer(line, name).map_err(io::Error::from)
}

/// A comma, and the shortest text that is read back as the same number.
fn number(value: f64, line: &mut Vec<u8>) {
    line.extend_from_slice(b",\"");
    line.extend_from_slice(zmij::Buffer::new().format(value).as_bytes());
    line.push(b'"');
}

/// Reads everything, or nothing. Beside it: when it was written, Unix seconds.
///
/// # Errors
/// Why it is not used.
pub fn decode(input: &mut impl BufRead) -> Result<(Kept, i64), Refusal> {
    let mut line = Vec::new();
    input.by_ref().take(HEAD_MAX).read_until(b'\n', &mut line)?;
    let written_s = head(&line)?;
    let mut crc = Crc32::new();
    let mut kept = Kept::default();
    let mut totals: Option<Totals> = None;
    for number in 2.. {
        crc.update(&line);
        line.clear();
        input.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)?;
        let Some(text) = line.strip_suffix(b"\n") else {
            return Err(Refusal::Torn);
        };
        if text.starts_with(b"{") {
            if text != tail(crc) {
                return Err(damaged("its checksum is not that of its content"));
            }
            break;
        }
        entry(text, &mut kept.gauges, &mut totals)
            .ok_or_else(|| Refusal::Damaged(format!("line {number} is none of its kind")))?;
    }
    if !input.fill_buf()?.is_empty() {
        return Err(damaged("something stands behind its end"));
    }
    kept.totals = totals.map(Arc::new);
    Ok((kept, written_s))
}

fn damaged(what: &str) -> Refusal {
    Refusal::Damaged(what.into())
}

/// When the file was written, by its first line.
fn head(line: &[u8]) -> Result<i64, Refusal> {
    if !line.starts_with(MAGIC.as_bytes()) {
        // Zeros are what some file systems leave of a file after a power failure.
        let zeros = line.iter().all(|byte| *byte == 0);
        let cut = MAGIC.as_bytes().starts_with(line) || zeros;
        return Err(if cut { Refusal::Torn } else { Refusal::Foreign });
    }
    if !line.ends_with(b"\n") && (line.len() as u64) < HEAD_MAX {
        return Err(Refusal::Torn);
    }
    let head: Value =
        serde_json::from_slice(line).map_err(|_| damaged("its first line is no JSON"))?;
    match (head["version"].as_u64(), head["written"].as_i64()) {
        (Some(VERSION), Some(written)) => Ok(written),
        (Some(version), _) if version != VERSION => Err(Refusal::Version(version)),
        _ => Err(damaged("its first line has no version, or no time")),
    }
}

/// Takes a line in; nothing when it is none of a state.
fn entry(line: &[u8], gauges: &mut Vec<Gauge>, totals: &mut Option<Totals>) -> Option<()> {
    if line.starts_with(b"[\"gauge\",") {
        type Row<'l> = (&'l str, String, &'l str, u32);
        let (_, name, value, flushes_left): Row<'_> = serde_json::from_slice(line).ok()?;
        gauges.push(Gauge {
            name: name.into(),
            value: value.parse().ok()?,
            flushes_left,
        });
    } else if line.starts_with(b"[\"total\",") {
        let (_, name, sum): (&str, String, &str) = serde_json::from_slice(line).ok()?;
        let sum = sum.parse().ok()?;
        totals.as_mut()?.counters.push((name.into(), sum));
    } else {
        let ("numStats", sum) = serde_json::from_slice::<(&str, &str)>(line).ok()? else {
            return None;
        };
        let num_stats = sum.parse().ok()?;
        *totals = Some(Totals {
            num_stats,
            ..Totals::default()
        });
    }
    Some(())
}

/// Takes the gauges out whose names cannot be one, and returns those names: no line has a newline in it, and
/// with `clean_names` all are to be clean. Those of totals need no look: the server's own among them are as
/// `prefixStats` is written, and of another name no counter comes.
pub fn take_unclean(kept: &mut Kept, clean_names: bool) -> Vec<Name> {
    let cannot = |gauge: &mut Gauge| {
        gauge.name.contains('\n') || clean_names && cleaned(&gauge.name) != *gauge.name
    };
    let taken = kept.gauges.extract_if(.., cannot);
    taken.map(|gauge| gauge.name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(kept: &Kept) -> Vec<u8> {
        let mut text = Vec::new();
        let bytes = encode(kept, 1_764_430_000, &mut text).expect("memory takes all");
        assert_eq!(bytes, text.len() as u64);
        text
    }

    fn read(mut text: &[u8]) -> Result<(Kept, i64), Refusal> {
        decode(&mut text)
    }

    fn sample() -> Kept {
        let gauge = |name: &str, value, flushes_left| Gauge {
            name: name.into(),
            value,
            flushes_left,
        };
        Kept {
            gauges: vec![gauge("load;t=v", -7.5, 1), gauge("", 0.1 + 0.2, 4)],
            totals: Some(Arc::new(Totals {
                counters: vec![("hits".into(), 42.0), ("big".into(), 1e300)],
                num_stats: 120.0,
                ahead: Vec::new(),
            })),
        }
    }

    #[test]
    fn the_file_is_what_it_was_in_the_version_before() {
        let expected = concat!(
            "{\"format\":\"statsd-fast state\",\"version\":1,\"program\":\"",
            env!("CARGO_PKG_VERSION"),
            "\",\"written\":1764430000,\"gauge\":[\"name\",\"value\",\"flushes left\"],",
            "\"numStats\":[\"sum\"],\"total\":[\"name\",\"sum\"]}\n",
            "[\"gauge\",\"load;t=v\",\"-7.5\",1]\n",
            "[\"gauge\",\"\",\"0.30000000000000004\",4]\n",
            "[\"numStats\",\"120.0\"]\n",
            "[\"total\",\"hits\",\"42.0\"]\n",
            "[\"total\",\"big\",\"1e+300\"]\n",
        );
        let text = String::from_utf8(text(&sample())).expect("text");
        let (body, tail) = text.split_at(text.len() - 21);
        assert_eq!(body, expected);
        let mut crc = Crc32::new();
        crc.update(body.as_bytes());
        assert_eq!(tail, format!("{{\"crc32\":\"{:08x}\"}}\n", crc.value()));
        let (kept, written) = read(text.as_bytes()).expect("whole");
        assert_eq!((kept, written), (sample(), 1_764_430_000));
    }

    #[test]
    fn cut_off_anywhere_it_is_refused() {
        let text = text(&sample());
        for length in 0..text.len() {
            let refusal = read(&text[..length]).expect_err("torn");
            assert!(matches!(refusal, Refusal::Torn), "{length}: {refusal}");
        }
    }

    #[test]
    fn with_any_bit_changed_it_is_refused() {
        let text = text(&sample());
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut text = text.clone();
                text[at] ^= 1 << bit;
                read(&text).expect_err("changed");
            }
        }
    }

    #[test]
    fn what_is_refused_is_told_why() {
        let good = String::from_utf8(text(&sample())).expect("text");
        let head = good.lines().next().expect("a first line");
        let long = format!("{MAGIC}{}", "x".repeat(5000));
        for (text, expected) in [
            ("# a configuration\n", "it is no state file of statsd-fast"),
            ("\u{1}\u{0}", "it is no state file of statsd-fast"),
            ("", &Refusal::Torn.to_string()),
            ("\u{0}\u{0}", &Refusal::Torn.to_string()),
            ("\u{0}\u{1}", "it is no state file of statsd-fast"),
            (
                &format!("{head}\n[\"gauge\",\"{}\"", "x".repeat(LINE_MAX as usize)),
                &Refusal::Torn.to_string(),
            ),
            (
                &good.replace("\"version\":1", "\"version\":2"),
                "it is of version 2, and this program reads version 1",
            ),
            (
                &good.replace("42", "43"),
                "it is damaged, or was edited: its checksum is not that of its content",
            ),
            (
                &good.replace("[\"total\",\"hits\"", "[\"other\",\"hits\""),
                "it is damaged, or was edited: line 5 is none of its kind",
            ),
            (
                &good.replace("[\"numStats\",\"120.0\"]\n", ""),
                "it is damaged, or was edited: line 4 is none of its kind",
            ),
            (
                &format!("{good}\n"),
                "it is damaged, or was edited: something stands behind its end",
            ),
            (
                &format!("{head}\n\n"),
                "it is damaged, or was edited: line 2 is none of its kind",
            ),
            (
                &format!("{MAGIC}\"version\":1}}\n"),
                "it is damaged, or was edited: its first line has no version, or no time",
            ),
            (
                &long,
                "it is damaged, or was edited: its first line is no JSON",
            ),
        ] {
            let refusal = read(text.as_bytes()).expect_err("refused");
            assert_eq!(refusal.to_string(), expected, "{text}");
        }
    }

    #[test]
    fn names_are_those_the_configuration_allows() {
        for (name, clean_names, allowed) in [
            ("a b", true, false),
            ("a b", false, true),
            ("\u{e9}\"\\\u{1}", false, true),
            ("a\nb", false, false),
        ] {
            let mut kept = sample();
            kept.gauges[1].name = name.into();
            let (mut found, _) = read(&text(&kept)).expect("whole");
            assert_eq!(found, kept);
            let taken = take_unclean(&mut found, clean_names);
            if allowed {
                assert_eq!((taken, found), (Vec::new(), kept), "{name:?}");
            } else {
                assert_eq!(taken, [name.into()]);
                kept.gauges.remove(1);
                assert_eq!(found, kept, "the others stay");
            }
        }
        // The server's own counters are named as `prefixStats` says.
        let mut kept = sample();
        kept.totals = Some(Arc::new(Totals {
            counters: vec![("a/b.bad_lines_seen".into(), 1.0)],
            num_stats: 0.0,
            ahead: Vec::new(),
        }));
        let (mut found, _) = read(&text(&kept)).expect("whole");
        assert!(take_unclean(&mut found, true).is_empty());
        assert_eq!(found, kept);
    }

    fn number() -> impl Strategy<Value = f64> {
        any::<u64>().prop_map(f64::from_bits)
    }

    proptest! {
        #[test]
        fn any_state_is_read_back_to_the_bit(
            gauges in proptest::collection::vec(("[^\n]{0,12}", number(), any::<u32>()), 0..8),
            totals in proptest::option::of(
                (proptest::collection::vec(("[^\n]{0,12}", number()), 0..8), number())),
            cut in any::<proptest::sample::Index>(),
        ) {
            let gauges: Vec<_> = gauges.into_iter().map(|(name, value, flushes_left)| Gauge {
                name: name.into(), value, flushes_left,
            }).collect();
            let totals = totals.map(|(counters, num_stats)| Arc::new(Totals {
                counters: counters.into_iter().map(|(name, sum)| (name.into(), sum)).collect(),
                num_stats,
                ahead: Vec::new(),
            }));
            let kept = Kept { gauges, totals };
            let bytes = text(&kept);
            let (found, _) = read(&bytes).expect("whole");
            // NaN is NaN, whichever of them; all else to the bit.
            let bits = |value: f64| if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() };
            prop_assert_eq!(found.gauges.len(), kept.gauges.len());
            for (a, b) in found.gauges.iter().zip(&kept.gauges) {
                prop_assert_eq!(&a.name, &b.name);
                prop_assert_eq!((bits(a.value), a.flushes_left), (bits(b.value), b.flushes_left));
            }
            prop_assert_eq!(found.totals.is_some(), kept.totals.is_some());
            for (a, b) in found.totals.iter().zip(&kept.totals) {
                prop_assert_eq!(bits(a.num_stats), bits(b.num_stats));
                prop_assert_eq!(a.counters.len(), b.counters.len());
                for (a, b) in a.counters.iter().zip(&b.counters) {
                    prop_assert_eq!((&a.0, bits(a.1)), (&b.0, bits(b.1)));
                }
            }
            let torn = read(&bytes[..cut.index(bytes.len())]);
            prop_assert!(matches!(torn, Err(Refusal::Torn)));
        }

        #[test]
        fn any_bytes_are_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            ours in any::<bool>(),
        ) {
            let text = [if ours { MAGIC.as_bytes() } else { b"" }, &bytes].concat();
            prop_assert!(read(&text).is_err());
        }
    }
}
