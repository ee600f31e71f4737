/** Writes cpio archives in the "newc" format that the kernel unpacks (Documentation/driver-api/early-userspace). Reproducible. */

export interface CpioEntry {
  readonly path: string;
  /** File type and permissions, as in stat. */
  readonly mode: number;
  readonly data?: Uint8Array;
  /** Device number of a character device. */
  readonly device?: { readonly major: number; readonly minor: number };
}

export const MODE = {
  directory: 0o040755,
  file: 0o100644,
  program: 0o100755,
  link: 0o120777,
  character: 0o020600,
} as const;

/** Entries in the order given; parents must come first. All times are 0, owners root, inode numbers by position. */
export function writeCpio(entries: readonly CpioEntry[]): Uint8Array {
  const chunks: Uint8Array[] = [];
  let length = 0;
  const push = (bytes: Uint8Array): void => {
    chunks.push(bytes);
    length += bytes.length;
  };
  const pad = (): void => {
    if (length % 4 !== 0) push(new Uint8Array(4 - (length % 4)));
  };
  const encoder = new TextEncoder();
  const write = (inode: number, { path, mode, data, device }: CpioEntry): void => {
    const name = encoder.encode(`${path}\0`);
    const size = data?.length ?? 0;
    if (size > 0xffffffff) throw new RangeError(`${path} is too large for a cpio archive`);
    const links = (mode & 0o170000) === 0o040000 ? 2 : 1;
    const fields = [
      inode,
      mode,
      0,
      0,
      links,
      0,
      size,
      0,
      0,
      device?.major ?? 0,
      device?.minor ?? 0,
      name.length,
      0,
    ];
    push(encoder.encode('070701' + fields.map((field) => field.toString(16).padStart(8, '0')).join('')));
    push(name);
    pad();
    if (data !== undefined && data.length > 0) {
      push(data);
      pad();
    }
  };
  for (const [index, entry] of entries.entries()) write(index + 1, entry);
  write(0, { path: 'TRAILER!!!', mode: 0 });
  const archive = new Uint8Array(Math.ceil(length / 512) * 512);
  let at = 0;
  for (const chunk of chunks) {
    archive.set(chunk, at);
    at += chunk.length;
  }
  return archive;
}
