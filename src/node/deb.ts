/** Files of a Debian package. */
import { gunzipSync, zstdDecompressSync } from 'node:zlib';
import { unpackTar } from 'modern-tar';
import xz from 'xz-decompress';
import { readAr } from './ar.ts';
import { UserError } from './errors.ts';

export interface DebFile {
  /** Without the leading `./`. */
  readonly path: string;
  readonly data: Uint8Array;
}

/** Bytes that a package or module may unpack to: beyond it the file is taken for damaged or hostile. */
const MOST_BYTES = 2 ** 31;

export async function decompressXz(bytes: Uint8Array, where: string): Promise<Uint8Array> {
  const source = new ReadableStream<Uint8Array>({
    start(controller) {
      controller.enqueue(bytes);
      controller.close();
    },
  });
  const chunks: Uint8Array[] = [];
  let length = 0;
  try {
    const reader = new xz.XzReadableStream(source as never).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      length += value.length;
      if (length > MOST_BYTES) throw new Error('it unpacks to more than 2 GiB');
      chunks.push(Uint8Array.from(value));
    }
  } catch (error) {
    throw new UserError(`${where} cannot be unpacked (${(error as Error).message}): download it again`);
  }
  return Buffer.concat(chunks);
}

/** By the ending of `name`: .xz, .gz, .zst or nothing. */
export async function decompress(bytes: Uint8Array, name: string, where: string): Promise<Uint8Array> {
  if (name.endsWith('.xz')) return decompressXz(bytes, where);
  try {
    if (name.endsWith('.gz')) return gunzipSync(bytes, { maxOutputLength: MOST_BYTES });
    if (name.endsWith('.zst')) return zstdDecompressSync(bytes, { maxOutputLength: MOST_BYTES });
  } catch (error) {
    throw new UserError(`${where} cannot be unpacked (${(error as Error).message}): download it again`);
  }
  return bytes;
}

/** Regular files for which `want` says yes. */
export async function readDeb(
  bytes: Uint8Array,
  where: string,
  want: (path: string) => boolean,
): Promise<DebFile[]> {
  const member = readAr(bytes, where).find(({ name }) => name.startsWith('data.tar'));
  if (member === undefined) throw new UserError(`${where} has no data archive: give a binary Debian package`);
  const tar = await decompress(member.data, member.name, where);
  try {
    const entries = await unpackTar(tar, {
      filter: (header) => header.type === 'file' && want(clean(header.name)),
    });
    return entries.map((entry) => ({
      path: clean(entry.header.name),
      data: entry.data ?? new Uint8Array(0),
    }));
  } catch (error) {
    throw new UserError(
      `${where} has a damaged data archive (${(error as Error).message}): download it again`,
    );
  }
}

const clean = (path: string): string => path.replace(/^\.?\//, '');
