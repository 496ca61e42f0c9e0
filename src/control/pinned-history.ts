/** Ends of a part of a volume's history: that they are in order, and which generations they are. */
import { VarveError } from '../base/errors.ts';
import type { Generation } from '../base/units.ts';
import { parseMoment } from '../volume/moment.ts';
import { parseExportName } from './export-directory.ts';

/** @throws VarveError HISTORY_EMPTY */
export function needOrder(from: Generation, to: Generation): void {
  if (from < to) return;
  throw new VarveError('HISTORY_EMPTY', `from generation ${from} to generation ${to}`);
}

/** @param canonicalName - `disk@gen=N`, as `resolve` gives it */
export function generationIn(canonicalName: string): Generation {
  const moment = parseMoment(parseExportName(canonicalName).moment ?? '');
  if (moment.kind === 'generation') return moment.generation;
  throw new VarveError('PROTOCOL', `the server answered "${canonicalName}"`);
}
