/**
 * The ACPI tables of the test board: just enough for a program that looks up the power-management ports.
 * ACPI Specification 6.5, sections 5.2.5 (RSDP), 5.2.7 (RSDT), 5.2.9 (FADT, first revision), 5.2.10 (FACS).
 */

/** In the last 128 KiB of the first megabyte, where the RSDP is searched for. */
export const TABLES_BASE = 0xf5000;
export const FACS_ADDRESS = TABLES_BASE + 0x400;

const RSDT = TABLES_BASE + 0x40;
const FADT = TABLES_BASE + 0x80;
const DSDT = TABLES_BASE + 0x140;
const MADT = TABLES_BASE + 0x180;
const END = TABLES_BASE + 0x440;

const HEADER = 36;
const FADT_LENGTH = 116;
const FACS_LENGTH = 64;

export interface PowerManagementPorts {
  readonly event: number;
  readonly control: number;
  readonly timer: number;
}

export function acpiTables(cpus: number, ports: PowerManagementPorts): Uint8Array {
  // The MADT grows with the processors; it is last before the FACS, which lies on a 64-byte boundary behind it.
  const image = new Uint8Array(END - TABLES_BASE);
  const view = new DataView(image.buffer);
  const text = (at: number, value: string): void => {
    for (let i = 0; i < value.length; i++) image[at - TABLES_BASE + i] = value.charCodeAt(i);
  };
  const u8 = (at: number, value: number): void => view.setUint8(at - TABLES_BASE, value);
  const u16 = (at: number, value: number): void => view.setUint16(at - TABLES_BASE, value, true);
  const u32 = (at: number, value: number): void => view.setUint32(at - TABLES_BASE, value, true);
  const checksum = (at: number, length: number, field: number): void => {
    let sum = 0;
    for (let i = 0; i < length; i++) sum += image[at - TABLES_BASE + i] ?? 0;
    u8(at + field, -sum & 0xff);
  };
  const table = (at: number, signature: string, length: number, revision: number): void => {
    text(at, signature);
    u32(at + 4, length);
    u8(at + 8, revision);
    text(at + 10, 'VITRIN');
    text(at + 16, 'TESTBRD ');
    u32(at + 24, 1);
    text(at + 28, 'VTRN');
    u32(at + 32, 1);
    checksum(at, length, 9);
  };

  text(TABLES_BASE, 'RSD PTR ');
  text(TABLES_BASE + 9, 'VITRIN');
  u32(TABLES_BASE + 16, RSDT);
  checksum(TABLES_BASE, 20, 8);

  u32(RSDT + HEADER, FADT);
  u32(RSDT + HEADER + 4, MADT);
  table(RSDT, 'RSDT', HEADER + 8, 1);

  u32(FADT + 36, FACS_ADDRESS);
  u32(FADT + 40, DSDT);
  u16(FADT + 46, 9); // SCI_INT
  u32(FADT + 56, ports.event);
  u32(FADT + 64, ports.control);
  u32(FADT + 76, ports.timer);
  u8(FADT + 88, 4);
  u8(FADT + 89, 2);
  u8(FADT + 91, 4);
  u32(FADT + 112, 0x5); // WBINVD works, C1 is there
  table(FADT, 'FACP', FADT_LENGTH, 1);

  table(DSDT, 'DSDT', HEADER, 1);

  u32(MADT + 36, 0xfee00000);
  u32(MADT + 40, 1); // there are 8259s
  let at = MADT + 44;
  for (let id = 0; id < cpus; id++, at += 8) {
    u8(at, 0);
    u8(at + 1, 8);
    u8(at + 2, id);
    u8(at + 3, id);
    u32(at + 4, 1);
  }
  u8(at, 1); // IO-APIC
  u8(at + 1, 12);
  u32(at + 4, 0xfec00000);
  at += 12;
  u8(at, 2); // ISA interrupt 0 is pin 2
  u8(at + 1, 10);
  u32(at + 4, 2);
  at += 10;
  table(MADT, 'APIC', at - MADT, 1);

  text(FACS_ADDRESS, 'FACS');
  u32(FACS_ADDRESS + 4, FACS_LENGTH);
  return image;
}

/** Where the FACS keeps the address at which a program wants to wake up. */
export const WAKING_VECTOR = FACS_ADDRESS + 12;
