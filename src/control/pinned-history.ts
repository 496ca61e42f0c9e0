/** Ends of a part of a volume's history: that they are in order, and which generations they are. */
import { VarveError } from '../base/errors.ts';
import type { Generation } from '../base/units.ts';
import { parseMoment } from '../volume/moment.ts';
import type { RollbackInfo } from '../volume/report.ts';
import { parseExportName } from './export-directory.ts';

/** @throws VarveError HISTORY_EMPTY */
export function needOrder(from: Generation, to: Generation): void {
  if (from < to) return;
  throw new VarveError('HISTORY_EMPTY', `from generation ${from} to generation ${to}`);
}

/**
 * Between the ends of a rollback the disk was a mixture that no power cut could leave to anybody: the
 * next opening would have gone on with it.
 * @throws VarveError MOMENT_BETWEEN
 */
export function needNoRollback(
  rollbacks: readonly RollbackInfo[],
  from: Generation,
  to: Generation,
): void {
  for (const { before, after } of rollbacks) {
    if (from >= (after ?? Infinity) || to <= before) continue;
    const end = after === undefined ? 'has not ended' : `ended with gen=${after}`;
    const what = `gen=${from} to gen=${to} holds a rollback, which began after gen=${before} and`;
    throw new VarveError('MOMENT_BETWEEN', `${what} ${end}; take moments on one side of it`);
  }
}

/** @param canonicalName - `disk@gen=N`, as `resolve` gives it */
export function generationIn(canonicalName: string): Generation {
  const moment = parseMoment(parseExportName(canonicalName).moment ?? '');
  if (moment.kind === 'generation') return moment.generation;
  throw new VarveError('PROTOCOL', `the server answered "${canonicalName}"`);
}
