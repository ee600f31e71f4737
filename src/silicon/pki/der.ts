/** ASN.1 values of X.509 (ITU-T X.690 DER), written with asn1js. */
import {
  BitString,
  Boolean as Asn1Boolean,
  Constructed,
  Enumerated,
  fromBER,
  GeneralizedTime,
  Integer,
  Null,
  ObjectIdentifier,
  OctetString,
  Primitive,
  PrintableString,
  Sequence,
  Set as Asn1Set,
  UTCTime,
  Utf8String,
  IA5String,
  type BaseBlock,
} from 'asn1js';
import { dateOfDays } from '../../chipset/calendar.ts';

export type Node = BaseBlock;

const buffer = (bytes: Uint8Array): ArrayBuffer => new Uint8Array(bytes).buffer;

export const sequence = (...value: Node[]): Node => new Sequence({ value });
export const setOf = (...value: Node[]): Node => new Asn1Set({ value });
export const oid = (value: string): Node => new ObjectIdentifier({ value });
export const integer = (value: number | bigint): Node => Integer.fromBigInt(BigInt(value));
export const enumerated = (value: number): Node => new Enumerated({ value });
export const boolean = (value: boolean): Node => new Asn1Boolean({ value });
export const nothing = (): Node => new Null();
export const octets = (bytes: Uint8Array): Node => new OctetString({ valueHex: buffer(bytes) });
export const bits = (bytes: Uint8Array, unusedBits = 0): Node =>
  new BitString({ valueHex: buffer(bytes), unusedBits });
export const utf8 = (value: string): Node => new Utf8String({ value });
export const printable = (value: string): Node => new PrintableString({ value });
export const ia5 = (value: string): Node => new IA5String({ value });

/** [tag] EXPLICIT. */
export const explicit = (tagNumber: number, ...value: Node[]): Node =>
  new Constructed({ idBlock: { tagClass: 3, tagNumber }, value });
/** [tag] IMPLICIT of a primitive. */
export const implicit = (tagNumber: number, bytes: Uint8Array): Node =>
  new Primitive({ idBlock: { tagClass: 3, tagNumber }, valueHex: buffer(bytes) });

/** What was encoded before, as a part of something larger. */
export function raw(der: Uint8Array): Node {
  const { offset, result } = fromBER(buffer(der));
  if (offset !== der.length) throw new RangeError('not one DER value');
  return result;
}

/** The parts of a sequence or an explicit tag; none of anything else. */
export const elements = (node: Node | undefined): readonly Node[] =>
  node instanceof Constructed ? (node.valueBlock.value as Node[]) : [];

/** The contents of a bit string; nothing of anything else. */
export const bitsOf = (node: Node | undefined): Uint8Array =>
  node instanceof BitString ? node.valueBlock.valueHexView : new Uint8Array(0);

/** The contents of an octet string; nothing of anything else. */
export const octetsOf = (node: Node | undefined): Uint8Array =>
  node instanceof OctetString ? node.valueBlock.valueHexView : new Uint8Array(0);

export const oidOf = (node: Node | undefined): string | undefined =>
  node instanceof ObjectIdentifier ? node.valueBlock.toString() : undefined;

/** A small integer or enumeration; undefined of anything else. */
export const numberOf = (node: Node | undefined): number | undefined =>
  node instanceof Integer ? Number(node.toBigInt()) : undefined;

export const encode = (node: Node): Uint8Array => new Uint8Array(node.toBER());

/** UTCTime to 2049, GeneralizedTime after (RFC 5280, 4.1.2.5). `seconds` since 1970. */
export function time(seconds: number): Node {
  const day = Math.floor(seconds / 86_400);
  const { year, month, day: date } = dateOfDays(day);
  const rest = seconds - day * 86_400;
  const two = (value: number): string => String(Math.floor(value)).padStart(2, '0');
  const text = `${two(month)}${two(date)}${two(rest / 3600)}${two((rest / 60) % 60)}${two(rest % 60)}Z`;
  // The types ask for a date object, which the core does not have; the constructors take the text as well.
  return year < 2050
    ? new UTCTime({ value: `${two(year % 100)}${text}` } as never)
    : new GeneralizedTime({ value: `${year}${text}` } as never);
}
