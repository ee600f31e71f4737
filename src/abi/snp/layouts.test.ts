import { describe, expect, test } from 'vitest';
import type { Field, Layout } from '../record.ts';
import { CERTIFICATE, certificateTable, readCertificateTable } from './certificate-table.ts';
import { tcbValue, tcbVersion } from './firmware.ts';
import * as message from './guest-message.ts';
import * as launch from './launch.ts';
import * as report from './report.ts';

// Written out a second time from the C structures of drivers and tools.
const expected: [
  Pick<Layout<readonly Field[]>, 'name' | 'size' | 'fields' | 'offsetOf'>,
  number,
  Record<string, number>,
][] = [
  [
    message.messageHeader,
    96,
    { sequence: 32, algorithm: 48, headerSize: 50, type: 52, messageSize: 54, vmpck: 60 },
  ],
  [message.reportRequest, 96, { vmpl: 64, keySelect: 68 }],
  [message.reportResponse, 32, { reportSize: 4 }],
  [message.keyRequest, 32, { guestFieldSelect: 8, vmpl: 16, guestSvn: 20, tcbVersion: 24 }],
  [message.keyResponse, 64, { key: 32 }],
  [message.tscInfoResponse, 128, { scale: 8, offset: 16, factor: 24 }],
  [message.cpuidMessage, 16, { count: 0 }],
  [message.cpuidResponse, 16, { count: 4 }],
  [
    report.report,
    1184,
    {
      policy: 8,
      familyId: 16,
      imageId: 32,
      vmpl: 48,
      signatureAlgorithm: 52,
      currentTcb: 56,
      platformInfo: 64,
      keyInfo: 72,
      reportData: 80,
      measurement: 144,
      hostData: 192,
      idKeyDigest: 224,
      authorKeyDigest: 272,
      reportId: 320,
      reportIdMa: 352,
      reportedTcb: 384,
      cpuidFamily: 392,
      chipId: 416,
      committedTcb: 480,
      currentBuild: 488,
      committedBuild: 492,
      launchTcb: 496,
      signature: 672,
    },
  ],
  [report.signature, 512, { s: 72 }],
  [report.publicKey, 1028, { x: 4, y: 76 }],
  [launch.pageInfo, 112, { contents: 48, length: 96, type: 98, imi: 99, vmpl1: 101, vmpl3: 103, gpa: 104 }],
  [launch.idBlock, 96, { familyId: 48, imageId: 64, version: 80, guestSvn: 84, policy: 88 }],
  [launch.idAuth, 4096, { idBlockSignature: 64, idKey: 576, idKeySignature: 1664, authorKey: 2176 }],
  [
    launch.secretsPage,
    4096,
    {
      flags: 4,
      fms: 8,
      gosvw: 16,
      vmpck0: 32,
      vmpck3: 128,
      messageSequence0: 160,
      vmsaTweakBitmap: 256,
      svsmBase: 320,
      svsmGuestVmpl: 348,
      tscFactor: 352,
    },
  ],
  [launch.cpuidPage, 16, { reserved8: 8 }],
  [launch.cpuidFunction, 48, { xcr0In: 8, xssIn: 16, eax: 24, edx: 36, reserved: 40 }],
];

describe('layouts', () => {
  test.each(expected)('$name', (layout, size, offsets) => {
    expect(layout.size).toBe(size);
    for (const [name, offset] of Object.entries(offsets)) expect(layout.offsetOf(name), name).toBe(offset);
  });
});

describe('tcbVersion', () => {
  test('takes apart what tcbValue puts together', () => {
    const parts = { bootLoader: 3, tee: 1, snp: 8, microcode: 0x73 };
    expect(tcbValue(parts)).toBe(0x7308_0000_0000_0103n);
    expect(tcbVersion(tcbValue(parts))).toEqual(parts);
  });
});

describe('fromFirmware', () => {
  test('turns bytes round, and refuses a number above 48 bytes', () => {
    const number = Uint8Array.from({ length: 48 }, (_, i) => i + 1);
    const there = report.toFirmware(number);
    expect(there[0]).toBe(48);
    expect(report.fromFirmware(there)).toEqual(number);
    there[48] = 1;
    expect(report.fromFirmware(there)).toBeUndefined();
  });
});

describe('readCertificateTable', () => {
  const entries = [
    { guid: CERTIFICATE.vcek, bytes: Uint8Array.of(1, 2, 3) },
    { guid: CERTIFICATE.ark, bytes: Uint8Array.of(4) },
  ];
  test('reads what certificateTable writes', () => {
    const table = certificateTable(entries);
    expect(table.subarray(0, 4)).toEqual(Uint8Array.of(0x63, 0xda, 0x75, 0x8d));
    expect(readCertificateTable(table)).toEqual(entries);
  });
  test('refuses an entry outside, and a table without end', () => {
    const table = certificateTable(entries);
    expect(readCertificateTable(table.subarray(0, 70))).toBeUndefined();
    table[20] = 0xff;
    expect(readCertificateTable(table)).toBeUndefined();
  });
});
