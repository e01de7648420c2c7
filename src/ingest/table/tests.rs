//! A table driven by hand: what it is shown, and what a harvest of it has.

use super::*;
use crate::ingest::Options;
use crate::ingest::mapping::{Action, Mapping, Matcher, Rule, Template};
use crate::metric::prefixes::Growth;

fn table() -> Table {
    Table::new(&Options::default(), Arc::new(Registry::new()))
}

fn sample<'a>(name: &'a str, tags: &'a str, value: Value<'a>) -> Sample<'a> {
    Sample {
        name: name.as_bytes(),
        tags: tags.as_bytes(),
        value,
    }
}

fn record(table: &mut Table, sample: Sample<'_>) {
    table.begin_packets();
    table.take_odd(Ok(sample), sample.name);
}

fn harvest(table: &mut Table) -> Harvest {
    let mut harvest = Harvest::default();
    table.harvest(&mut harvest);
    harvest
}

#[test]
fn a_counter_adds_up_and_is_handed_over_once() {
    let mut table = table();
    record(&mut table, sample("hits", "", Value::Count(2.0)));
    record(&mut table, sample("hits", "", Value::Count(3.0)));
    let part = |hits, cell| Part {
        id: NameId(0),
        hits,
        cell,
    };
    assert_eq!(harvest(&mut table).counters, [part(2, 5.0)]);
    assert_eq!(harvest(&mut table).counters, []);
    record(&mut table, sample("hits", "", Value::Count(0.0)));
    assert_eq!(harvest(&mut table).counters, [part(1, 0.0)]);
}

#[test]
fn keys_of_every_length_are_told_apart_through_growth() {
    let mut table = table();
    let names: Vec<String> = (0..3000)
        .map(|n| format!("{n:0width$}", width = 4 + n % 90))
        .collect();
    for round in 1..=2 {
        for name in &names {
            record(&mut table, sample(name, "", Value::Count(1.0)));
            record(&mut table, sample(name, "a:b", Value::Count(10.0)));
        }
        assert_eq!(table.spellings(), 2 * names.len());
        let counters = harvest(&mut table).counters;
        assert_eq!(counters.len(), 2 * names.len(), "round {round}");
        assert_eq!(
            counters.iter().map(|part| part.cell).sum::<f64>(),
            11.0 * names.len() as f64
        );
    }
}

#[test]
fn values_of_dropped_names_are_counted_each_time() {
    let drop = |kind, text: &str| Rule {
        matcher: Matcher::Glob(text.into()),
        kind,
        action: Action::Drop,
    };
    let rules = vec![drop(Some(Kind::Counter), "a.*"), drop(None, "b.*")];
    let options = Options {
        mapping: Mapping::new(rules),
        ..Options::default()
    };
    let mut table = Table::new(&options, Arc::new(Registry::new()));
    let long = format!("b.{}", "x".repeat(100));
    for _ in 0..3 {
        record(&mut table, sample("a.b", "", Value::Count(1.0)));
        record(&mut table, sample("a.b", "t:v", Value::Count(1.0)));
        record(&mut table, sample("a.b", "", Value::GaugeSet(1.0)));
        record(&mut table, sample(&long, "", Value::Member(b"m")));
        // More of the same line, without another look-up.
        table.take_odd(Ok(sample(&long, "", Value::Member(b"n"))), long.as_bytes());
    }
    assert_eq!(table.spellings(), 1);
    let harvest = harvest(&mut table);
    assert_eq!(harvest.tally.mapped_dropped, 12);
    assert_eq!(harvest.tally.recorded, [0, 0, 3, 0]);
    assert_eq!((harvest.counters.len(), harvest.sets.len()), (0, 0));
    assert_eq!(harvest.gauges.len(), 1);
}

/// A rule for each glob, which makes its names another one and sets the tag `dc`.
fn renaming(rules: &[(&str, &str, &str)]) -> Table {
    let rules = rules.iter().map(|&(glob, name, dc)| {
        let matcher = Matcher::Glob(glob.into());
        let template = |text| Template::new(text, &matcher).expect("a template");
        let (name, tags) = (Some(template(name)), vec![("dc".into(), template(dc))]);
        Rule {
            kind: None,
            action: Action::Map { name, tags },
            matcher,
        }
    });
    let options = Options {
        mapping: Mapping::new(rules.collect()),
        ..Options::default()
    };
    Table::new(&options, Arc::new(Registry::new()))
}

#[test]
fn names_that_a_rule_makes_one_have_a_place_each() {
    let mut table = renaming(&[("web.*.hits", "hits", "eu"), ("host.*", "host", "eu")]);
    for round in 1..=2 {
        for host in 0..100 {
            let one = Value::Count(1.0);
            record(
                &mut table,
                sample(&format!("web.{host}.hits"), "z:1,a:2", one),
            );
            // Of these the rule alone puts tags out of order.
            record(&mut table, sample(&format!("host.{host}"), "z:1", one));
        }
        assert_eq!(table.spellings(), 200, "round {round}");
    }
    let counters = harvest(&mut table).counters;
    let ids: std::collections::BTreeSet<_> = counters.iter().map(|part| part.id).collect();
    let sum: f64 = counters.iter().map(|part| part.cell).sum();
    assert_eq!((ids.len(), sum), (2, 400.0));
}

/// Also where a rule leaves no tags that could be out of order.
#[test]
fn shuffled_tags_of_a_name_with_rules_share_a_place() {
    let mut table = renaming(&[("a", "b", "")]);
    let mut tags: Vec<_> = (0..10).map(|n| format!("dc:{n}")).collect();
    for turn in 0..20 {
        let listed = format!("{},:keyless", tags.join(","));
        for value in [1.0, 2.0] {
            record(&mut table, sample("a", &listed, Value::Count(value)));
        }
        tags.rotate_left(1);
        if turn == 9 {
            tags.reverse();
        }
    }
    // In order, in eight other orders, and all the rest.
    assert_eq!(table.spellings(), 10);
    let Harvest {
        counters, tally, ..
    } = harvest(&mut table);
    assert!(counters.iter().all(|part| part.id == NameId(0)));
    assert_eq!(counters.iter().map(|part| part.cell).sum::<f64>(), 60.0);
    // Once for each spelling that is remembered.
    assert_eq!(tally.tags_dropped, 9);
}

#[test]
fn name_and_tags_do_not_run_together() {
    let mut table = table();
    record(&mut table, sample("ab", "c", Value::Count(1.0)));
    record(&mut table, sample("a", "bc", Value::Count(1.0)));
    record(&mut table, sample("abc", "", Value::Count(1.0)));
    assert_eq!(table.spellings(), 3);
}

#[test]
fn spellings_of_one_name_share_its_id_and_keep_their_order() {
    let mut table = table();
    record(&mut table, sample("fo/o", "", Value::GaugeSet(10.0)));
    record(&mut table, sample("fo-o", "", Value::GaugeAdd(3.0)));
    record(&mut table, sample("fo/o", "", Value::GaugeAdd(-1.0)));
    let harvest = harvest(&mut table);
    assert_eq!(harvest.gauges.len(), 1);
    assert_eq!(harvest.gauges[0].hits, 3);
    assert_eq!(harvest.gauges[0].cell.after(None), 12.0);
}

#[test]
fn a_timer_that_was_folded_is_handed_over_whole() {
    let options = Options {
        exact_samples: 4,
        ..Options::default()
    };
    let mut table = Table::new(&options, Arc::new(Registry::new()));
    for n in 0..10 {
        record(
            &mut table,
            sample(
                "t",
                "",
                Value::Time {
                    value: f64::from(n),
                    weight: 2.0,
                },
            ),
        );
    }
    let harvest = harvest(&mut table);
    assert_eq!(harvest.samples, [8.0, 9.0]);
    let part = &harvest.timers[0];
    assert_eq!((part.samples, part.weight, part.hits), (2, 20.0, 10));
    let histogram = part.histogram.as_ref().expect("folded");
    assert_eq!(histogram.all_moments().count, 8);
    assert_eq!(
        (part.weights, harvest.weights.as_slice()),
        (2, &[(0, 2.0), (1, 2.0)][..])
    );
}

#[test]
fn a_line_of_many_values_is_looked_up_by_what_it_says_and_not_by_where_it_lies() {
    let mut table = table();
    let mut memory = *b"a:1|c:2|c";
    for name in [b'a', b'b'] {
        memory[0] = name;
        table.begin_packets();
        for value in [Value::Count(1.0), Value::Count(2.0), Value::GaugeSet(3.0)] {
            let sample = Sample {
                name: &memory[..1],
                tags: b"",
                value,
            };
            table.take_odd(Ok(sample), &memory);
        }
    }
    let harvest = harvest(&mut table);
    let counters = harvest.counters.iter().map(|part| (part.id, part.cell));
    let mut counters: Vec<_> = counters.collect();
    counters.sort_unstable_by_key(|(id, _)| *id);
    assert_eq!(counters, [(NameId(0), 3.0), (NameId(1), 3.0)]);
    assert_eq!(harvest.gauges.len(), 2);
}

#[test]
fn names_are_cleaned_as_the_newest_options_say() {
    let mut table = table();
    let verbatim = Options {
        sanitize_names: false,
        ..Options::default()
    };
    for (options, expected) in [
        (Options::default(), NameId(0)),
        (verbatim, NameId(1)),
        (Options::default(), NameId(0)),
    ] {
        table.reconfigure(&options);
        record(&mut table, sample("a b", "", Value::Count(1.0)));
        assert_eq!(harvest(&mut table).counters[0].id, expected);
    }
}

#[test]
fn a_burst_of_timestamps_leaves_no_room_behind() {
    let mut table = table();
    let one = sample("a", "", Value::Count(1.0));
    for at in 0..5000 {
        table.take_stamped(&one, at, b"a:1|c|T0", 3600);
    }
    assert_eq!(harvest(&mut table).points.len(), 3600 + 600 + 1);
    assert_eq!(harvest(&mut table).points.len(), 0);
    assert_eq!(table.points.capacity(), 0);
}

/// So many that the walk through the slots takes several harvests, and in the middle of it so many more
/// that it has to begin again.
#[test]
fn a_walk_through_many_slots_ends_when_all_of_them_were_looked_at() {
    let registry = Arc::new(Registry::new());
    let mut table = Table::new(&Options::default(), registry.clone());
    let count = |table: &mut Table, names: std::ops::Range<u32>| {
        for name in names {
            let one = Value::Count(1.0);
            record(table, sample(&name.to_string(), "", one));
        }
    };
    count(&mut table, 0..45_000);
    assert!(table.slots.slots() > WALK_SLOTS);
    assert_eq!(harvest(&mut table).counters.len(), 45_000);
    let odd = (0..45_000).filter(|id| id % 2 == 1).map(NameId);
    registry.retire([odd.collect(), Vec::new(), Vec::new(), Vec::new()]);
    table.sweep();
    assert!(table.spellings() < 45_000);
    assert_eq!(harvest(&mut table).swept, 0, "not through");
    // Those that are gone from the slots by now are new ones.
    count(&mut table, 0..90_000);
    let harvested = harvest(&mut table);
    assert_eq!((harvested.counters.len(), harvested.swept), (90_000, 0));
    let retired = registry.retired();
    let old = |harvest: &Harvest| {
        let ids = harvest.counters.iter().map(|part| part.id);
        ids.filter(|id| retired.contains(Kind::Counter, *id))
            .count()
    };
    assert!(old(&harvested) > 0);
    let mut parts = 0;
    while table.swept == 0 {
        table.sweep();
        parts += 1;
    }
    assert_eq!(parts, table.slots.slots() / WALK_SLOTS);
    assert_eq!(table.spellings(), 90_000 - old(&harvested));
    count(&mut table, 0..90_000);
    let harvested = harvest(&mut table);
    assert_eq!((harvested.counters.len(), harvested.swept), (90_000, 1));
    assert_eq!(old(&harvested), 0);
    assert!(harvested.counters.iter().all(|part| part.hits == 1));
}

#[test]
fn a_burst_of_values_of_many_names_leaves_no_room_behind() {
    let mut table = table();
    let mut interval = |names: usize, values: usize| {
        for n in 0..names {
            let name = n.to_string();
            for _ in 0..values {
                let weight = 1.0;
                let value = 1.0;
                record(&mut table, sample(&name, "", Value::Time { value, weight }));
                record(&mut table, sample(&name, "", Value::GaugeAdd(1.0)));
            }
        }
        harvest(&mut table);
        let inside = |part: &Part<Timer>| part.cell.heap_bytes();
        let timers: usize = table.timers.cells.iter().map(inside).sum();
        let inside = |part: &Part<Gauge>| part.cell.heap_bytes();
        timers + table.gauges.cells.iter().map(inside).sum::<usize>()
    };
    assert_eq!(interval(50, 256), 50 * 256 * (8 + 16));
    // Ten names go on as before, and keep what they need.
    let left = (0..4 * LOOKS).map(|_| interval(10, 256)).last();
    assert_eq!(left, Some((10 * 256 + 40 * 32) * (8 + 16)));
}

#[test]
fn members_are_text() {
    let mut table = table();
    for member in [&b"a"[..], b"a", b"\xff", b"\xfe", "\u{fffd}".as_bytes()] {
        record(&mut table, sample("s", "", Value::Member(member)));
    }
    let sets = harvest(&mut table).sets;
    assert_eq!((sets[0].cell.len(), sets[0].hits), (2, 5));
}

#[test]
fn a_set_that_nobody_sends_any_more_holds_no_memory() {
    let mut table = table();
    for n in 0..1000 {
        let member = n.to_string();
        let value = Value::Member(member.as_bytes());
        record(&mut table, sample("users.at.15", "", value));
    }
    assert_eq!(harvest(&mut table).sets[0].cell.len(), 1000);
    let held = |table: &Table| table.sets.cells[0].cell.heap_bytes();
    assert_eq!(held(&table), 0);
    let one = Value::Member(b"one");
    record(&mut table, sample("users.at.15", "", one));
    assert_eq!(harvest(&mut table).sets[0].cell.len(), 1);
    assert_eq!(held(&table), 0);
}

/// Tables of one registry that takes so many names.
fn limited(names: usize, tables: usize, options: &Options) -> (Arc<Registry>, Vec<Table>) {
    let registry = Arc::new(Registry::new());
    registry.limit(names);
    let tables = (0..tables).map(|_| Table::new(options, registry.clone()));
    let tables = tables.collect();
    (registry, tables)
}

fn count(table: &mut Table, name: &str, tags: &str) {
    record(table, sample(name, tags, Value::Count(1.0)));
}

/// The sums of counters, by name.
fn sums(registry: &Registry, harvest: &Harvest) -> std::collections::BTreeMap<String, f64> {
    let mut names = Vec::new();
    registry.catch_up(Kind::Counter, &mut names);
    let mut sums = std::collections::BTreeMap::new();
    for part in &harvest.counters {
        let name = names[part.id.index()].to_string();
        *sums.entry(name).or_default() += part.cell;
    }
    sums
}

fn named<const N: usize>(sums: [(&str, f64); N]) -> std::collections::BTreeMap<String, f64> {
    sums.map(|(name, sum)| (name.to_owned(), sum)).into()
}

#[test]
fn names_past_the_limit_share_one_place_and_others_go_on() {
    let (registry, mut tables) = limited(2, 2, &Options::default());
    count(&mut tables[0], "a", "");
    count(&mut tables[1], "b", "");
    for round in 0..2 {
        for n in 0..3000 {
            let (name, long) = (format!("app.{n}.x"), "y".repeat(50));
            let (tags, spelled) = (format!("id:{n}"), format!("app.{n} é.z"));
            for (name, tags) in [
                (name.as_str(), ""),
                (&name, &tags),
                (&name, &long),
                (&spelled, ""),
            ] {
                count(&mut tables[0], name, tags);
            }
        }
        // What another worker brought is no new name, however it is spelled.
        count(&mut tables[0], "b", "");
        count(&mut tables[0], "bé", "");
        count(&mut tables[0], "a", "");
        assert_eq!(tables[0].spellings(), 4, "round {round}");
    }
    let first = harvest(&mut tables[0]);
    let overflow = "statsd_fast.overflow.counters";
    let expected = named([("a", 3.0), ("b", 4.0), (overflow, 24_000.0)]);
    assert_eq!(sums(&registry, &first), expected);
    assert_eq!(first.tally.folded, [24_000, 0, 0]);
    assert_eq!(first.tally.recorded, [24_007, 0, 0, 0]);
    let growth = |names, folded| Growth { names, folded };
    assert_eq!(first.growth.total(), growth(1, 24_000));
    let of_app = first.growth.of("app.");
    assert_eq!(of_app, growth(0, 24_000));
    assert_eq!(harvest(&mut tables[0]).growth.total(), growth(0, 0));
    assert_eq!(harvest(&mut tables[1]).growth.total(), growth(1, 0));
    assert_eq!(registry.brought(), 2);
}

#[test]
fn a_name_that_found_no_room_finds_it_when_there_is_some() {
    let (registry, mut tables) = limited(1, 1, &Options::default());
    let table = &mut tables[0];
    count(table, "a", "");
    (0..3).for_each(|_| count(table, "b", ""));
    registry.limit(2);
    (0..3).for_each(|_| count(table, "b", ""));
    count(table, "c", "");
    // One of ours has room always, and is no longer folded when it is there.
    count(table, "own", "");
    registry.id(Kind::Counter, "own");
    count(table, "own", "");
    let overflow = "statsd_fast.overflow.counters";
    let expected = named([("a", 1.0), ("b", 3.0), ("own", 1.0), (overflow, 5.0)]);
    assert_eq!(sums(&registry, &harvest(table)), expected);
}

#[test]
fn each_kind_is_folded_into_its_own() {
    let (registry, mut tables) = limited(0, 1, &Options::default());
    let table = &mut tables[0];
    let time = |value| Value::Time { value, weight: 1.0 };
    let line = b"x:1|c:2|ms:3|ms:4|g:m|s";
    table.begin_packets();
    for value in [
        Value::Count(1.0),
        time(2.0),
        time(3.0),
        Value::GaugeSet(4.0),
        Value::Member(b"m"),
    ] {
        // Values of a line without another look-up, too.
        table.take_odd(Ok(sample("x", "", value)), line);
    }
    table.take_stamped(&sample("x", "", Value::Count(7.0)), 100, line, 100);
    let harvest = harvest(table);
    assert_eq!(harvest.tally.folded, [6, 0, 0]);
    assert_eq!(harvest.tally.recorded, [2, 2, 1, 1]);
    for kind in Kind::ALL {
        let mut names = Vec::new();
        registry.catch_up(kind, &mut names);
        let names: Vec<_> = names.iter().map(|name| &**name).collect();
        assert_eq!(names, [overflow(kind)]);
    }
    assert_eq!(harvest.samples, [2.0, 3.0]);
    assert_eq!(harvest.points[0].point.value, 7.0);
    assert_eq!(registry.brought(), 0);
}

#[test]
fn a_name_that_is_too_long_is_folded_unless_it_was_there_before() {
    let options = Options {
        max_name_length: 10,
        ..Options::default()
    };
    let (registry, mut tables) = limited(9, 2, &options);
    for (name, tags) in [
        ("0123456789", ""),
        ("0123456789a", ""),
        ("0123", "k:vwxyz"),
        ("012", "k:vwxyz"),
        // Its name is short.
        ("a                     b", ""),
    ] {
        count(&mut tables[0], name, tags);
    }
    let longest = harvest(&mut tables[0]);
    let overflow = "statsd_fast.overflow.counters";
    let known = [("0123456789", 1.0), ("012;k=vwxyz", 1.0), ("a_b", 1.0)];
    let [a, b, c] = known;
    let expected = named([a, c, (overflow, 3.0)]);
    assert_eq!(b.0.len(), 11);
    assert_eq!(sums(&registry, &longest), expected);
    assert_eq!(longest.tally.folded, [0, 3, 0]);
    // Lowered: what is there goes on, also where a worker meets it for the first time.
    let options = Options {
        max_name_length: 2,
        ..options
    };
    for table in &mut tables {
        table.reconfigure(&options);
        count(table, "0123456789", "");
        count(table, "new", "");
        let lower = harvest(table);
        let expected = named([("0123456789", 1.0), (overflow, 1.0)]);
        assert_eq!(sums(&registry, &lower), expected);
    }
}

#[test]
fn a_member_that_a_full_set_leaves_out_is_dropped_and_not_taken() {
    let options = Options {
        max_set_members: 20,
        ..Options::default()
    };
    let (_, mut tables) = limited(9, 1, &options);
    let table = &mut tables[0];
    let mut send = |members: std::ops::Range<u32>| {
        for n in members {
            let member = n.to_string();
            record(table, sample("s", "", Value::Member(member.as_bytes())));
        }
    };
    send(0..30);
    send(10..30);
    let harvest = harvest(table);
    assert_eq!(harvest.sets[0].cell.len(), 20);
    assert_eq!(harvest.sets[0].hits, 50);
    assert_eq!(harvest.tally.recorded, [0, 0, 0, 30]);
    assert_eq!(harvest.tally.members_dropped, 20);
}

#[test]
fn timestamps_past_the_limit_are_dropped_and_those_there_go_on() {
    let mut table = table();
    let spans = POINTS_MAX / 4096 + 1;
    let mut stamped = |name: &str, at| {
        let line = name.as_bytes();
        table.begin_packets();
        table.take_stamped(&sample(name, "", Value::Count(1.0)), at, line, 4096);
    };
    for span in 0..spans {
        (0..4096).for_each(|at| stamped(&format!("n{span}"), at + 496));
    }
    (0..10).for_each(|at| stamped("n0", at + 496));
    let harvest = harvest(&mut table);
    assert_eq!(harvest.points.len(), POINTS_MAX);
    let sum: f64 = harvest.points.iter().map(|it| it.point.value).sum();
    assert_eq!(sum, POINTS_MAX as f64 + 10.0);
    assert_eq!(harvest.tally.recorded, [sum as u64, 0, 0, 0]);
    assert_eq!(harvest.tally.stamped_dropped, 4096);
}

#[test]
fn while_memory_is_short_nothing_is_new_and_what_is_there_goes_on() {
    let (registry, mut tables) = limited(9, 1, &Options::default());
    let table = &mut tables[0];
    let time = Value::Time {
        value: 1.0,
        weight: 1.0,
    };
    let send = |table: &mut Table, old: &str| {
        table.begin_batch(Stamp(1));
        count(table, old, "");
        (0..300).for_each(|_| record(table, sample(old, "", time)));
        for member in [b"1", b"2"] {
            record(table, sample(old, "", Value::Member(member)));
        }
        table.begin_packets();
        table.take_stamped(&sample(old, "", Value::GaugeSet(1.0)), 5, b"", 5);
    };
    send(table, "old");
    let usual = harvest(table);
    assert_eq!(usual.tally.recorded, [1, 300, 1, 2]);
    assert_eq!((usual.samples.len(), usual.points.len()), (300, 1));
    registry.set_short(true);
    send(table, "old");
    send(table, "new");
    count(table, "oléd", "");
    let spelled = table.spellings();
    count(table, "old\x01", "");
    let short = harvest(table);
    assert_eq!(short.tally.recorded, [4, 600, 0, 0]);
    assert_eq!(short.tally.folded, [0, 0, 303]);
    let dropped = (short.tally.members_dropped, short.tally.stamped_dropped);
    assert_eq!(dropped, (4, 2));
    assert!(short.timers.iter().all(|timer| timer.histogram.is_some()));
    assert_eq!(short.points.len(), 0);
    let sets: Vec<_> = short
        .sets
        .iter()
        .map(|set| (set.hits, set.cell.len()))
        .collect();
    assert_eq!(sets, [(2, 0); 2]);
    assert_eq!(table.timers.cells[0].cell.samples.capacity(), 0);
    assert_eq!(table.spellings(), spelled);
    registry.set_short(false);
    send(table, "new");
    let again = harvest(table);
    assert_eq!(again.tally.recorded, [1, 300, 1, 2]);
    assert_eq!((again.samples.len(), again.points.len()), (300, 1));
}

#[test]
fn a_spelling_far_longer_than_its_name_has_no_place_of_its_own() {
    let mut table = table();
    for n in 0..500 {
        count(&mut table, &format!("a{}b", " ".repeat(100 + n)), "");
    }
    assert_eq!(table.spellings(), 1);
    assert_eq!(harvest(&mut table).counters[0].cell, 500.0);
}
