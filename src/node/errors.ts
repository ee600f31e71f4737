/** What ends a command early. The exit statuses are those of the README. */

export const STATUS = { ok: 0, failed: 1, usage: 2, internal: 70, limit: 124, guestDied: 125 } as const;

/** A bad argument, file or environment: one sentence with what, where and what to do; exit status 2. */
export class UserError extends Error {}

/** Ends the command with a status after it has said what is to be said. */
export class ExitStatus extends Error {
  readonly status: number;
  constructor(status: number) {
    super(`exit ${status}`);
    this.status = status;
  }
}
