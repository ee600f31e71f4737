/** The launch digest (AMD 56860, SNP_LAUNCH_UPDATE): a chain of SHA-384 over one PAGE_INFO for each 4 KiB page. */
import { PAGE_TYPE } from '../../../abi/snp/firmware.ts';
import { pageInfo, VMSA_TSC } from '../../../abi/snp/launch.ts';
import { sha384 } from '../../sha384.ts';

export interface MeasuredPage {
  /** PAGE_TYPE. */
  readonly type: number;
  readonly gpa: number | bigint;
  /** 4096 bytes; types whose contents are not measured need none. */
  readonly contents?: Uint8Array;
  /** Permissions of VMPL1, 2 and 3: read 1, write 2, user execute 4, supervisor execute 8. */
  readonly permissions?: readonly [number, number, number];
}

const NOTHING = new Uint8Array(48);

/** What stands for the contents: their SHA-384 for normal pages and VMSAs, zeros for all others. */
export function contentsDigest({ type, contents }: MeasuredPage): Uint8Array {
  if (contents === undefined || (type !== PAGE_TYPE.normal && type !== PAGE_TYPE.vmsa)) return NOTHING;
  if (type === PAGE_TYPE.normal) return sha384(contents);
  // Scale and offset of the TSC are the firmware's own and count as zero.
  const page = new Uint8Array(contents);
  page.fill(0, VMSA_TSC.scale, VMSA_TSC.offset + 8);
  return sha384(page);
}

const record = new Uint8Array(pageInfo.size);
const view = new DataView(record.buffer);
const at = {
  contents: pageInfo.offsetOf('contents'),
  length: pageInfo.offsetOf('length'),
  type: pageInfo.offsetOf('type'),
  vmpl1: pageInfo.offsetOf('vmpl1'),
  gpa: pageInfo.offsetOf('gpa'),
} as const;

/** The digest after one more page. */
export function extendDigest(digest: Uint8Array, page: MeasuredPage): Uint8Array {
  record.set(digest, 0);
  record.set(contentsDigest(page), at.contents);
  view.setUint16(at.length, pageInfo.size, true);
  record[at.type] = page.type;
  record.set(page.permissions ?? [0, 0, 0], at.vmpl1);
  view.setBigUint64(at.gpa, BigInt(page.gpa), true);
  return sha384(record);
}
