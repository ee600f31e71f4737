/**
 * The ACPI tables of a Hyper-V Generation 2 guest, generated for each VM. What a real host shows is followed where
 * a guest can tell: identity strings, table set, VMBus under a module device, no PIC, PIT, HPET, PCI or 8042.
 */
import * as abi from '../abi/acpi.ts';
import { ascii, concat } from '../abi/bytes.ts';
import {
  device,
  edgeInterrupt,
  eisaId,
  integer,
  ioPorts,
  memoryWindow,
  name,
  packageOf,
  resourceTemplate,
  scope,
  string,
} from '../abi/acpi-aml.ts';
import { roundUp } from './image.ts';
import { IO_APIC_ADDRESS, LOCAL_APIC_ADDRESS, type MemoryRange } from './memory-map.ts';

export interface AcpiConfig {
  /** Where the tables lie (64-byte boundary), and the end of the room for them. */
  readonly base: number;
  readonly limit: number;
  /** APIC id of each VP, by VP index. */
  readonly apicIds: readonly number[];
  readonly uarts: number;
  /** Contents of OEM0; empty: no such table. */
  readonly entropy: Uint8Array;
  /** Windows that VMBus may hand out. */
  readonly mmio: readonly MemoryRange[];
  readonly memory: readonly MemoryRange[];
  /** Where parked processors look for their wakeup; none: they are started by INIT and SIPI. */
  readonly wakeupMailbox?: number;
}

export interface AcpiTables {
  readonly rsdp: Uint8Array;
  readonly tables: Uint8Array;
  readonly index: readonly { readonly signature: string; readonly gpa: number; readonly length: number }[];
}

/** Ports of the power-management device, relative to its base 0x400. */
export const PM = {
  event: 0x400,
  control: 0x404,
  timer: 0x408,
  gpe0: 0x40c,
  reset: 0x433,
  resetValue: 1,
  sci: 9,
} as const;

/** COM1 to COM4. */
export const UARTS = [
  { port: 0x3f8, gsi: 4 },
  { port: 0x2f8, gsi: 3 },
  { port: 0x3e8, gsi: 4 },
  { port: 0x2e8, gsi: 3 },
] as const;

export const RTC = { port: 0x70, gsi: 8 } as const;
export const IO_APIC_ID = 0;

const OEM = { id: 'VRTUAL', table: 'MICROSFT', creator: 'MSFT' } as const;

export function acpiTables(config: AcpiConfig): AcpiTables {
  const placed: { signature: string; gpa: number; contents: Uint8Array }[] = [];
  let next = config.base;
  const place = (signature: string, contents: Uint8Array, alignment = 16): number => {
    const gpa = roundUp(next, alignment);
    placed.push({ signature, gpa, contents });
    next = gpa + contents.length;
    return gpa;
  };

  const facsAddress = place('FACS', facs(), 64);
  const dsdtAddress = place('DSDT', dsdt(config));
  const listed = [
    place('FACP', fadt(facsAddress, dsdtAddress)),
    ...(config.entropy.length === 0 ? [] : [place('OEM0', table('OEM0', 1, config.entropy))]),
    place('WAET', waet()),
    place('APIC', madt(config.apicIds, config.wakeupMailbox)),
    place('SRAT', srat(config.apicIds, config.memory)),
    ...(config.uarts === 0 ? [] : [place('SPCR', spcr())]),
  ];
  const addresses = new Uint8Array(8 * listed.length);
  const view = new DataView(addresses.buffer);
  listed.forEach((gpa, i) => view.setBigUint64(8 * i, BigInt(gpa), true));
  const xsdt = place('XSDT', table('XSDT', 1, addresses));
  if (next > config.limit) throw new RangeError(`ACPI tables end at ${next}, room ends at ${config.limit}`);

  const tables = new Uint8Array(next - config.base);
  for (const { gpa, contents } of placed) tables.set(contents, gpa - config.base);
  return {
    rsdp: rsdp(xsdt),
    tables,
    index: placed.map(({ signature, gpa, contents }) => ({ signature, gpa, length: contents.length })),
  };
}

function setChecksum(contents: Uint8Array, at: number, length: number = contents.length): void {
  contents[at] = 0;
  let sum = 0;
  for (let i = 0; i < length; i++) sum += contents[i] ?? 0;
  contents[at] = -sum & 0xff;
}

/** Header and checksum around what follows the header. */
function table(signature: string, revision: number, body: Uint8Array): Uint8Array {
  const contents = concat(new Uint8Array(abi.TABLE_HEADER.size), body);
  abi.TABLE_HEADER.write(
    {
      signature: ascii(signature),
      length: contents.length,
      revision,
      oemId: ascii(OEM.id),
      oemTableId: ascii(OEM.table),
      oemRevision: 1,
      creatorId: ascii(OEM.creator),
      creatorRevision: 1,
    },
    contents,
  );
  setChecksum(contents, abi.TABLE_HEADER.offsetOf('checksum'));
  return contents;
}

/** A table whose fixed part is a record that starts with the header. */
function fixed(
  signature: string,
  revision: number,
  record: Uint8Array,
  ...entries: readonly Uint8Array[]
): Uint8Array {
  return table(signature, revision, concat(record.subarray(abi.TABLE_HEADER.size), ...entries));
}

function rsdp(xsdt: number): Uint8Array {
  const contents = abi.RSDP.write({
    signature: ascii('RSD PTR '),
    oemId: ascii(OEM.id),
    revision: 2,
    length: abi.RSDP.size,
    xsdtAddress: BigInt(xsdt),
  });
  setChecksum(contents, abi.RSDP.offsetOf('checksum'), abi.RSDP_FIRST_LENGTH);
  setChecksum(contents, abi.RSDP.offsetOf('extendedChecksum'));
  return contents;
}

/** Access size 0 ("undefined"): ACPICA then uses the register's own width. */
function port(address: number, bitWidth: number): Uint8Array {
  return abi.GENERIC_ADDRESS.write({ space: abi.ADDRESS_SPACE_IO, bitWidth, address: BigInt(address) });
}

/** ACPI mode is on from the start (no SMI command), and nothing but the 64-bit address forms is filled. */
function fadt(facsAddress: number, dsdtAddress: number): Uint8Array {
  const flag = abi.FADT_FLAG;
  const record = abi.FADT.write({
    sciInt: PM.sci,
    pm1EvtLen: 4,
    pm1CntLen: 2,
    pmTmrLen: 4,
    gpe0BlkLen: 4,
    // Above 100 and 1000 microseconds: there is neither C2 nor C3.
    pLvl2Lat: 101,
    pLvl3Lat: 1001,
    iapcBootArch: abi.BOOT_ARCH_FLAG.noVga,
    flags:
      flag.wbinvd |
      flag.procC1 |
      flag.powerButton |
      flag.sleepButton |
      flag.rtcS4 |
      flag.tmrValExt |
      flag.resetRegSup |
      flag.usePlatformClock,
    resetReg: port(PM.reset, 8),
    resetValue: PM.resetValue,
    xFirmwareCtrl: BigInt(facsAddress),
    xDsdt: BigInt(dsdtAddress),
    xPm1aEvtBlk: port(PM.event, 32),
    xPm1aCntBlk: port(PM.control, 16),
    xPmTmrBlk: port(PM.timer, 32),
    xGpe0Blk: port(PM.gpe0, 32),
  });
  return fixed('FACP', 6, record);
}

function facs(): Uint8Array {
  return abi.FACS.write({ signature: ascii('FACS'), length: abi.FACS.size, version: 2 });
}

/** UIDs are VP index + 1, as in the processor devices of the DSDT. */
const processorUid = (vp: number): number => vp + 1;

function madt(apicIds: readonly number[], mailbox: number | undefined): Uint8Array {
  const record = abi.MADT.write({ localApicAddress: LOCAL_APIC_ADDRESS, flags: 0 });
  const type = abi.MADT_TYPE;
  const processors = apicIds.map((apicId, vp) => {
    const uid = processorUid(vp);
    if (apicId < 0xff && uid <= 0xff) {
      return abi.MADT_LOCAL_APIC.write({
        type: type.localApic,
        length: abi.MADT_LOCAL_APIC.size,
        processorUid: uid,
        apicId,
        flags: 1,
      });
    }
    return abi.MADT_LOCAL_X2APIC.write({
      type: type.localX2apic,
      length: abi.MADT_LOCAL_X2APIC.size,
      x2apicId: apicId,
      flags: 1,
      processorUid: uid,
    });
  });
  return fixed(
    'APIC',
    5,
    record,
    abi.MADT_IO_APIC.write({
      type: type.ioApic,
      length: abi.MADT_IO_APIC.size,
      ioApicId: IO_APIC_ID,
      address: IO_APIC_ADDRESS,
    }),
    abi.MADT_SOURCE_OVERRIDE.write({
      type: type.sourceOverride,
      length: abi.MADT_SOURCE_OVERRIDE.size,
      source: PM.sci,
      gsi: PM.sci,
      flags: abi.OVERRIDE_ACTIVE_HIGH_LEVEL,
    }),
    abi.MADT_LOCAL_APIC_NMI.write({
      type: type.localApicNmi,
      length: abi.MADT_LOCAL_APIC_NMI.size,
      processorUid: processorUid(0),
      lint: 1,
    }),
    ...(mailbox === undefined
      ? []
      : [
          abi.MADT_MP_WAKEUP.write({
            type: type.mpWakeup,
            length: abi.MADT_MP_WAKEUP.size,
            mailboxAddress: BigInt(mailbox),
          }),
        ]),
    ...processors,
  );
}

/** One node. */
function srat(apicIds: readonly number[], memory: readonly MemoryRange[]): Uint8Array {
  const type = abi.SRAT_TYPE;
  const processors = apicIds.map((apicId) =>
    apicId < 0xff
      ? abi.SRAT_LOCAL_APIC.write({
          type: type.localApic,
          length: abi.SRAT_LOCAL_APIC.size,
          apicId,
          flags: 1,
        })
      : abi.SRAT_LOCAL_X2APIC.write({
          type: type.localX2apic,
          length: abi.SRAT_LOCAL_X2APIC.size,
          x2apicId: apicId,
          flags: 1,
        }),
  );
  const ranges = memory.map(({ gpa, length }) =>
    abi.SRAT_MEMORY.write({
      type: type.memory,
      length: abi.SRAT_MEMORY.size,
      base: BigInt(gpa),
      size: BigInt(length),
      flags: 1,
    }),
  );
  return fixed('SRAT', 3, abi.SRAT.write({ one: 1 }), ...processors, ...ranges);
}

/** COM1 as a 16550 at 115200 8N1. */
function spcr(): Uint8Array {
  const record = abi.SPCR.write({
    interfaceType: 0,
    baseAddress: port(UARTS[0].port, 8),
    // Bit 1: I/O APIC.
    interruptType: 2,
    gsi: UARTS[0].gsi,
    baudRate: 7,
    stopBits: 1,
    terminalType: 3,
    pciDeviceId: 0xffff,
    pciVendorId: 0xffff,
  });
  return fixed('SPCR', 2, record);
}

function waet(): Uint8Array {
  return fixed('WAET', 1, abi.WAET.write({ flags: abi.WAET_FLAG.rtcGood | abi.WAET_FLAG.pmTimerGood }));
}

/** Present, enabled, shown, functioning. */
const STATUS_OK = 0xf;

function dsdt(config: AcpiConfig): Uint8Array {
  const sleep = packageOf(integer(0), integer(0), integer(0), integer(0));
  return table(
    'DSDT',
    2,
    concat(
      name('\\_S0', sleep),
      name('\\_S5', sleep),
      scope(
        '\\_SB',
        vmbus(config.mmio),
        device(
          'RTC0',
          name('_HID', eisaId('PNP0B00')),
          name('_CRS', resourceTemplate(ioPorts(RTC.port, 2), edgeInterrupt(RTC.gsi, false))),
        ),
        ...UARTS.slice(0, config.uarts).map(({ port: base, gsi }, i) => {
          const shared = UARTS.slice(0, config.uarts).some((other, j) => j !== i && other.gsi === gsi);
          return device(
            `UAR${i + 1}`,
            name('_HID', eisaId('PNP0501')),
            name('_UID', integer(i + 1)),
            name('_DDN', string(`COM${i + 1}`)),
            name('_CRS', resourceTemplate(ioPorts(base, 8), edgeInterrupt(gsi, shared))),
          );
        }),
        ...config.apicIds.map((_, vp) =>
          device(
            `P${processorUid(vp).toString(16).toUpperCase().padStart(3, '0')}`,
            name('_HID', string('ACPI0007')),
            name('_UID', integer(processorUid(vp))),
            name('_STA', integer(STATUS_OK)),
          ),
        ),
      ),
    ),
  );
}

/**
 * Linux finds VMBus by its _HID, then walks up to the first ancestor whose _CRS has address-space descriptors:
 * these are the MMIO windows (drivers/hv/vmbus_drv.c).
 */
function vmbus(mmio: readonly MemoryRange[]): Uint8Array {
  return device(
    'VMOD',
    name('_HID', string('ACPI0004')),
    name('_UID', integer(0)),
    name('_CRS', resourceTemplate(...mmio.map(({ gpa, length }) => memoryWindow(gpa, length)))),
    device(
      'VMBS',
      name('_HID', string('VMBUS')),
      name('_UID', integer(0)),
      name('_DDN', string('VMBUS')),
      name('_STA', integer(STATUS_OK)),
      name('_CRS', resourceTemplate()),
    ),
  );
}
