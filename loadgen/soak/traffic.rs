//! The traffic of a soak, class by class: what friends send, and what nobody should.

use super::unit::{COUNTER, Class, Line, Unit, Way};
use crate::random::Random;

/// Longest datagram that the server takes whole.
pub(crate) const MAX_DATAGRAM: usize = 16_384;
/// Longest line of a stream.
pub(crate) const MAX_LINE: usize = 4096;
/// Bytes of a name that is long.
const LONG_NAME: usize = 200;

const TIMER: &[(&str, u64)] = &[("samples.timers", 1)];
const GAUGE: &[(&str, u64)] = &[("samples.gauges", 1)];
const SET: &[(&str, u64)] = &[("samples.sets", 1)];
const NO_TYPE: &[(&str, u64)] = &[("rejected.no_type", 1)];

/// Every class.
pub(crate) fn classes(random: &mut Random) -> Vec<Class> {
    let with = |class: &str, random: &mut Random| {
        let mut units = Vec::new();
        for _ in 0..4 {
            units.push(Unit::new(class, units.len(), &mixed(class, random)));
            units.push(Unit::new(class, units.len(), &garbage(class, random)));
        }
        units
    };
    let datagrams = |class: &str, random: &mut Random| {
        let mut units = with(class, random);
        units.push(Unit::oversized(class, units.len(), MAX_DATAGRAM));
        units
    };
    let mut all = vec![
        Class::new("single", Way::Udp, vec![Unit::new("single", 0, &[])]),
        Class::new("packed", Way::Udp, mix_alone("packed", random)),
        Class::new("hostile", Way::Udp, datagrams("hostile", random)),
        Class::new("tags", Way::Udp, tags("tags")),
        Class::new("names", Way::Udp, names("names")),
        Class::new("gram", Way::Gram, datagrams("gram", random)),
    ];
    for (name, way) in [
        ("tcp", Way::Tcp),
        ("unix", Way::Unix),
        ("packets", Way::Packets),
    ] {
        all.push(Class::new(name, way, with(name, random)));
    }
    // What connections of those who mean no good carry: the ticket alone.
    for (name, way) in [
        ("flood", Way::Udp),
        ("foes", Way::Tcp),
        ("crowd", Way::Tcp),
        ("frames", Way::Packets),
    ] {
        all.push(Class::new(name, way, vec![Unit::new(name, 0, &[])]));
    }
    all
}

fn mix_alone(class: &str, random: &mut Random) -> Vec<Unit> {
    let unit = |number| Unit::new(class, number, &mixed(class, random));
    (0..8).map(unit).collect()
}

/// Values of every type, in both dialects' spellings, in some order.
fn mixed(class: &str, random: &mut Random) -> Vec<Line> {
    let line = |text: &str, effects, value| (format!("soak.{class}.{text}"), effects, value);
    let mut lines = vec![
        line("v:3|c", COUNTER, 3),
        line("v:1|c|@0.5", COUNTER, 2),
        line("v:0|c", COUNTER, 0),
        line("v:2|c|#", COUNTER, 2),
        line("v:1:2:3|c", &[("samples.counters", 3)], 6),
        line("t:12.5|ms", TIMER, 0),
        line("t:3|ms|@0.1", TIMER, 0),
        line("h:7|h|#env:soak,host:a", TIMER, 0),
        line("d:7:8|d", &[("samples.timers", 2)], 0),
        line("g:5|g", GAUGE, 0),
        line("g:+1|g", GAUGE, 0),
        line("g:-1|g", GAUGE, 0),
        line(&format!("s:user{}|s", random.below(50)), SET, 0),
        line(&format!("t{}:1|ms", random.below(20)), TIMER, 0),
        (
            "_e{1,1}:a|b".into(),
            &[("events", 1), ("unsupported", 1)],
            0,
        ),
        (
            "_sc|a|0".into(),
            &[("service_checks", 1), ("unsupported", 1)],
            0,
        ),
    ];
    shuffle(&mut lines, random);
    lines
}

/// Lines that are refused, each for a reason that is known.
fn garbage(class: &str, random: &mut Random) -> Vec<Line> {
    let bad = |text: &str, effects| (format!("soak.{class}.bad{text}"), effects, 0);
    let mut lines = vec![
        bad("", NO_TYPE),
        bad(":1", NO_TYPE),
        bad(":1|c|@2x", &[("rejected.bad_rate", 1)]),
        bad(":|c", &[("rejected.empty_value", 1)]),
        bad(":1,5|c", &[("rejected.not_a_number", 1)]),
        bad(":1e|ms", &[("rejected.not_a_number", 1)]),
        bad(":-1|ms", &[("rejected.negative_timer", 1)]),
        bad(":1|c|T1", &[("rejected.old_timestamp", 1)]),
        bad(":1|g|T99999999999", &[("rejected.future_timestamp", 1)]),
        bad(":1|c|Tx", &[("rejected.bad_timestamp", 1)]),
        ("_e{9,9}:a|b".into(), &[("rejected.bad_event", 1)], 0),
        ("_sc|a|9".into(), &[("rejected.bad_check", 1)], 0),
    ];
    for _ in 0..4 {
        // No mark of a value in it: whatever else it holds, it has no type.
        let noise = (0..1 + random.below(60)).map(|_| match char::from(random.below(127) as u8) {
            ':' | '|' | '\n' | '_' => '#',
            other => other,
        });
        lines.push((format!("x{}", noise.collect::<String>()), NO_TYPE, 0));
    }
    shuffle(&mut lines, random);
    lines
}

/// One series whose tags come in every order.
fn tags(class: &str) -> Vec<Unit> {
    let tags = ["a:1", "b:2", "c:3", "d:4"];
    let mut orders: Vec<Vec<&str>> = vec![Vec::new()];
    for tag in tags {
        let longer = orders.iter().flat_map(|order| {
            (0..=order.len()).map(move |at| {
                let mut order = order.clone();
                order.insert(at, tag);
                order
            })
        });
        orders = longer.collect();
    }
    let line = |order: &[&str]| {
        (
            format!("soak.{class}.v:1|c|#{}", order.join(",")),
            COUNTER,
            1,
        )
    };
    let units = orders.iter().enumerate();
    units
        .map(|(number, order)| Unit::new(class, number, &[line(order)]))
        .collect()
}

/// Long names, and one that is new each time or drawn from a pool.
fn names(class: &str) -> Vec<Unit> {
    let long = format!("soak.{class}.{}:1|c", "long".repeat(LONG_NAME / 4));
    let mut fresh = Unit::new(class, 1, &[]);
    fresh.fresh = true;
    *fresh.effects.entry("lines").or_default() += 1;
    *fresh.effects.entry("samples.counters").or_default() += 1;
    vec![Unit::new(class, 0, &[(long, COUNTER, 0)]), fresh]
}

fn shuffle<T>(items: &mut [T], random: &mut Random) {
    for at in (1..items.len()).rev() {
        items.swap(at, random.below(at as u32 + 1) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_class_has_units_of_its_own_and_no_line_in_noise_is_split() {
        let classes = classes(&mut Random::new(1, 0));
        let names: BTreeSet<_> = classes.iter().map(|class| class.name).collect();
        assert_eq!(names.len(), classes.len());
        for class in &classes {
            for unit in &class.units {
                let newlines = unit.bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
                let cut = unit.effects.contains_key("truncated");
                let lines = unit.effects["lines"] - u64::from(unit.fresh);
                assert!(cut || lines == newlines, "{} {unit:?}", class.name);
            }
        }
    }

    #[test]
    fn tags_come_in_every_order() {
        let units = tags("x");
        let bytes: BTreeSet<_> = units.iter().map(|unit| &unit.bytes[12..]).collect();
        assert_eq!((units.len(), bytes.len()), (24, 24));
    }
}
