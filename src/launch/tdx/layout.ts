/**
 * Where the parts of a TD's start lie. What application processors go on using while they are parked is ACPI NVS: the kernel
 * neither uses it as memory nor maps it as shared.
 */
import { PAGE } from '../directives.ts';
import { ACPI_END, GIB } from '../memory-map.ts';

/** The page with the reset vector, in its last 16 bytes. */
export const RESET_PAGE = 4 * GIB - PAGE;
export const RESET_VECTOR = RESET_PAGE + 0xff0;

/** Mailbox, page tables and the table of memory to accept: behind the ACPI tables. */
export const START_BASE = ACPI_END;
export const START_BYTES = 0x1_0000;
/** ACPI 6.5, 5.2.12.19: multiprocessor wakeup mailbox. */
export const MAILBOX = START_BASE;
/** Six pages: identity map of 4 GiB. */
export const START_TABLES = START_BASE + 0x1000;
export const START_DATA = START_BASE + 0x8000;
