/**
 * Guest text made harmless. A guest's console may carry terminal control sequences, CI workflow commands and markup; where
 * it is shown outside the guest's own raw console, nothing of that may work.
 */

/** For terminals and logs: control characters but newline and tab become visible. */
export function plainText(bytes: Uint8Array | string): string {
  const text = typeof bytes === 'string' ? bytes : new TextDecoder('utf-8', { fatal: false }).decode(bytes);
  return text
    .replace(/\r\n/g, '\n')
    .replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g, (char) => `\\x${char.charCodeAt(0).toString(16).padStart(2, '0')}`);
}

/** For logs that a CI system reads line by line: workflow commands (::name::, ##[name]) cannot start a line. */
export function logText(bytes: Uint8Array | string): string {
  return plainText(bytes).replace(/^(\s*)(::|##\[|##vso\[)/gm, '$1\\$2');
}

/** For HTML and XML. */
export function markupText(bytes: Uint8Array | string): string {
  const ENTITIES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
  return plainText(bytes).replace(/[&<>"']/g, (char) => ENTITIES[char] as string);
}
