/**
 * Linux bzImage, entered by its 64-bit entry point.
 * Linux Documentation/arch/x86/boot.rst, "Loading The Rest of The Kernel" and "64-bit Boot Protocol".
 */
import {
  BOOT_FLAG,
  ENTRY64_OFFSET,
  HEADER_MAGIC,
  LEAST_VERSION,
  LOADED_HIGH,
  SECTOR,
  SETUP_HEADER,
  SETUP_HEADER_OFFSET,
  XLOADFLAG,
} from '../abi/boot-params.ts';
import { exact } from '../abi/record.ts';
import { PAGE } from './directives.ts';
import { roundUp } from './image.ts';
import { MIB } from './memory-map.ts';
import { fail, hex, size, type Failure } from './outcome.ts';
import { recognise } from './recognise.ts';

export interface BzImage {
  readonly kind: 'bzimage';
  /** Boot protocol, 0x020f for 2.15. */
  readonly version: number;
  /** "6.12.117+deb12-cloud-amd64 (debian-kernel@...) #1 SMP ...", empty when the image has none. */
  readonly kernelVersion: string;
  /** The setup header of the file from 0x1f1 on, for the zero page. */
  readonly header: Uint8Array;
  /** The protected-mode kernel: what is loaded. */
  readonly payload: Uint8Array;
  readonly prefAddress: number;
  readonly relocatable: boolean;
  readonly alignment: number;
  /** Memory that the kernel needs from its start address on, before it reads any memory map. */
  readonly initSize: number;
  /** Longest command line, without NUL. */
  readonly commandLineSize: number;
  /** Highest address that the initrd's last byte may have. */
  readonly initrdMax: number;
  /** The compressed kernel inside `payload`, when the header tells. */
  readonly compressed: { readonly offset: number; readonly length: number } | undefined;
}

export type BzImageOutcome = { readonly ok: true; readonly image: BzImage } | Failure;

const DAMAGED = 'the file is damaged; fetch it again';
/** More than any kernel, and small enough that sums stay exact. */
const MOST_INIT_SIZE = 0x8000_0000;

/** True when the file has the boot sector mark and "HdrS", whatever else is wrong with it. */
export function isBzImage(file: Uint8Array): boolean {
  return (
    file.length >= SETUP_HEADER.offsetOf('version') &&
    SETUP_HEADER.low(file, 'bootFlag') === BOOT_FLAG &&
    SETUP_HEADER.low(file, 'header') === HEADER_MAGIC
  );
}

export function parseBzImage(file: Uint8Array): BzImageOutcome {
  if (file.length === 0) return fail('the kernel is empty', 'kernel', 'give a bzImage or vmlinux file');
  if (!isBzImage(file)) return notBzImage(file);
  if (file.length < SETUP_HEADER.size) return cut(file, 'in its setup header', file.length);
  const h = SETUP_HEADER.read(file);
  const headerEnd = 0x202 + (h.jump >>> 8);
  if (h.version < LEAST_VERSION) {
    return refuse(
      'version',
      `the kernel speaks boot protocol ${dotted(h.version)}`,
      'give one with 2.12 or later (Linux 3.8)',
    );
  }
  if (headerEnd < 0x268 || headerEnd > ZERO_PAGE_HEADER_END) {
    return refuse('jump', `the setup header ends at ${hex(headerEnd)}`, DAMAGED);
  }
  if ((h.loadFlags & LOADED_HIGH) === 0) {
    return refuse('loadFlags', 'the kernel is a zImage for low memory', 'give a bzImage');
  }
  if ((h.xloadFlags & XLOADFLAG.kernel64) === 0) {
    return refuse(
      'xloadFlags',
      'the kernel has no 64-bit entry (a 32-bit kernel?)',
      'give a kernel built for x86-64',
    );
  }
  if (h.hardwareSubarch !== 0) {
    return refuse(
      'hardwareSubarch',
      `the kernel asks for hardware ${h.hardwareSubarch}`,
      'give one for a PC (0)',
    );
  }

  const setupBytes = ((h.setupSects === 0 ? 4 : h.setupSects) + 1) * SECTOR;
  const wanted = h.sysSize * 16;
  // Paragraphs of 16 bytes, the last of which need not be whole in the file.
  if (setupBytes + wanted >= file.length + 16) {
    return cut(file, `but its header announces ${setupBytes + wanted}`, file.length);
  }
  if (wanted < ENTRY64_OFFSET + 1) {
    return refuse('sysSize', `the kernel proper has ${wanted} bytes`, DAMAGED);
  }
  const payload = file.subarray(setupBytes, setupBytes + wanted);

  const alignment = h.kernelAlignment;
  if (alignment < PAGE || (alignment & (alignment - 1)) !== 0) {
    return refuse('kernelAlignment', `the kernel alignment is ${hex(alignment)}`, DAMAGED);
  }
  const prefAddress = exact(SETUP_HEADER.low(file, 'prefAddress'), SETUP_HEADER.high(file, 'prefAddress'));
  if (prefAddress === undefined || prefAddress % PAGE !== 0) {
    return refuse('prefAddress', `the load address is ${hex(h.prefAddress)}`, DAMAGED);
  }
  if (h.initSize < wanted || h.initSize > MOST_INIT_SIZE) {
    return refuse('initSize', `the kernel of ${wanted} bytes says it needs ${h.initSize} to start`, DAMAGED);
  }
  if (h.payloadLength !== 0 && h.payloadOffset + h.payloadLength > payload.length) {
    return refuse('payloadOffset', 'the compressed kernel ends outside the image', DAMAGED);
  }
  return {
    ok: true,
    image: {
      kind: 'bzimage',
      version: h.version,
      kernelVersion: versionText(file, h.kernelVersion, setupBytes),
      header: file.slice(SETUP_HEADER_OFFSET, headerEnd),
      payload,
      prefAddress,
      relocatable: h.relocatableKernel !== 0,
      alignment,
      initSize: h.initSize,
      commandLineSize: h.cmdlineSize,
      initrdMax: h.initrdAddrMax,
      compressed: h.payloadLength === 0 ? undefined : { offset: h.payloadOffset, length: h.payloadLength },
    },
  };
}

/** Up to here the zero page has room for the header (zero-page.rst: edd_mbr_sig_buffer follows). */
const ZERO_PAGE_HEADER_END = 0x290;

export type PlaceOutcome = { readonly ok: true; readonly base: number } | Failure;

/** At its preferred address; a relocatable kernel whose preferred address lies below `floor` goes to `floor`. */
export function placeBzImage(image: BzImage, floor: number, end: number): PlaceOutcome {
  let base = image.prefAddress;
  if (base < floor) {
    if (!image.relocatable) {
      return refuse(
        'prefAddress',
        `the kernel must lie at ${hex(base)}, where the machine has its tables`,
        'give a relocatable kernel (CONFIG_RELOCATABLE)',
      );
    }
    base = roundUp(floor, image.alignment);
  }
  if (base + image.initSize > end) {
    return fail(
      `the kernel needs memory up to ${size(base + image.initSize)} to start and there are ${size(end)}`,
      `kernel, byte ${hex(SETUP_HEADER.offsetOf('initSize'))}`,
      `give the VM at least ${size(roundUp(base + image.initSize, MIB))}`,
    );
  }
  return { ok: true, base };
}

function notBzImage(file: Uint8Array): Failure {
  const known = recognise(file);
  if (known !== undefined) return fail(`the kernel is ${known.what}`, `kernel, ${known.where}`, known.advice);
  if (file.length < SETUP_HEADER.offsetOf('version')) {
    return fail(`the kernel has only ${size(file.length)}`, 'kernel', 'give a bzImage or vmlinux file');
  }
  return refuse('header', 'the kernel is no Linux kernel', 'give a bzImage (vmlinuz) or vmlinux file');
}

function cut(file: Uint8Array, why: string, at: number): Failure {
  return fail(
    `the kernel is cut off: it has ${file.length} bytes, ${why}`,
    `kernel, byte ${hex(at)}`,
    DAMAGED,
  );
}

function refuse(field: Parameters<typeof SETUP_HEADER.offsetOf>[0], what: string, advice: string): Failure {
  return fail(what, `kernel, byte ${hex(SETUP_HEADER.offsetOf(field))}`, advice);
}

function dotted(version: number): string {
  return `${version >>> 8}.${String(version & 0xff).padStart(2, '0')}`;
}

/** Printable characters only: the text goes to terminals. */
function versionText(file: Uint8Array, pointer: number, setupBytes: number): string {
  if (pointer === 0) return '';
  let text = '';
  for (let at = pointer + 0x200; at < setupBytes && text.length < 256; at++) {
    const byte = file[at] ?? 0;
    if (byte === 0) break;
    if (byte < 0x20 || byte > 0x7e) return '';
    text += String.fromCharCode(byte);
  }
  return text;
}
