/** Names of what an IGVM file can be launched as, and of what it asks the host for. */
import { HEADER, PLATFORM } from '../../abi/igvm/headers.ts';
import type { ParameterName } from '../directives.ts';

export type IgvmPlatform = keyof typeof PLATFORM;

export const PARAMETERS: Readonly<Record<ParameterName, number>> = {
  'vp-count': HEADER.vpCount,
  srat: HEADER.srat,
  madt: HEADER.madt,
  'mmio-ranges': HEADER.mmioRanges,
  'memory-map': HEADER.memoryMap,
  'command-line': HEADER.commandLine,
  slit: HEADER.slit,
  pptt: HEADER.pptt,
  'device-tree': HEADER.deviceTree,
  environment: HEADER.environment,
};

export function parameterOf(type: number): ParameterName | undefined {
  return (Object.keys(PARAMETERS) as ParameterName[]).find((name) => PARAMETERS[name] === type);
}

export function platformName(value: number): string {
  return Object.entries(PLATFORM).find(([, number]) => number === value)?.[0] ?? `platform ${value}`;
}
