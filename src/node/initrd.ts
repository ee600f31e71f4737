/** Looks at the user's initial RAM disk before the kernel gets it: damage is said in a sentence instead of by a panic. */
import { checkCpio, initrdFormat } from '../launch/initrd.ts';
import { sentence } from '../launch/outcome.ts';
import { decompress } from './deb.ts';
import { UserError } from './errors.ts';

/** What this program can unpack; the kernel may know more. */
const ENDINGS: Readonly<Record<string, string>> = { gzip: '.gz', xz: '.xz', zstd: '.zst' };

/** The bytes as they are, or a UserError. Archives may follow each other, with zeros between, the last one compressed. */
export async function checkInitrd(bytes: Uint8Array, path: string): Promise<Uint8Array> {
  const where = `initrd ${path}`;
  let at = 0;
  let archives = 0;
  while (at < bytes.length) {
    const format = initrdFormat(bytes, at);
    if (format === undefined)
      throw new UserError(
        archives === 0
          ? `${where} is neither a cpio archive nor compressed nor a file system: give one that the kernel can unpack`
          : `${where} has something unknown at byte 0x${at.toString(16)}: make or fetch it again`,
      );
    if (format === 'padding') {
      while (at < bytes.length && bytes[at] === 0) at++;
      if (at === bytes.length && bytes.every((byte) => byte === 0))
        throw new UserError(`${where} holds only zeros: give a cpio archive`);
      continue;
    }
    if (format === 'cpio') {
      const outcome = checkCpio(bytes, at, where);
      if (!outcome.ok) throw new UserError(sentence(outcome.error));
      at = outcome.end;
      archives++;
      continue;
    }
    const ending = ENDINGS[format];
    if (ending !== undefined) {
      const inner = await decompress(withoutPadding(bytes.subarray(at), format), ending, where);
      if (initrdFormat(inner) === 'cpio') {
        const outcome = checkCpio(inner, 0, where);
        if (!outcome.ok) throw new UserError(sentence(outcome.error));
      }
    }
    return bytes;
  }
  return bytes;
}

/** An xz stream ends with "YZ": zeros behind it are padding. The others end where their length says. */
function withoutPadding(bytes: Uint8Array, format: string): Uint8Array {
  if (format !== 'xz') return bytes;
  let end = bytes.length;
  while (end > 0 && bytes[end - 1] === 0) end--;
  return bytes.subarray(0, end);
}
