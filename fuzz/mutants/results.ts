/** Results in a file: those of bugs that are not tried now are kept. */
import { existsSync, readFileSync } from 'node:fs';
import { MUTANTS } from './list.ts';
import type { Trial, Verdict } from './trial.ts';

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null;
}

function isVerdict(value: unknown): value is Verdict {
  if (!isObject(value) || !('kind' in value)) return false;
  return value.kind === 'found' || value.kind === 'survived' || value.kind === 'void';
}

/** @returns name and verdict of one result, as the file has it */
function read(value: unknown): readonly [string, Verdict] | undefined {
  if (!isObject(value) || !('mutant' in value) || !('verdict' in value)) return undefined;
  const { mutant, verdict } = value;
  if (!isObject(mutant) || !('name' in mutant) || !isVerdict(verdict)) return undefined;
  return typeof mutant.name === 'string' ? [mutant.name, verdict] : undefined;
}

/** The new results, and those of the file, in the order of the list. */
export function merged(path: string, trials: readonly Trial[]): readonly Trial[] {
  const old: unknown = existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) : [];
  const verdicts = new Map<string, Verdict>();
  for (const value of Array.isArray(old) ? old : []) {
    const known = read(value);
    if (known !== undefined) verdicts.set(...known);
  }
  for (const { mutant, verdict } of trials) verdicts.set(mutant.name, verdict);
  return MUTANTS.flatMap((mutant) => {
    const verdict = verdicts.get(mutant.name);
    return verdict === undefined ? [] : [{ mutant, verdict }];
  });
}
