/** The processor's engine by the name that --engine gives; commands that do not have the option give none. */
import { DEFAULT_ENGINE, type EngineKind } from '../machine/machine.ts';
import { UserError } from './errors.ts';

export const ENGINES = ['auto', 'interpreter', 'translator', 'check'] as const;

export function engineFor(name: string | undefined): EngineKind {
  switch (name) {
    case undefined:
    case 'auto':
      return DEFAULT_ENGINE;
    case 'interpreter':
    case 'translator':
      return name;
    case 'check':
      return 'translator';
    default:
      throw new UserError(`there is no engine '${name}': give one of ${ENGINES.join(', ')} with --engine`);
  }
}
