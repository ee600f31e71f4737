/**
 * The list of measured pages that `--pages` writes: a line for each page with order, type, guest-physical address and the
 * SHA-384 of its contents, `-` where only the address counts. For a TD, whose measurement hashes the contents themselves, they
 * go into FILE.data, each page once, and the line ends with the place there.
 */
import { closeSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import type { MeasuredPage } from '../../machine/measure/measurement.ts';
import { UserError } from '../errors.ts';
import { checkWritable, errorCode } from '../output.ts';

const hex = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex');
const AT_ONCE = 1 << 20;

/** Written beside its place first: nobody sees half of a list. */
export class PagesFile {
  readonly #path: string;
  readonly #withContents: boolean;
  readonly #list: number;
  readonly #data: number | undefined;
  readonly #places = new Map<string, number>();
  #text: string;
  #order = 0;
  #end = 0;

  constructor(path: string, technology: string) {
    this.#path = path;
    this.#withContents = technology === 'tdx';
    checkWritable(path, '--pages');
    this.#list = this.#open(this.#temporary(''));
    this.#data = this.#withContents ? this.#open(this.#temporary('.data')) : undefined;
    this.#text = `# vitrine measured pages 1 ${technology}\n# order type gpa sha384${this.#withContents ? ' place in .data' : ''}\n`;
  }

  add({ type, gpa, digest, contents }: MeasuredPage): void {
    const text = digest === undefined ? '-' : hex(digest);
    const place = this.#data === undefined || contents === undefined ? '' : ` ${this.#store(text, contents)}`;
    this.#text += `${this.#order++} ${type} 0x${gpa.toString(16)} ${text}${place}\n`;
    if (this.#text.length > AT_ONCE) this.#flush();
  }

  #store(digest: string, contents: Uint8Array): number {
    const known = this.#places.get(digest);
    if (known !== undefined) return known;
    this.#places.set(digest, this.#end);
    this.#write(this.#data as number, contents);
    this.#end += contents.length;
    return this.#end - contents.length;
  }

  /** Puts both files into their places. */
  finish(): void {
    this.#flush();
    this.#close();
    try {
      if (this.#withContents) renameSync(this.#temporary('.data'), `${this.#path}.data`);
      renameSync(this.#temporary(''), this.#path);
    } catch (error) {
      this.discard();
      throw this.#refused(error);
    }
  }

  /** After a failure: nothing stays. */
  discard(): void {
    this.#close();
    rmSync(this.#temporary(''), { force: true });
    rmSync(this.#temporary('.data'), { force: true });
  }

  #isOpen = true;
  #close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    closeSync(this.#list);
    if (this.#data !== undefined) closeSync(this.#data);
  }

  #temporary(suffix: string): string {
    return `${this.#path}${suffix}.${process.pid}.tmp`;
  }

  #open(path: string): number {
    try {
      return openSync(path, 'w');
    } catch (error) {
      throw this.#refused(error);
    }
  }

  #flush(): void {
    this.#write(this.#list, Buffer.from(this.#text));
    this.#text = '';
  }

  #write(file: number, bytes: Uint8Array): void {
    try {
      for (let at = 0; at < bytes.length;) at += writeSync(file, bytes, at);
    } catch (error) {
      throw this.#refused(error);
    }
  }

  #refused(error: unknown): UserError {
    return new UserError(`cannot write --pages ${this.#path} (${errorCode(error)}): give another file`);
  }
}
