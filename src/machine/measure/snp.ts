/** The SNP launch digest of a list of directives, as the firmware computes it when a host carries the list out in order. */
import { PAGE_TYPE } from '../../abi/snp/firmware.ts';
import type { ContextDirective, Directive, PagesDirective } from '../../launch/directives.ts';
import { eachPage, PAGE } from '../../launch/directives.ts';
import { contentsDigest, extendDigest } from '../../silicon/snp/firmware/launch-digest.ts';
import type { Measurement, PageVisitor } from './measurement.ts';

type TypeName = keyof typeof PAGE_TYPE;

/** How the firmware is told of a run; undefined: the page is the host's and never given to it. */
export function snpPageType(run: PagesDirective): TypeName | undefined {
  if (run.type === 'shared') return undefined;
  return run.type === 'normal' && !run.measured ? 'unmeasured' : run.type;
}

/** `vmsa` makes the save area of a context that has a page of its own. */
export function measureSnp(
  directives: readonly Directive[],
  vmsa: (context: ContextDirective) => Uint8Array,
  visit: PageVisitor = () => undefined,
): Measurement {
  let digest: Uint8Array = new Uint8Array(48);
  const add = (name: TypeName, gpa: number, contents: Uint8Array | undefined): void => {
    const page = { type: PAGE_TYPE[name], gpa, ...(contents === undefined ? {} : { contents }) };
    digest = extendDigest(digest, page);
    if (name === 'normal' || name === 'vmsa')
      visit({
        type: name,
        gpa,
        digest: contentsDigest(page),
        ...(contents === undefined ? {} : { contents }),
      });
    else visit({ type: name, gpa });
  };
  for (const entry of directives) {
    if (entry.kind === 'context' && entry.gpa !== undefined) add('vmsa', entry.gpa, vmsa(entry));
    if (entry.kind !== 'pages') continue;
    const name = snpPageType(entry);
    if (name === undefined) continue;
    if (name === 'normal' || name === 'vmsa') eachPage(entry, (gpa, contents) => add(name, gpa, contents));
    else for (let at = 0; at < entry.length; at += PAGE) add(name, entry.gpa + at, undefined);
  }
  return { technology: 'snp', name: 'launch digest', value: digest };
}
