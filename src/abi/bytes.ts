/** Building byte strings. */

/** One array of the parts; a number is one byte. */
export function concat(...parts: readonly (number | Uint8Array)[]): Uint8Array {
  let length = 0;
  for (const part of parts) length += typeof part === 'number' ? 1 : part.length;
  const all = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    if (typeof part === 'number') all[at++] = part;
    else {
      all.set(part, at);
      at += part.length;
    }
  }
  return all;
}

/** 7-bit text, one byte for a character. */
export function ascii(text: string): Uint8Array {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}
