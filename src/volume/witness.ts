/**
 * Is the image that lies in final storage ours, and as new as the log says? A plain image carries
 * no header, so blocks spread over it, and blocks that the last round wrote, are compared with the
 * sidecar before anything is written.
 */
import { VarveError } from '../base/errors.ts';
import { block as blockOf, BLOCK_BYTES, type Block, type Generation } from '../base/units.ts';
import { SUM_DATA } from '../format/layouts.ts';
import type { BlockIndex } from '../../index/block-index.ts';
import type { FinalStorage } from './final-storage.ts';
import { LATEST } from './reader.ts';

const SPREAD = 64;

export interface WitnessOptions {
  readonly final: FinalStorage;
  readonly index: BlockIndex;
  readonly witnesses: readonly Block[];
  readonly settled: Generation;
}

/** @throws VarveError VOLUME_FOREIGN, naming the first block that is not what it should be */
export async function compareWitnesses(options: WitnessOptions): Promise<number> {
  const { final, index, witnesses, settled } = options;
  const blocks = new Set<Block>();
  for (let i = 0; i < SPREAD; i++) blocks.add(blockOf(Math.floor((i * final.blocks) / SPREAD)));
  for (const block of witnesses) blocks.add(block);
  const content = new Uint8Array(BLOCK_BYTES);
  const written = new Set(witnesses);
  for (const block of blocks) {
    // What a round may have left half-written is in the log, and is written again from there.
    if (block >= final.blocks || index.find(block, LATEST) !== 0) continue;
    const sum = await final.sum(block);
    await final.readRaw(block, content);
    let problem = final.problem(block, content, sum);
    if (written.has(block) && sum.kind === SUM_DATA && sum.generation > settled) {
      problem = `block ${block}: its sum is of generation ${sum.generation}, beyond ${settled}`;
    }
    if (problem !== undefined) {
      throw new VarveError('VOLUME_FOREIGN', `final storage does not fit the log: ${problem}`);
    }
  }
  return blocks.size;
}
