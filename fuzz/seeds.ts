/**
 * fuzz/seeds.json: every seed that ever failed, with the story of what it found. They are run
 * first, for ever; a seed is never taken out.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { REPOSITORY } from '../tools/repository.ts';
import type { FuzzOptions } from './options.ts';

export interface OldSeed extends FuzzOptions {
  readonly name: string;
  /** What it found, in a sentence. */
  readonly note: string;
}

function isOldSeed(value: unknown): value is OldSeed {
  if (typeof value !== 'object' || value === null) return false;
  const { name, seed, runs, note } = { name: 0, seed: '', runs: '', note: 0, ...value };
  const texts: readonly unknown[] = [name, note];
  return texts.every((text) => typeof text === 'string') && [seed, runs].every(Number.isInteger);
}

/** @throws Error when the file is not a list of seeds: a typing error must not skip one */
export function oldSeeds(
  text = readFileSync(join(REPOSITORY, 'fuzz/seeds.json'), 'utf8'),
): OldSeed[] {
  const list: unknown = JSON.parse(text);
  if (!Array.isArray(list)) throw new Error('fuzz/seeds.json is a list');
  return list.map((value: unknown) => {
    if (!isOldSeed(value)) {
      throw new Error(`not { name, seed, runs, note }: ${JSON.stringify(value)}`);
    }
    return value;
  });
}
