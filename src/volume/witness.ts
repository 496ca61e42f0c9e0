/**
 * Is the image that lies in final storage ours, and as new as the log says? A plain image carries
 * no header, so blocks spread over it, and blocks that the last round wrote, are compared with the
 * sidecar before anything is written.
 *
 * One rotten block is no foreign image: it is EIO when it is read. Most of a sample is.
 */
import { isVarveError, VarveError } from '../base/errors.ts';
import { block as blockOf, BLOCK_BYTES, type Block, type Generation } from '../base/units.ts';
import { SUM_DATA, SUM_LOST } from '../format/layouts.ts';
import type { BlockIndex } from '../../index/block-index.ts';
import type { Witness } from './catalogue.ts';
import type { FinalStorage } from './final-storage.ts';
import { LATEST } from './reader.ts';

const SPREAD = 64;
/** Fewer mismatches than this are rot. */
const MISMATCHES_MIN = 2;

export interface WitnessOptions {
  readonly final: FinalStorage;
  readonly index: BlockIndex;
  readonly witnesses: readonly Witness[];
}

/** @throws VarveError VOLUME_FOREIGN, naming the first block that is not what it should be */
export async function compareWitnesses(options: WitnessOptions): Promise<void> {
  const { final, witnesses } = options;
  const spread: { block: Block; generation: Generation | undefined }[] = [];
  for (let i = 0; i < SPREAD; i++) {
    const block = blockOf(Math.floor((i * final.blocks) / SPREAD));
    if (i === 0 || spread.at(-1)?.block !== block) spread.push({ block, generation: undefined });
  }
  await judge(options, spread);
  await judge(options, witnesses);
}

async function judge(
  { final, index }: WitnessOptions,
  samples: readonly { readonly block: Block; readonly generation: Generation | undefined }[],
): Promise<void> {
  const problems: string[] = [];
  let telling = 0;
  const content = new Uint8Array(BLOCK_BYTES);
  for (const { block, generation } of samples) {
    // What a round may have left half-written is in the log, and is written again from there.
    if (block >= final.blocks || index.find(block, LATEST) !== 0) continue;
    const sum = await sumOf(final, block);
    await final.readRaw(block, content);
    if (sum?.kind === SUM_LOST) continue;
    // Zeros that should be zeros are in every blank image, and tell nothing.
    const blank = sum !== undefined && sum.kind !== SUM_DATA && content.every((byte) => byte === 0);
    if (blank && generation === undefined) continue;
    telling += 1;
    if (sum === undefined) problems.push(`block ${block}: its checksums are damaged`);
    else if (generation !== undefined && sum.generation < generation) {
      problems.push(`block ${block}: of generation ${sum.generation}, expected ${generation}`);
    } else {
      const problem = final.problem(block, content, sum);
      if (problem !== undefined) problems.push(problem);
    }
  }
  if (problems.length >= MISMATCHES_MIN && problems.length * 2 > telling) {
    throw new VarveError(
      'VOLUME_FOREIGN',
      `final storage does not fit the log: ${problems.length} of ${telling} blocks looked at, ` +
        `such as ${problems[0] ?? ''}`,
    );
  }
}

async function sumOf(
  final: FinalStorage,
  block: Block,
): Promise<Awaited<ReturnType<FinalStorage['sum']>> | undefined> {
  try {
    return await final.sum(block);
  } catch (error) {
    if (isVarveError(error, 'BLOCK_CORRUPT')) return undefined;
    throw error;
  }
}
