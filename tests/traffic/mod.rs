//! Generated datagrams: by the grammar of the protocol, with its odd corners, and the same with bytes changed.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use std::fmt;

/// A search of so many cases. `PROPTEST_CASES` makes it longer; what it finds is printed and belongs in the
/// corpus.
pub(crate) fn search(cases: u32) -> ProptestConfig {
    let mut config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    config
}

/// What is left to chance in the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbers {
    /// Any number or none. Names have one spelling each, so that sums have one order only.
    Any,
    /// Small integers and rates that are powers of two: any order of adding gives the same sum.
    Exact,
}

/// One to ten lines in a datagram.
pub(crate) fn datagram(numbers: Numbers) -> impl Strategy<Value = Vec<u8>> {
    let newline = select(vec!["\n", "\n", "\n", "\n", "\n\n", "\r\n"]);
    let end = select(vec!["", "", "\n", "\r\n", "\n\n"]);
    (vec((line(numbers), newline), 1..=10), end).prop_map(|(lines, end)| {
        let mut datagram = Vec::new();
        for (number, (line, newline)) in lines.into_iter().enumerate() {
            if number > 0 {
                datagram.extend_from_slice(newline.as_bytes());
            }
            datagram.extend(line);
        }
        datagram.extend_from_slice(end.as_bytes());
        datagram
    })
}

/// A datagram of the grammar with up to eight bytes changed, left out, doubled or put in.
pub(crate) fn mutated(numbers: Numbers) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![3 => select(b":|@#,;\n\r \t-+.0159eExcmsg_/\xc2\xa0\xe2\x80\xff\0".to_vec()), 1 => any::<u8>()];
    let edit = (any::<proptest::sample::Index>(), 0..4u8, byte);
    (datagram(numbers), vec(edit, 0..=8)).prop_map(|(mut datagram, edits)| {
        for (at, what, byte) in edits {
            if datagram.is_empty() {
                datagram.push(byte);
                continue;
            }
            let at = at.index(datagram.len());
            match what {
                0 => datagram[at] = byte,
                1 => drop(datagram.remove(at)),
                2 => datagram.insert(at, datagram[at]),
                _ => datagram.insert(at, byte),
            }
        }
        datagram
    })
}

/// A line with one value, seldom more, of any kind.
fn line(numbers: Numbers) -> impl Strategy<Value = Vec<u8>> {
    let parts = prop_oneof![8 => vec(part(numbers), 1..=1), 1 => vec(part(numbers), 0..=5)];
    (name(numbers), parts, tags(numbers)).prop_map(|(name, parts, tags)| {
        let mut line = name;
        for part in parts {
            line.push(b':');
            line.extend(part);
        }
        line.extend(tags);
        line
    })
}

fn name(numbers: Numbers) -> BoxedStrategy<Vec<u8>> {
    let plain = select(vec![
        "a",
        "b",
        "c.d",
        "hits",
        "api.requests.count",
        "_",
        "x-y.z",
    ]);
    let plain = plain.prop_map(|name| name.as_bytes().to_vec());
    let long = (0..=200usize).prop_map(|length| b"n".repeat(length));
    if numbers == Numbers::Any {
        return prop_oneof![4 => plain, 1 => long].boxed();
    }
    // Spellings of the names above, the daemon's own, and what is dropped or replaced.
    let spelled = select(vec![
        &b" "[..],
        b"a+",
        b"\xc3\xa9a",
        b"\xffa",
        b"a\0",
        b"c.d;t=v",
        b"c.d;",
        b"x/y.z",
        b"x-y.z",
        b"a b",
        b"a \t\xc2\xa0b",
        b"a|b",
        b"a#b",
        b"a@b,c",
        b"__proto__",
        b"constructor",
        b"statsd.packets_received",
        b"statsd.bad_lines_seen",
        b"statsd.timestamp_lag",
        b"my.metrics_received.x",
        b"7",
    ]);
    let spelled = spelled.prop_map(<[u8]>::to_vec);
    let bytes = vec(
        any::<u8>().prop_filter("a name has no newline", |byte| *byte != b'\n'),
        0..8,
    );
    prop_oneof![4 => plain, 3 => spelled, 1 => long, 1 => bytes].boxed()
}

/// `value|type[|@rate]`
fn part(numbers: Numbers) -> impl Strategy<Value = Vec<u8>> {
    (value(numbers), kind(), rate(numbers)).prop_map(|(value, kind, rate)| {
        [value.as_bytes(), kind.as_bytes(), rate.as_bytes()].concat()
    })
}

fn value(numbers: Numbers) -> BoxedStrategy<String> {
    let integer = (-1000..1000i32).prop_map(|value| value.to_string());
    let signed = (-9..=9i32).prop_map(|value| format!("{value:+}"));
    let odd = select(vec![
        "", " ", "-", "+", ".", "1.", "-0", "0", "+0", " 5", "5 ", "\t-3", "0x10", "-0x10", "0b11",
        "0o7", "1e3", "1E+2", "e1", "1e", "--5", "+-5", "1_0", "1,5", "x", "x y", "NaN", "nan",
        "null", "é", "00012", "12abc", "1.5", "-2.25", ".5",
    ])
    .prop_map(str::to_string);
    if numbers == Numbers::Exact {
        return prop_oneof![6 => integer, 2 => signed, 2 => odd].boxed();
    }
    let decimal = (-1_000_000..1_000_000i64, 0..9u32)
        .prop_map(|(value, places)| format!("{}", value as f64 / 10f64.powi(places as i32)));
    let digits = "[+-]?[0-9]{0,25}[.]?[0-9]{0,25}";
    let scientific = "[+-]?[0-9]{1,3}[.]?[0-9]{0,3}[eE][+-]?[0-9]{1,3}";
    let infinite = select(vec![
        "Infinity",
        "-Infinity",
        "1e400",
        "9007199254740993",
        "0xfffffffffffffffff",
    ]);
    prop_oneof![
        3 => integer, 1 => signed, 2 => odd, 3 => decimal, 1 => digits, 1 => scientific,
        1 => infinite.prop_map(str::to_string),
    ]
    .boxed()
}

/// The bar and the type, or neither.
fn kind() -> impl Strategy<Value = &'static str> {
    let odd = select(vec![
        "",
        "|",
        "|h",
        "|C",
        "|MS",
        "|ms ",
        "| ms",
        "|ms\r",
        "|s ",
        "| s",
        "|s\r",
        "|g\t",
        "|c ",
        "|\u{a0}ms",
        "|d",
        "|c,",
        "|cc",
        "|é",
    ]);
    prop_oneof![12 => select(vec!["|c", "|ms", "|g", "|s"]), 1 => odd]
}

fn rate(numbers: Numbers) -> BoxedStrategy<String> {
    let none = Just(String::new());
    let exact = select(vec!["|@0.5", "|@.25", "|@2", "|@1", "|@0.125", "|@1.0"]);
    let odd = select(vec![
        "|",
        "||",
        "|@",
        "|0.1",
        "|@-1",
        "|@+1",
        "|@ 1",
        "|@Infinity",
        "|@1e1",
        "|@0.5e9",
        "|@0.5 ",
        "|@0.5\r",
        "|@0.5|",
        "|@0.5|junk",
        "|@.",
        "|@1.2.3",
        "|@@1",
        "|@x",
        "|@-0",
        "|@ ",
    ]);
    if numbers == Numbers::Exact {
        return prop_oneof![8 => none, 2 => exact.prop_map(str::to_string), 1 => odd.prop_map(str::to_string)].boxed();
    }
    let any = (1..2000u32).prop_map(|rate| format!("|@{}", f64::from(rate) / 1000.0));
    let zero = select(vec!["|@0", "|@0.0", "|@0x10", "|@0b1"]).prop_map(str::to_string);
    prop_oneof![8 => none, 2 => any, 1 => exact.prop_map(str::to_string), 1 => odd.prop_map(str::to_string), 1 => zero]
        .boxed()
}

fn tags(numbers: Numbers) -> BoxedStrategy<Vec<u8>> {
    let none = Just(Vec::new());
    let plain = select(vec![
        "|#t:v",
        "|#t:v,u:w",
        "|#env:prod,host:web-1.example.org",
    ]);
    let plain = plain.prop_map(|tags| tags.as_bytes().to_vec());
    if numbers == Numbers::Any {
        return prop_oneof![4 => none, 1 => plain].boxed();
    }
    let odd = select(vec![
        "|#",
        "|#t",
        "|#,",
        "|#t,,u",
        "|#t:a:b",
        "|#t;u:v;w",
        "|#t=v",
        "|#t:v|#u:w",
        "|#t:v|@0.5",
        "|#t:v v",
        "|#é",
        "|#t:v\r",
        "|#t:1:2|c",
        "||#t:v",
        "|# ",
        "|#u:http://x/y",
        "|##",
    ]);
    let odd = odd.prop_map(|tags| tags.as_bytes().to_vec());
    let long = (0..=200usize).prop_map(|length| [b"|#t:", &b"v".repeat(length)[..]].concat());
    prop_oneof![8 => none, 3 => plain, 2 => odd, 1 => long].boxed()
}

/// One to ten lines of DogStatsD, and of the original, in a datagram.
pub(crate) fn dogstatsd(numbers: Numbers) -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![3 => dogstatsd_line(numbers), 1 => line(Numbers::Exact)];
    let newline = select(vec!["\n", "\n", "\n", "\r\n"]);
    vec((line, newline), 1..=10).prop_map(|lines| {
        let bytes = lines.into_iter().flat_map(|(mut line, newline)| {
            line.extend_from_slice(newline.as_bytes());
            line
        });
        bytes.collect()
    })
}

/// One to ten lines of DogStatsD alone.
pub(crate) fn dogstatsd_alone(numbers: Numbers) -> impl Strategy<Value = Vec<u8>> {
    vec(dogstatsd_line(numbers), 1..=10).prop_map(|lines| lines.join(&b'\n'))
}

/// `name:value[:value...]|type` and fields in any order, or what is no metric.
fn dogstatsd_line(numbers: Numbers) -> BoxedStrategy<Vec<u8>> {
    let names = select(vec![
        "a",
        "b.c",
        "a;env=prod",
        "a;t=v;u=w",
        "_e{1,1}",
        "_sc",
        "a,t=v",
        "a[t=v,u=w]",
        "a[t=v].b",
        "a[t",
        ",t=v",
    ]);
    let names = prop_oneof![3 => Just("a"), 2 => names].prop_map(String::from);
    let integers = vec((0..100i32).prop_map(|value| value.to_string()), 1..=4);
    let odd = vec(value(numbers), 0..=4);
    let values = prop_oneof![3 => integers, 1 => odd].prop_map(|values| values.join(":"));
    let kinds = prop_oneof![
        6 => select(vec!["c", "g", "ms", "s", "h", "d"]),
        1 => select(vec!["", "m", "ms ", " h", "d\r", "s ", "#t:v", "c:1", "c:2|ms", "C"])
    ];
    let rates: Vec<&str> = if numbers == Numbers::Exact {
        vec!["@0.5", "@0.25", "@2", "@1", "@0.125", "@", "@0", "@-1"]
    } else {
        vec![
            "@0.1",
            "@.3",
            "@1e-06",
            "@1E-9",
            "@0",
            "@0x10",
            "@1e400",
            "@1e-320",
            "@+1",
            "@",
            "@0.5 ",
            "@0.5:2",
            "@x",
            "@NaN",
            "@Infinity",
            "@2",
        ]
    };
    let rates = select(rates);
    let tags = select(vec![
        "#",
        "#t",
        "#t:",
        "#:v",
        "#,",
        "#t:v",
        "#t:v,u:w",
        "#u:w,t:v",
        "#t:v,t:v",
        "#t:v,t:w",
        "#t,,u",
        "#u;x;y,t:v",
        "#a:b:c",
        "#url:http://x/y",
        "#t=v,u=w",
        "#t:v\r",
        "#t:v ,u",
        "#env:prod,t:v",
    ]);
    let times = select(vec![
        "T1656581400",
        "T0",
        "T",
        "T-1",
        "T1.5",
        "T1e30",
        "T99999999999999999999999",
        "T1656581400 ",
        "T1:2",
    ]);
    let others = select(vec![
        "c:83c0a99c0a54",
        "e:it-false,cn-web,pu-1",
        "card:low",
        "card:",
        "c:",
        "",
        "junk",
        "x:y",
        "0.1",
    ]);
    let field = prop_oneof![
        2 => rates.boxed(), 3 => tags.boxed(), 1 => times.boxed(), 2 => others.boxed()
    ];
    let metric =
        (names, values, kinds, vec(field, 0..=4)).prop_map(|(name, values, kind, fields)| {
            let fields = fields.iter().map(|field| format!("|{field}"));
            format!("{name}:{values}|{kind}{}", fields.collect::<String>()).into_bytes()
        });
    let lengths = "_e[{][0-9]{0,2},[0-9]{1,2}[}]:[a-z]{0,6}[|][a-z]{0,6}([|]#t:v)?";
    let notices = prop_oneof![
        "_e[{][1-5],[1-5][}]:[a-z]{1,5}[|][a-z]{1,5}([|]p:low)?".boxed(),
        lengths.boxed(),
        "_sc[|][a-z]{0,3}[|][0-5]{0,2}([|]#t:v[|]m:text)?".boxed(),
        "_e[{]?[0-9]{0,30},?[0-9]{0,30}[}]?:?[ab|]{0,9}".boxed(),
    ];
    prop_oneof![9 => metric, 1 => notices.prop_map(String::into_bytes)].boxed()
}

/// [`dogstatsd`] with up to eight bytes changed.
pub(crate) fn mutated_dogstatsd(numbers: Numbers) -> impl Strategy<Value = Vec<u8>> {
    let byte = select(b":|@#,;\n\r -.0159eTcgmsd_{}[]=\xff".to_vec());
    let edit = (any::<proptest::sample::Index>(), byte);
    (dogstatsd(numbers), vec(edit, 0..=8)).prop_map(|(mut datagram, edits)| {
        for (at, byte) in edits {
            let at = at.index(datagram.len());
            datagram[at] = byte;
        }
        datagram
    })
}

/// What happens to a server.
#[derive(Clone)]
pub(crate) enum Event {
    /// A datagram comes to one of the workers.
    Datagram(usize, Vec<u8>),
    /// What was collected is moved on.
    Harvest,
    /// The interval ends, so many milliseconds after the last one.
    Flush(u64),
}

/// A datagram is shown as the text it mostly is.
impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Datagram(worker, datagram) => {
                write!(f, "Datagram({worker}, b\"{}\")", datagram.escape_ascii())
            }
            Self::Harvest => write!(f, "Harvest"),
            Self::Flush(after) => write!(f, "Flush({after})"),
        }
    }
}

/// Some datagrams, now and then the end of an interval, and two at the end, the last one idle.
pub(crate) fn history(
    datagram: impl Strategy<Value = Vec<u8>>,
    harvests: bool,
) -> impl Strategy<Value = Vec<Event>> {
    let flush = prop_oneof![4 => Just(1000u64), 1 => 0..4000u64].prop_map(Event::Flush);
    let event = prop_oneof![
        8 => (any::<usize>(), datagram).prop_map(|(worker, datagram)| Event::Datagram(worker, datagram)),
        2 => flush,
        if harvests { 2 } else { 0 } => Just(Event::Harvest),
    ];
    vec(event, 0..24).prop_map(|mut events| {
        events.extend([Event::Flush(1000), Event::Flush(1000)]);
        events
    })
}
