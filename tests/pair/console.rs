//! What the console backends print.

use crate::daemon::Log;

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

fn nth_heading(lines: &[String], number: usize) -> Option<usize> {
    let mut headings = lines.iter().enumerate();
    let is_heading = |(_, line): &(usize, &String)| line.starts_with("Flushing stats at ");
    headings
        .by_ref()
        .filter(is_heading)
        .nth(number - 1)
        .map(|(at, _)| at)
}
