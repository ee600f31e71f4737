/** The assembler for the guest programs in this folder is the one that writes start code. */
export * from '../src/launch/assembler.ts';
