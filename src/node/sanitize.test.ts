import { expect, test } from 'vitest';
import { LogStream, logText, markupText, plainText } from './sanitize.ts';

test('plainText shows escape sequences instead of passing them on', () => {
  expect(plainText('\x1b[2Jhello\r\nworld\x07\x9b1m')).toBe('\\x1b[2Jhello\nworld\\x07\\x9b1m');
});

test('plainText replaces a lone carriage return, which would overwrite a line', () => {
  expect(plainText('verdict: pass\rverdict: fail')).toBe('verdict: pass\\x0dverdict: fail');
});

test('plainText shows direction overrides', () => {
  expect(plainText('a\u202eb')).toBe('a\\x202eb');
});

test('logText breaks workflow commands at the start of any line', () => {
  expect(logText('x\n::error::owned\n  ##[group]y')).toBe('x\n\\::error::owned\n  \\##[group]y');
});

test('markupText leaves no markup', () => {
  expect(markupText('<script>alert("1")</script>&')).toBe(
    '&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;',
  );
});

test('invalid UTF-8 does not throw', () => {
  expect(plainText(new Uint8Array([0xff, 0x41]))).toBe('\ufffdA');
});

const HOSTILE =
  '\x1b]0;owned\x07\x1b[2J\r\n::error file=x::owned\r\n   ::warning::w\n##[section]x\n##vso[task.setvariable]y\n#include\n:x\n\r\r\n<b>\u009b31m\u202e\n  \n::set-output name=a::b';

test('a hostile console that arrives in any pieces comes out as logText of the whole, and harmless', () => {
  const bytes = new TextEncoder().encode(HOSTILE);
  for (let size = 1; size <= bytes.length; size++) {
    const stream = new LogStream();
    let out = '';
    for (let at = 0; at < bytes.length; at += size) out += stream.push(bytes.subarray(at, at + size));
    out += stream.end();
    expect(out).toBe(logText(HOSTILE));
    expect(out).not.toMatch(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202e]/);
    expect(out).not.toMatch(/^\s*(::|##\[|##vso\[)/m);
  }
});

test('LogStream holds no text back that is decided', () => {
  const stream = new LogStream();
  expect(stream.push(new TextEncoder().encode('login: '))).toBe('login: ');
});
