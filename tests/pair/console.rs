//! What the console backends print.

use crate::daemon::Log;

/// Lines of one flush that are reported.
const SHOWN: usize = 20;

/// The object of the `number`th flush printed, counted from 1; waits for it.
pub(crate) fn object(log: &Log, number: usize) -> String {
    log.wait_until(&format!("flush {number} on the console"), |lines| {
        let heading = nth_heading(lines, number)?;
        let rest = &lines[heading + 1..];
        let end = rest.iter().position(|line| line == "}")?;
        Some(rest[..=end].join("\n"))
    })
}

/// Whether the first flush is printed as an object; waits for it.
pub(crate) fn prints_objects(log: &Log) -> bool {
    log.wait_until("a flush on the console", |lines| {
        let heading = nth_heading(lines, 1)?;
        Some(lines.get(heading + 1)?.starts_with('{'))
    })
}

/// The first lines in which two objects differ.
pub(crate) fn differences(theirs: &str, ours: &str) -> Vec<String> {
    let (theirs, ours): (Vec<&str>, Vec<&str>) = (theirs.lines().collect(), ours.lines().collect());
    let differ = (0..theirs.len().max(ours.len())).filter(|&at| theirs.get(at) != ours.get(at));
    let mut found: Vec<String> = differ
        .map(|at| {
            let (theirs, ours) = (theirs.get(at), ours.get(at));
            format!("console line {}: theirs {theirs:?}, ours {ours:?}", at + 1)
        })
        .collect();
    // A line too many shifts all that follow.
    let more = found.len().saturating_sub(SHOWN);
    if more > 0 {
        found.truncate(SHOWN);
        found.push(format!("and {more} lines more"));
    }
    found
}

fn nth_heading(lines: &[String], number: usize) -> Option<usize> {
    let mut headings = lines.iter().enumerate();
    let is_heading = |(_, line): &(usize, &String)| line.starts_with("Flushing stats at ");
    headings
        .by_ref()
        .filter(is_heading)
        .nth(number - 1)
        .map(|(at, _)| at)
}
