/** Leaf numbers of TDCALL (TDG.*) and SEAMCALL (TDH.*): Intel TDX Module 1.5 ABI (344551), tables of leaves. */

export const TDG = {
  vpVmcall: 0,
  vpInfo: 1,
  mrRtmrExtend: 2,
  vpVeinfoGet: 3,
  mrReport: 4,
  vpCpuidveSet: 5,
  memPageAccept: 6,
  vmRd: 7,
  vmWr: 8,
  vpRd: 9,
  vpWr: 10,
  sysRd: 11,
  sysRdall: 12,
  servtdRd: 18,
  servtdWr: 20,
  mrVerifyReport: 22,
  memPageAttrRd: 23,
  memPageAttrWr: 24,
  vpEnter: 25,
  vpInvept: 26,
  vpInvgla: 27,
} as const;

export const TDH = {
  vpEnter: 0,
  mngAddcx: 1,
  memPageAdd: 2,
  memSeptAdd: 3,
  vpAddcx: 4,
  memPageRelocate: 5,
  memPageAug: 6,
  memRangeBlock: 7,
  mngKeyConfig: 8,
  mngCreate: 9,
  vpCreate: 10,
  mngRd: 11,
  memRd: 12,
  mngWr: 13,
  memWr: 14,
  memPageDemote: 15,
  mrExtend: 16,
  mrFinalize: 17,
  vpFlush: 18,
  mngVpflushdone: 19,
  mngKeyFreeid: 20,
  mngInit: 21,
  vpInit: 22,
  memPagePromote: 23,
  phymemPageRdmd: 24,
  memSeptRd: 25,
  vpRd: 26,
  phymemPageReclaim: 28,
  memPageRemove: 29,
  memSeptRemove: 30,
  memTrack: 38,
  memRangeUnblock: 39,
  phymemCacheWb: 40,
  phymemPageWbinvd: 41,
  vpWr: 43,
} as const;

function names(prefix: string, leaves: Readonly<Record<string, number>>): ReadonlyMap<number, string> {
  return new Map(
    Object.entries(leaves).map(([name, leaf]) => [
      leaf,
      `${prefix}.${name.replace(/([A-Z])/g, '.$1').toUpperCase()}`,
    ]),
  );
}

/** Names for traces, as `TDG.VP.INFO`. */
export const TDG_NAMES = names('TDG', TDG);
export const TDH_NAMES = names('TDH', TDH);

/** Versions above 0 that a leaf has in this module. */
export const HIGHEST_VERSION: ReadonlyMap<number, number> = new Map([[TDG.vmRd, 1]]);
