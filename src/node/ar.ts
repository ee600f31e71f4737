/** Reads ar archives, the outer form of a .deb (deb(5)). */
import { UserError } from './errors.ts';

export interface ArMember {
  readonly name: string;
  readonly data: Uint8Array;
}

const MAGIC = '!<arch>\n';

export function readAr(bytes: Uint8Array, where: string): ArMember[] {
  const text = (from: number, to: number): string => String.fromCharCode(...bytes.subarray(from, to));
  if (bytes.length < 8 || text(0, 8) !== MAGIC)
    throw new UserError(`${where} is not a Debian package: give a .deb file`);
  const members: ArMember[] = [];
  for (let at = 8; at < bytes.length;) {
    if (at + 60 > bytes.length) throw new UserError(`${where} is cut off at byte ${at}: download it again`);
    const name = text(at, at + 16)
      .trim()
      .replace(/\/$/, '')
      .replace(/[^\x20-\x7e]/g, '?');
    const field = text(at + 48, at + 58).trim();
    const size = /^\d+$/.test(field) ? Number(field) : NaN;
    if (!Number.isSafeInteger(size) || text(at + 58, at + 60) !== '`\n')
      throw new UserError(`${where} has a damaged member header at byte ${at}: download it again`);
    if (at + 60 + size > bytes.length)
      throw new UserError(`${where} is cut off in member '${name}': download it again`);
    members.push({ name, data: bytes.subarray(at + 60, at + 60 + size) });
    at += 60 + size + (size % 2);
  }
  return members;
}
