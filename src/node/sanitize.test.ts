import { expect, test } from 'vitest';
import { logText, markupText, plainText } from './sanitize.ts';

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
  expect(markupText('<script>alert("1")</script>&')).toBe('&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;');
});

test('invalid UTF-8 does not throw', () => {
  expect(plainText(new Uint8Array([0xff, 0x41]))).toBe('\ufffdA');
});
