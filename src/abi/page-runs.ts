/** Runs of whole pages whose data may be shorter than the run: the rest is zero. */
import { PAGE_SIZE } from './hyperv/pages.ts';

/** Calls `visit` for every page of a run, with its bytes padded to the page. The bytes are valid during the call. */
export function eachPage(
  run: { readonly gpa: number; readonly length: number; readonly data: Uint8Array },
  visit: (gpa: number, contents: Uint8Array) => void,
): void {
  const page = new Uint8Array(PAGE_SIZE);
  for (let at = 0; at < run.length; at += PAGE_SIZE) {
    const contents = run.data.subarray(at, at + PAGE_SIZE);
    if (contents.length === PAGE_SIZE) visit(run.gpa + at, contents);
    else {
      page.fill(0);
      page.set(contents);
      visit(run.gpa + at, page);
    }
  }
}
