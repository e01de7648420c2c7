//! State files of any bytes: refused, or whole, and then they say what was written.

use crate::damage::{crc32, damage};
use statsd_fast::metric::kept::Kept;
use statsd_fast::state::format::{MAGIC, decode, encode, take_unclean};

/// The first byte says what the rest is.
pub(crate) fn check(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else {
        return;
    };
    match kind % 4 {
        0 => drop(survives(rest)),
        // No search finds a checksum, so here it is right.
        1 => drop(survives(&sealed(rest))),
        2 => drop(survives(&sealed(&headed(rest)))),
        _ => damage(
            rest,
            |lines| survives(&sealed(&headed(lines))).map(|(kept, when)| written(&kept, when)),
            |bytes| read(bytes).is_some(),
            |bytes| drop(survives(bytes)),
        ),
    }
}

/// These lines with the first one before them.
fn headed(lines: &[u8]) -> Vec<u8> {
    let head = format!("{MAGIC}\"version\":1,\"written\":0}}\n");
    [head.as_bytes(), lines].concat()
}

/// These lines with the last one behind them.
fn sealed(body: &[u8]) -> Vec<u8> {
    let tail = format!("{{\"crc32\":\"{:08x}\"}}\n", crc32(body));
    [body, tail.as_bytes()].concat()
}

fn read(mut bytes: &[u8]) -> Option<(Kept, i64)> {
    let state = decode(&mut bytes);
    state
        .inspect_err(|refusal| assert!(!refusal.to_string().is_empty()))
        .ok()
}

fn written(kept: &Kept, written_s: i64) -> Vec<u8> {
    let mut text = Vec::new();
    let bytes = encode(kept, written_s, &mut text).expect("memory takes all");
    assert_eq!(bytes, text.len() as u64);
    text
}

/// What is read is written in a way that is read as the same. What no configuration allows, or none that cleans
/// names, is taken out, and no other.
fn survives(bytes: &[u8]) -> Option<(Kept, i64)> {
    let (kept, written_s) = read(bytes)?;
    let text = written(&kept, written_s);
    let (again, when) = read(&text).expect("it was written by us");
    assert_eq!(when, written_s);
    // NaN is not itself; what was written of both is.
    assert_eq!(written(&again, when), text);
    let names = |kept: &Kept| -> Vec<_> {
        let gauges = kept.gauges.iter();
        gauges
            .map(|it| (it.name.clone(), it.flushes_left))
            .collect()
    };
    assert_eq!(names(&kept), names(&again));
    for clean_names in [false, true] {
        let (mut left, _) = read(&text).expect("it was written by us");
        let taken = take_unclean(&mut left, clean_names);
        let unclean = |name: &str| name.contains('\n') || clean_names && !is_clean(name);
        let (unclean, clean): (Vec<_>, Vec<_>) = names(&kept)
            .into_iter()
            .partition(|(name, _)| unclean(name));
        let unclean: Vec<_> = unclean.into_iter().map(|(name, _)| name).collect();
        assert_eq!((taken, names(&left)), (unclean, clean));
        left.gauges = again.gauges.clone();
        assert_eq!(written(&left, when), text, "all else stays");
    }
    Some((kept, written_s))
}

/// Whether cleaning leaves a name as it is.
fn is_clean(name: &str) -> bool {
    (name.chars()).all(|c| c.is_ascii_alphanumeric() || "_-.;=".contains(c))
}
