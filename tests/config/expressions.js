// Expressions and, in expressions.json, what Node.js makes of them (with HOST=web-1.eu.example.org, PORT=8126).
{
  arithmetic: [
    10 * 1000, 1 + 2 * 3, (1 + 2) * 3, 7 / 2, 1 / 3, 7 % 3, -7 % 3, 5.5 % 2, 2 ** 10, 2 ** -1, 2 ** 3 ** 2, (-2) ** 3,
    0.1 + 0.2, 1e21 + 1, 5e-324 / 2, 8 * 1024 * 1024, 1 << 20, 1 << 33, -1 >>> 0, -9 >> 1, 5 & 3, 5 | 3, 5 ^ 3, ~5,
    2 ** 32 >> 0, 2 ** 31 | 0, 1e300 | 0, Infinity | 0, +'12', -'3', +true, +null, 1 + -[], +[5], +'', '6' * '7', '8' - 1,
    null + 1, true + true, 10 ** 21, 10 ** 15, 9007199254740993, 0.000001 / 10, [2] * [3], +' \n0x1f ', void 0, -(-5)
  ],
  notNumbers: [
    String(0 / 0), String(1 / -0), String(1 / 0), String(1 ** NaN), String((-1) ** Infinity), String(NaN ** 0), String(-'x'),
    String(+undefined), String(+{}), String(+/1/), String(+[1, 2]), String('5ms' * 1), String(1 % 0), String(Infinity % 2),
    String(2 % Infinity), String(undefined + 1), String(1 / (-1 % 1)), String(+'1_000'), String(+'-0x10')
  ],
  texts: [
    'a' + 'b', 'a' + 1, 1 + 'a', 1 + 2 + 'a', 'a' + 1 + 2, 'a' + null, 'a' + undefined, 'a' + true, 'a' + [1, [2, null], 3], 'a' + {},
    'a' + /x\/y/gi, [] + [], [] + {}, 'a' + 1e21, 'a' + 0.1, 'a' + -0, 'a' + 1e-7, 'a' + 100000, `${1 + 1} of ${'three'}!`, `a${[1, 2]}b${null}`,
    `${undefined}`, `\t\x41`, 'stats.' + 'x' + '.', '\u{1F600}' + '\u00e9', `a
b`
  ],
  choices: [
    0 || 'b', 'a' || 'b', '' || 0 || null, 0 && 'b', 'a' && 'b', null ?? 'b', 0 ?? 'b', undefined ?? null ?? 1, true ? 1 : nothing.here(),
    false ? nothing.here() : 2, '' ? 1 : [] ? 2 : 3, 'x' || nothing.here(), 0 && nothing.here(), !0, !'', !'a', ![], !!NaN, !/x/, NaN || 7,
    '0' ? 1 : 2, -0 ? 1 : 2, (false || null) ?? 5
  ],
  comparisons: [
    1 === 1, '1' === 1, NaN === NaN, 0 === -0, [] === [], null === undefined, null == undefined, null == 0, '' == 0, '1' == 1, '1' == true,
    'true' == true, [5] == 5, [1, 2] == '1,2', {} == '[object Object]', [] == [], [] == '', [] == false, NaN != NaN, 'a' != 'b', 'a' !== 'a',
    1 < 2, '10' < '9', '10' < 9, 'b' > 'a', 'a' <= 'a', 2 >= 3, NaN < 1, undefined < 1, null <= 0, 'x' < 1, [2] > 1, 'Z' < 'a', '\uffff' < '\u{10000}',
    /x/ == '/x/', /x/ === /x/, undefined == 'undefined', 'é' > 'z', true > false, [10] < [9]
  ],
  environment: [
    process.env.HOST, process.env['HOST'], process.env.PORT, +process.env.PORT, process.env.PORT || 8125, process.env.NOT_SET || 'default',
    process.env.NOT_SET ?? 'default', process.env.NOT_SET?.length || 'none', process.env.NOT_SET?.split('.')[0].length === undefined,
    process.env.HOST.split('.')[0], process.env.HOST.split('.').shift(), process.env.HOST.split('.').reverse().join('.'),
    process.env.HOST.replace('.', '_'), process.env.HOST.replace(/\./g, '_'), process.env.HOST.replace(/-/g, ''), parseInt(process.env.PORT) + 1,
    `stats.${process.env.HOST}.`, process.env.PORT == 8126, process.env.PORT === 8126, process.env.PORT > 1024, process.env.NOT_SET === undefined,
    process.env.HOST && process.env.HOST.length, process.env.HOST ? 'named' : 'nameless', process.env['P' + 'ORT'],
    process.platform, process.cwd() !== '', process.pid > 0, require('os').hostname() === require("os").hostname(), require('os').hostname().length > 0,
    require('os').cpus().length >= 1, require('os').platform(), require('os').EOL, require('node:os').hostname().split('.').length > 0,
    !process.env.NOT_SET, ['a', 'web-1.eu.example.org'].includes(process.env.HOST)
  ],
  methods: [
    'a.b.c'.split('.'), 'abc'.split(''), ''.split(''), ''.split('.'), 'a.b'.split(), 'a.b.c'.split('.', 2), 'a.b'.split('.', 0), 'a1b1'.split(1),
    'a.b.c'.split(/\./), 'a.b.c'.split('.').length, 'a.b.c'.split('.')[5] === undefined, ',a,'.split(','), 'abc'.split('', 2), 'a/b'.split(/\//g),
    'a.b.c'.replace('.', '_'), 'a.b.c'.replace(/\./, '_'), 'a.b.c'.replace(/\./g, '_'), 'a.b.c'.replaceAll('.', '_'), 'a.b'.replace('x', 'y'),
    'a.b.c'.replaceAll(/\./g, '$$'), 'a.b'.replace('.', '[$&]'), 'a.b'.replace('.', '[$`]'), 'a.b.c'.replace(/\./g, "[$']"), 'a.b'.replace('.', '$1$<x>$'),
    'ab'.replace('', '_'), 'ab'.replaceAll('', '_'), 'a.b'.replace('.'), 'a1'.replace(1, 2), 'xabcabc'.replace(/abc/g, '-'), 'a-b_c'.replace(/\-/g, '.'),
    ' \n\u00a0x\ufeff '.trim(), '[' + ' x '.trimStart() + ']', '[' + ' x '.trimEnd() + ']', 'aBc\u00df\u0130'.toUpperCase(), 'ABC\u03a3'.toLowerCase(),
    'abcdef'.slice(2), 'abcdef'.slice(-2), 'abcdef'.slice(1, 3), 'abcdef'.slice(1, -1), 'abcdef'.slice(4, 2), 'abcdef'.slice('1', null), 'abcdef'.slice(),
    'abcdef'.substring(2), 'abcdef'.substring(4, 2), 'abcdef'.substring(-3, 2), 'abcdef'.substring(2, 99), 'abcdef'.substring(NaN, 1), 'abcdef'.substr(-3, 2),
    'abcdef'.substr(1), 'abcdef'.substr(2, -1), 'abcdef'.slice(Infinity), 'abcdef'.slice(-Infinity, 2.9), 'abc'.charAt(1), 'abc'.charAt(9), 'abc'.charAt(),
    'abc'.length, '\u{1F600}x'.length, '\u{1F600}x'.slice(0, 2), '\u{1F600}x'[2], 'abc'[0], 'abc'['1'], 'abc'[9] === undefined, 'abc'[-1] === undefined,
    'abc'['length'], 'abc'['toUpperCase'](), 'a'.concat('b', 1, null, [2, 3]), 'abc'.indexOf('c'), 'abc'.indexOf('x'), '\u{1F600}x'.indexOf('x'),
    'abc'.includes('b'), 'abc'.startsWith('ab'), 'abc'.endsWith('b'), 'a1'.endsWith(1), 'abc'.toString(), (5).toString(), true.toString(), 1.5.toString()
  ],
  lists: [
    [1, 2, 3].join(), [1, null, undefined, [2, 3]].join('-'), [1, 2].join(undefined), [1, 2].join(null), [].join(), [1, 2, 3].slice(1), [1, 2, 3].slice(-1),
    [1, 2, 3].slice(0, -1), [1, 2, 3].slice(2, 1), [1, 2, 3].slice(), [3, 1].reverse(), [1].concat([2, [3]], 4), [1, 2].concat(), [1, 2].length, [1, 2][1],
    [1, 2]['0'], [1, 2][2] === undefined, [1, 2][-1] === undefined, [1, 2].shift(), [1, 2].pop(), [].pop() === undefined, [1, NaN].includes(NaN), ['1'].includes(1),
    [1, 2].indexOf(2), [NaN].indexOf(NaN), [[1, 2], 3].toString(), [...[1, 2], 3], [...'a.b'.split('.'), 'c'], { a: { b: [7] } }.a.b[0], { a: 1 }['a'],
    { a: 1 }.b === undefined, { ...{ a: 1, b: 2 }, b: 3 }, { b: 0, ...{ a: 1, b: 2 } }, { ...null, ...undefined, ...false, ...'', c: 1 }, { ['k' + 1]: 1, ['x' + 2]: 3, [null]: 4 },
    { a: { b: null } }.a.b?.c.d.e === undefined
  ],
  functions: [
    parseInt('12px'), parseInt('0x1f'), parseInt('1010', 2), parseInt('ff', 16), parseInt('0xff', 16), parseInt('  -7.9'), parseInt(9.99), parseInt('08', 10), parseInt('z', 36),
    parseInt(1e21), parseInt(null, 36), parseInt('0x1f', 10), parseInt('12345678901234567890'), String(parseInt('x')), String(parseInt('')), String(parseInt()), String(parseInt('0x')),
    parseFloat('1.5e3s'), parseFloat('.5.5'), parseFloat('-5.'), parseFloat('1e'), parseFloat('1e+x'), String(parseFloat('Infinityx')), String(parseFloat('.')), String(parseFloat('x1')),
    parseFloat('\n+7'), parseFloat('0x10'), Number('12'), Number(), Number(''), Number([]), Number(null), String(Number(undefined)), String(Number('1 2')), Number('1e3'),
    String(), String(null), String([1, [2]]), String({}), String(/a\/b/gimsuy), String(1e21), String('x'), String(true), Boolean(), Boolean('false'), Boolean(0), Boolean([]), Boolean(/x/),
    Math.floor(1.7), Math.ceil(1.2), Math.round(2.5), Math.round(-2.5), Math.round(0.49999999999999994), Math.round(1.4), Math.trunc(-1.7), Math.abs(-3), Math.max(1, '7', 3), Math.min(4, 2),
    String(Math.max()), String(Math.min()), String(Math.max(1, NaN)), String(1 / Math.round(-0.2)), Math.round(4503599627370497.5), Math.max(1, require('os').cpus().length - 100),
    (function () { return 5; })(), (() => 6)(), (() => { return { a: 7 }; })().a, (function () { 'use strict'; return undefined; })() === undefined
  ]
}
