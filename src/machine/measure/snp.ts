/** The SNP launch digest of a list of directives, as the firmware computes it when a host carries the list out in order. */
import { PAGE_TYPE } from '../../abi/snp/firmware.ts';
import type { Directive, PagesDirective } from '../../launch/directives.ts';
import { eachPage, PAGE } from '../../launch/directives.ts';
import { contentsDigest, extendDigest } from '../../silicon/snp/firmware/launch-digest.ts';
import type { PageVisitor } from './page.ts';

type TypeName = keyof typeof PAGE_TYPE;

/** How the firmware is told of a run; undefined: the page is the host's and never given to it. */
export function snpPageType(run: PagesDirective): TypeName | undefined {
  if (run.type === 'shared') return undefined;
  return run.type === 'normal' && !run.measured ? 'unmeasured' : run.type;
}

/** A list for SNP has its contexts as VMSA pages. Rooms for parameters are pages that are not measured. */
export function measureSnp(directives: readonly Directive[], visit?: PageVisitor): Uint8Array {
  let digest: Uint8Array = new Uint8Array(48);
  const add = (name: TypeName, gpa: number, contents?: Uint8Array): void => {
    const page =
      contents === undefined ? { type: PAGE_TYPE[name], gpa } : { type: PAGE_TYPE[name], gpa, contents };
    digest = extendDigest(digest, page);
    visit?.(
      contents === undefined
        ? { type: name, gpa }
        : { type: name, gpa, digest: contentsDigest(page), contents },
    );
  };
  for (const entry of directives) {
    if (entry.kind !== 'pages' && entry.kind !== 'parameter') continue;
    const name = entry.kind === 'parameter' ? 'unmeasured' : snpPageType(entry);
    if (name === undefined) continue;
    if (entry.kind === 'pages' && (name === 'normal' || name === 'vmsa'))
      eachPage(entry, (gpa, contents) => add(name, gpa, contents));
    else for (let at = 0; at < entry.length; at += PAGE) add(name, entry.gpa + at);
  }
  return digest;
}
