/** Entry point. Node.js keeps the compiled code of everything else in the user's cache folder. */
import { enableCompileCache } from 'node:module';
import { join } from 'node:path';
import { CODE_FOLDER, defaultCacheDir } from './cache-folder.ts';

enableCompileCache(join(defaultCacheDir(), CODE_FOLDER));
await import('./command-line.ts');
