//! Texts and the trees they come to.

use super::super::Place;
use super::super::value::Value;
use super::*;

/// A machine that has all there is to ask for.
fn machine() -> Environment {
    let long = "l".repeat(1000);
    let variables = [
        ("HOST", "web-1.eu"),
        ("EMPTY", ""),
        ("PORT", "8126"),
        ("LONG", &long),
    ];
    Environment {
        host_name: Some("db-2.us.example.org".into()),
        processors: 3,
        process_id: 41,
        directory: Some("/srv".into()),
        variables: variables
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
    }
}

fn parse(text: &str) -> Result<Tree, Vec<Fault>> {
    super::parse(text, &machine())
}

fn value(text: &str) -> Value {
    parse(text)
        .unwrap_or_else(|faults| panic!("{text}: {faults:?}"))
        .root
        .value
}

/// The tree without places, to compare with.
fn plain(value: &Value) -> String {
    match value {
        Value::Undefined => "undefined".into(),
        Value::Null => "null".into(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => format!("{number:?}"),
        Value::String(text) => format!("{text:?}"),
        Value::List(nodes) => {
            format!(
                "[{}]",
                nodes
                    .iter()
                    .map(|n| plain(&n.value))
                    .collect::<Vec<_>>()
                    .join(" ")
            )
        }
        Value::Map(entries) => {
            let entries = entries
                .iter()
                .map(|e| format!("{}={}", e.key, plain(&e.node.value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(" "))
        }
        Value::Regex { .. } => super::super::coerce::string(value),
    }
}

#[test]
fn json_and_json5_are_read() {
    for (text, want) in [
        (
            r#"{"a": [1, 2.5, -3e2], "b": {"c": null, "d": true}, "e": "x\u0041\n"}"#,
            "{a=[1.0 2.5 -300.0] b={c=null d=true} e=\"xA\\n\"}",
        ),
        (
            "{a: 'single', $b_1: \"double\", 'c d': `back`,}",
            "{a=\"single\" $b_1=\"double\" c d=\"back\"}",
        ),
        (
            "// line\n{ /* block */ a: [1, 2,], // end\n}",
            "{a=[1.0 2.0]}",
        ),
        (
            "{a: [ 'x'\n , 'y'\n , 'z' ]\n, b: 1\n}",
            "{a=[\"x\" \"y\" \"z\"] b=1.0}",
        ),
        (
            "{a: 0x1F, b: +5, c: -5, d: .5, e: 5., f: -0x10, g: 1_000}",
            "{a=31.0 b=5.0 c=-5.0 d=0.5 e=5.0 f=-16.0 g=1000.0}",
        ),
        (
            "[Infinity, -Infinity, +Infinity, NaN, -0]",
            "[inf -inf inf NaN -0.0]",
        ),
        ("({a: 1})", "{a=1.0}"),
        ("{a: 1};", "{a=1.0}"),
        ("module.exports = {a: 1};", "{a=1.0}"),
        ("module.exports = ({a: (1)});;\n", "{a=1.0}"),
        ("\u{feff}{a: 1}", "{a=1.0}"),
        (
            "/*\n * head\n */\r\n{\r\n  a: 1,\r\n  b: 'x\\\r\ny'\r\n}\r\n",
            "{a=1.0 b=\"xy\"}",
        ),
        ("{0x10: 1, 'ü': 2, ü: 3}", "{16=1.0 ü=3.0}"),
        ("{a: undefined}", "{a=undefined}"),
        ("{}", "{}"),
        ("5", "5.0"),
    ] {
        assert_eq!(plain(&value(text)), want, "{text}");
    }
}

#[test]
fn values_and_keys_know_where_they_stand() {
    let tree = parse("\u{feff}{ ü: 1,\r\n  b: [ 2 ,\r    -3] }").expect("well-formed");
    let Value::Map(entries) = tree.root.value else {
        panic!("a map")
    };
    assert_eq!(tree.root.place, Place { line: 1, column: 1 });
    assert_eq!(entries[0].place, Place { line: 1, column: 3 });
    assert_eq!(entries[0].node.place, Place { line: 1, column: 6 });
    assert_eq!(entries[1].place, Place { line: 2, column: 3 });
    let Value::List(items) = &entries[1].node.value else {
        panic!("a list")
    };
    assert_eq!(items[0].place, Place { line: 2, column: 8 });
    assert_eq!(items[1].place, Place { line: 3, column: 5 });
}

#[test]
fn the_last_of_two_equal_keys_counts() {
    let tree = parse("{a: 1, b: 2,\n 'a': 3}").expect("well-formed");
    assert_eq!(plain(&tree.root.value), "{a=3.0 b=2.0}");
    assert_eq!(tree.warnings.len(), 1);
    assert_eq!(tree.warnings[0].place, Place { line: 2, column: 2 });
    assert_eq!(
        tree.warnings[0].message,
        "a is written twice, the last one counts"
    );
    assert_eq!(
        tree.warnings[0].hint,
        "remove one of them; the first is at line 1"
    );
}

/// Places and messages, and hints, of everything that is wrong.
fn faults(text: &str) -> Vec<(String, String)> {
    let shown = |Fault {
                     place: Place { line, column },
                     message,
                     hint,
                 }| (format!("{line}:{column} {message}"), hint);
    parse(text)
        .expect_err(text)
        .into_iter()
        .map(shown)
        .collect()
}

#[test]
#[rustfmt::skip]
fn what_has_no_value_is_a_fault_with_a_way_out() {
    for (text, message, hint) in [
        ("{a: b}", "1:5 b is not a value", "a text needs quotes: \"b\""),
        ("{a: os.hostname()}", "1:5 os is not a value", "write require(\"os\")"),
        ("{a: env.X}", "1:5 env is not a value", "write process.env"),
        ("{a: process}", "1:5 process is not a value", "write what of it is meant, e.g. process.env.NAME"),
        ("{a: process.env}", "1:5 process.env is not supported", "write the value itself; there are process.env.NAME, process.pid, process.cwd()"),
        ("{a: process.env.toString}", "1:5 process.env.toString is a function", explain::HINT_VALUE),
        ("{a: process.argv[2]}", "1:5 process.argv is not supported", "write the value itself; there are process.env.NAME, process.pid, process.cwd()"),
        ("{a: require('os')}", "1:5 the module os is not a value", explain::HINT_REQUIRE),
        ("{a: require('fs').readFileSync('x')}", "1:5 the module fs is not a value", explain::HINT_REQUIRE),
        ("{a: require('./other')}", "1:5 the module ./other is not a value", explain::HINT_REQUIRE),
        ("{a: require(process.env.HOST)}", "1:5 a module is not a value", explain::HINT_REQUIRE),
        ("{a: require('os').uptime()}", "1:5 os.uptime() is not supported", explain::HINT_REQUIRE),
        ("{a: require('os').cpus()}", "1:5 os.cpus() is not supported", explain::HINT_REQUIRE),
        ("{a: Math.PI}", "1:5 Math.PI is not supported", "write the result; there are Math.abs, ceil, floor, max, min, round, trunc"),
        ("{a: Math.random()}", "1:5 Math.random() is not supported", "write the result; there are Math.abs, ceil, floor, max, min, round, trunc"),
        ("{a: JSON.parse('1')}", "1:5 JSON is not a value", explain::HINT_CALL),
        ("{a: f(1)}", "1:5 the function f is not supported", "write the result of the call in its place; the functions are parseInt, parseFloat, Number, String, Boolean"),
        ("{a: x.y}", "1:5 x is not a value", "a text needs quotes: \"x\""),
        ("{a: 'a'.match(/a/)}", "1:5 the method match of a text is not supported", "write the result of the call in its place; the methods are charAt, concat, endsWith, includes, indexOf, replace, replaceAll, slice, split, startsWith, substr, substring, toLowerCase, toString, toUpperCase, trim, trimEnd, trimStart"),
        ("{a: 'a'.length.x}", "1:5 x of a number is not supported", "texts and lists have .length, [0] and methods, which need ( ) behind them"),
        ("{a: [1].map(x => x)}", "1:5 the method map of a list is not supported", "write the result of the call in its place; the methods are concat, includes, indexOf, join, pop, reverse, shift, slice, toString"),
        ("{a: {}.f()}", "1:5 the method f of an object is not supported", explain::HINT_CALL),
        ("{a: (5).toString(2)}", "1:5 toString with these arguments is not supported", explain::HINT_CALL),
        ("{a: 'a.b'.replace(/\\..*$/, '')}", "1:5 replace with a regular expression that is more than plain characters", "use a text or one like /\\./g, or .split(\".\")[0] for what stands before a dot"),
        ("{a: 'a.b'.split(/\\./i)}", "1:5 split with a regular expression that is more than plain characters", "use a text or one like /\\./g, or .split(\".\")[0] for what stands before a dot"),
        ("{a: 'a'.replaceAll(/a/, 'b')}", "1:5 replaceAll with a regular expression without the flag g", "write a g behind it: /.../g"),
        ("{a: 'abc'.indexOf('a', 1)}", "1:5 indexOf with these arguments is not supported", explain::HINT_CALL),
        ("{a: parseInt('1', 1)}", "1:5 parseInt with these arguments is not supported", explain::HINT_CALL),
        ("{a: f(...[1])}", "1:5 the function f is not supported", "write the result of the call in its place; the functions are parseInt, parseFloat, Number, String, Boolean"),
        ("{a: 'a'.concat(...[1])}", "1:16 `...` in a call", "write the arguments out"),
        ("{a: process.env.NOT_SET.split('.')}", "1:5 cannot read split of process.env.NOT_SET, which is not set", "set it before the start, or write (process.env.NOT_SET || \"a default\")"),
        ("{a: process.env['NOT_SET'][0]}", "1:5 cannot read 0 of process.env.NOT_SET, which is not set", "set it before the start, or write (process.env.NOT_SET || \"a default\")"),
        ("{a: null.x}", "1:5 cannot read x of null", "look at what stands before it, or write the value itself"),
        ("{a: '\\u{1f600}'.slice(1)}", "1:5 half of a surrogate pair would be left of a text", "write the finished text in quotes"),
        ("{a: '\\u{1f600}'.split('')}", "1:5 half of a surrogate pair would be left of a text", "write the finished text in quotes"),
        ("{a: '\\u{1f600}'[0]}", "1:5 half of a surrogate pair would be left of a text", "write the finished text in quotes"),
        ("{a: '\\ud800'}", "1:5 half of a surrogate pair in a text", "write the character itself"),
        ("{a: `\\ud800`}", "1:5 half of a surrogate pair in a text", "write the character itself"),
        ("{a: 1n}", "1:5 a number that ends in n is not supported", "leave the n out"),
        ("{a: typeof x}", "1:5 typeof and delete are not supported", "write what it comes to, or e.g. (process.env.NAME || \"a default\")"),
        ("{a: 'b' in {}}", "1:5 in and instanceof are not supported", "write what it comes to: true or false"),
        ("{a: new Date()}", "1:5 new is not supported", "write the value itself; a regular expression is /.../"),
        ("{a: String.raw`x`}", "1:5 a function call is not supported", explain::HINT_CALL),
        ("{a: () => 1}", "1:5 a function in a configuration", explain::HINT_VALUE),
        ("{a() {}}", "1:2 a function in a configuration", explain::HINT_VALUE),
        ("{get a() { return 1; }}", "1:2 a function in a configuration", explain::HINT_VALUE),
        ("{a: (function(x) { return x; })(1)}", "1:5 a function that does more than return a value", "write only the value, without the function"),
        ("{a: (function() { var x = 1; return x; })()}", "1:5 a function that does more than return a value", "write only the value, without the function"),
        ("{a}", "1:2 a key without a value", "write `key: value`"),
        ("{[a]: 1}", "1:3 a is not a value", "a text needs quotes: \"a\""),
        ("{__proto__: {a: 1}}", "1:2 __proto__ is no key: it says what an object inherits", "write the keys out"),
        ("{...a}", "1:5 a is not a value", "a text needs quotes: \"a\""),
        ("{...[1]}", "1:2 `...` of something that is no object", "write the keys out"),
        ("[...a]", "1:5 a is not a value", "a text needs quotes: \"a\""),
        ("[...{}]", "1:2 `...` of something that is no list", "write the items out"),
        ("[1,,2]", "1:4 an empty place in a list", "remove the extra comma"),
        ("{a: b = 1}", "1:5 an assignment in a configuration", "write only the value, or `module.exports = { ... };`"),
        ("config = {}", "1:1 an assignment in a configuration", "write only the value, or `module.exports = { ... };`"),
        ("{}; {}", "1:5 a second statement", explain::HINT_ONE_VALUE),
        ("'use strict'; module.exports = {}", "1:15 a second statement", explain::HINT_ONE_VALUE),
        ("{}, {}", "1:1 more than one value", explain::HINT_ONE_VALUE),
        ("{a: (1, 2)}", "1:6 a comma between two values", "put the values into [ ... ]"),
        ("// nothing", "1:1 the file holds no value", "write an object, e.g. { backends: [\"./backends/console\"] }, or {} for the defaults"),
        ("", "1:1 the file holds no value", "write an object, e.g. { backends: [\"./backends/console\"] }, or {} for the defaults"),
        ("/* x */ var os = require('os');\nmodule.exports = {}", "1:9 var begins a statement, not a value", explain::HINT_STATEMENT),
        ("let a = 1; module.exports = {a: a}", "1:1 let begins a statement, not a value", explain::HINT_STATEMENT),
        ("if (true) { a: 1 }", "1:1 if begins a statement, not a value", explain::HINT_STATEMENT),
        ("import os from 'os';", "1:1 import begins a statement, not a value", explain::HINT_STATEMENT),
        ("// é\n  const a = 1;", "2:3 const begins a statement, not a value", explain::HINT_STATEMENT),
    ] {
        assert_eq!(faults(text), [(message.into(), hint.into())], "{text}");
    }
}

#[test]
fn everything_that_is_wrong_is_reported() {
    let wrong = |text: &str| -> Vec<String> {
        let faults = faults(text).into_iter();
        faults.map(|(message, _)| message).collect()
    };
    assert_eq!(
        wrong("{a: b,\n c: d(),\n e: [f], [g]: h}"),
        [
            "1:5 b is not a value",
            "2:5 the function d is not supported",
            "3:6 f is not a value",
            "3:11 g is not a value",
            "3:15 h is not a value",
        ]
    );
    assert_eq!(
        wrong("[a + `x${b}${c}`, String(d, e), 'f'.concat(g)]"),
        [
            "1:2 a is not a value",
            "1:10 b is not a value",
            "1:14 c is not a value",
            "1:26 d is not a value",
            "1:29 e is not a value",
            "1:44 g is not a value",
        ]
    );
    // What depends on something wrong is not blamed as well.
    assert_eq!(
        wrong("[a.b.c().d, -a, a || b, a ? b : c]"),
        [
            "1:2 a is not a value",
            "1:14 a is not a value",
            "1:17 a is not a value",
            "1:25 a is not a value",
        ]
    );
}

#[test]
fn the_machine_is_asked_as_node_is_asked() {
    for (text, want) in [
        ("require('os').hostname()", "\"db-2.us.example.org\""),
        ("require(\"os\").hostname().split('.')[0]", "\"db-2\""),
        (
            "require('node:os').hostname().replace(/\\./g, '_')",
            "\"db-2_us_example_org\"",
        ),
        ("require('os')['hostname']()", "\"db-2.us.example.org\""),
        ("require('os').cpus().length", "3.0"),
        ("require('os').cpus().length - 1 || 1", "2.0"),
        ("require('os').platform()", "\"linux\""),
        ("require('os').EOL", "\"\\n\""),
        ("process.env.HOST", "\"web-1.eu\""),
        ("process['env']['HOST']", "\"web-1.eu\""),
        ("process.env['HO' + 'ST']", "\"web-1.eu\""),
        ("process.env.EMPTY", "\"\""),
        ("process.env.EMPTY || 'x'", "\"x\""),
        ("process.env.EMPTY ?? 'x'", "\"\""),
        ("process.env.NOT_SET", "undefined"),
        ("process.env.NOT_SET?.split('.')[0].length", "undefined"),
        ("process.env.host", "undefined"),
        ("parseInt(process.env.PORT, 10) || 8125", "8126.0"),
        ("process.pid", "41.0"),
        ("process.cwd()", "\"/srv\""),
        ("process.platform", "\"linux\""),
    ] {
        assert_eq!(plain(&value(text)), want, "{text}");
    }
    let silent = Environment::default();
    for (text, message) in [
        (
            "require('os').hostname()",
            "the system does not tell os.hostname()",
        ),
        ("process.cwd()", "the system does not tell process.cwd()"),
    ] {
        let faults = super::parse(text, &silent).expect_err(text);
        assert_eq!(faults[0].message, message);
        assert_eq!(faults[0].hint, "write the text itself");
    }
}

#[test]
fn variables_that_are_not_set_are_noticed_where_nothing_stands_in_for_them() {
    let warnings = |text: &str| parse(text).expect(text).warnings;
    for text in [
        "{a: process.env.X}",
        "{a: 0 || process.env.X}",
        "[ 1, process.env.X]",
        "'a' +process.env.X",
        "`ab${process.env.X}`",
        "1 - -process.env.X",
    ] {
        let warnings = warnings(text);
        assert_eq!(warnings.len(), 1, "{text}: {warnings:?}");
        let Place { line: 1, column } = warnings[0].place else {
            panic!("{text}: {warnings:?}");
        };
        assert_eq!(text.find("process"), Some(column as usize - 1), "{text}");
        assert_eq!(
            (warnings[0].message.as_str(), warnings[0].hint.as_str()),
            (
                "the environment has no X, so this is undefined",
                "set it before the start, or write (process.env.X || \"a default\")"
            ),
            "{text}"
        );
    }
    for text in [
        "{a: process.env.X || 1}",
        "{a: process.env.X ?? 1}",
        "{a: process.env.X && 1}",
        "{a: process.env.X ? 1 : 2}",
        "{a: process.env.X === 'x'}",
        "{a: !process.env.X}",
        "{a: process.env.X?.length}",
        "{a: parseInt(process.env.X) || 1}",
        "{a: process.env.HOST}",
        "{a: process.env.EMPTY}",
        "{a: undefined}",
    ] {
        assert_eq!(warnings(text), [], "{text}");
    }
}

#[test]
fn regular_expressions_are_values() {
    for (text, source, flags) in [
        ("/a/", "a", ""),
        ("/^a\\.[/](b|\\/)$/ig", "^a\\.[/](b|\\/)$", "gi"),
        ("(/a/yusmig)", "a", "gimsuy"),
    ] {
        let regex = Value::Regex {
            source: source.into(),
            flags: flags.into(),
        };
        assert_eq!(value(text), regex, "{text}");
    }
}

#[test]
fn what_is_put_together_has_a_limit() {
    let fault = |column: u32| {
        let message = "more than 1048576 bytes of text are put together";
        (
            format!("1:{column} {message}"),
            "write the finished text in quotes".to_owned(),
        )
    };
    let doubled = |times: usize| format!("'x'{}", ".replace(/x/g, 'xx')".repeat(times));
    assert_eq!(plain(&value(&(doubled(19) + ".length"))), "524288.0");
    for text in [
        doubled(20),
        doubled(20) + ".length",
        format!("[{0}, {0}, {0}]", doubled(18)),
        "'x'".to_owned() + &".replace(/x/g, '$&$&$&$&')".repeat(60),
        "'xx'".to_owned() + &".replace(/x/g, \"$`$'$&\")".repeat(60),
        doubled(17) + ".split('')",
        doubled(17) + ".split('').join('xxxxxxxxxxxxxxxx')",
        format!("[{}]", "process.env.LONG, ".repeat(2000)),
    ] {
        let found = faults(&text);
        let place = &found[0].0;
        let column = place[2..].split(' ').next().expect("a column");
        let column = column.parse().expect("a number");
        assert_eq!(found, [fault(column)], "{}", &text[..60]);
    }
    let long = "x".repeat(600_000);
    assert_eq!(faults(&format!("['{long}' + '{long}']")), [fault(2)]);
    // What is merely written does not count.
    assert!(parse(&format!("['{long}', '{long}', 'a' + 'b']")).is_ok());
}

#[test]
fn a_syntax_error_names_its_place() {
    for (text, line, column) in [
        ("{a: 1\n b: 2}", 2, 2),
        ("{a: 1", 1, 6),
        ("{a: 'x}", 1, 5),
        ("= {}", 1, 1),
        ("{a: 1}}", 1, 7),
    ] {
        let faults = parse(text).expect_err(text);
        assert_eq!(
            faults[0].place,
            Place { line, column },
            "{text}: {faults:?}"
        );
        assert!(
            faults[0].message.starts_with("syntax error: "),
            "{faults:?}"
        );
    }
}

#[test]
fn the_deepest_allowed_text_fits_a_thread_stack() {
    let depth = nesting::DEPTH_MAX;
    let brackets = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(parse(&brackets).is_ok());
    assert!(
        parse(&format!(
            "{{a: {}{}}}",
            "{a: ".repeat(depth - 1) + "1",
            "}".repeat(depth - 1)
        ))
        .is_ok()
    );
    // As many links as the scan lets through, which is what the parser and the evaluator have to bear.
    let longest = |text: &dyn Fn(usize) -> String| {
        let texts = (1..).map(text);
        let fine = texts.take_while(|text| nesting::scan(text) == Nesting::Fine);
        fine.last().expect("one is fine")
    };
    let (open, close) = ("(".repeat(depth - 1), ")".repeat(depth - 1));
    for link in [
        "- ", "a = ", "a ? b : ", "typeof ", "new ", "a => ", "a ** ", "1 ** ", "0 || ", "1 ? ",
        "0 ? 0 : ", "!", "1 + (0, ", "`${", "[", "...",
    ] {
        let _ = parse(&longest(&|links| {
            format!("{open}{}1{close}", link.repeat(links))
        }));
        let _ = parse(&longest(&|links| format!("{}1", link.repeat(links))));
    }
    for link in [
        ".a", "?.a", ".trim()", "?.trim()", ".concat(", "[0]", "`x`", " + 1", " || 0", " ?? 0",
        "()",
    ] {
        for head in ["a", "{}", "'a'", "process.env", "require('os')"] {
            let _ = parse(&longest(&|links| format!("[{head}{}]", link.repeat(links))));
        }
    }
    assert!(parse(&format!("a{}", ".a".repeat(1 << 19))).is_err());
    assert!(parse(&"[".repeat(1 << 20)).is_err());
    assert!(parse(&"- ".repeat(1 << 20)).is_err());
}
