/** Where downloads and what was made of them are kept. */
import { homedir } from 'node:os';
import { join } from 'node:path';

export function defaultCacheDir(): string {
  const base = process.env['XDG_CACHE_HOME'];
  return join(base !== undefined && base !== '' ? base : join(homedir(), '.cache'), 'vitrine');
}

/** In it: compiled code of this program, which Node.js keeps and verifies. */
export const CODE_FOLDER = 'code';
