/**
 * Is the image that lies in final storage ours, and as new as the log says? A plain image carries
 * no header, so blocks spread over it, and blocks that the last round wrote, are compared with the
 * sidecar before anything is written.
 *
 * One rotten block, or one rotten sector of the sidecar, is no foreign image: it is EIO when it is
 * read. Most of a sample is; and so is one block that is older than the last round wrote it, and
 * fits its sum all the same, because nobody would notice when it is read. What a device refuses to
 * read tells nothing, as long as it reads anything.
 */
import { isVarveError, VarveError } from '../base/errors.ts';
import { block as blockOf, BLOCK_BYTES, type Block, type Generation } from '../base/units.ts';
import { SUM_DATA, SUM_LOST } from '../format/layouts.ts';
import { sectorOf, type Sum } from '../format/sums.ts';
import type { BlockIndex } from '../../index/block-index.ts';
import type { Witness } from './catalogue-entries.ts';
import type { FinalStorage } from './final-storage.ts';
import { pageOf } from './sums-page.ts';

const SPREAD = 64;
/** Fewer mismatches than this are rot. */
const MISMATCHES_MIN = 2;

export interface WitnessOptions {
  readonly final: FinalStorage;
  readonly index: BlockIndex;
  readonly witnesses: readonly Witness[];
  /** A round under way wrote versions up to this one, and none above it. */
  readonly horizon: Generation;
}

/**
 * @throws VarveError VOLUME_FOREIGN, naming the first block that is not what it should be; DEVICE_IO
 *   when nothing at all can be read of a part of final storage
 */
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
  { final, index, horizon }: WitnessOptions,
  samples: readonly { readonly block: Block; readonly generation: Generation | undefined }[],
): Promise<void> {
  const problems: string[] = [];
  const damaged = new Set<number>();
  const refused = new Set<number>();
  let telling = 0;
  const content = new Uint8Array(BLOCK_BYTES);
  for (const { block, generation } of samples) {
    // What a round may have left half-written is in the log, and is written again from there.
    if (block >= final.blocks || index.find(block, horizon) !== 0) continue;
    // A page is one place, however many blocks it is for.
    if (refused.has(pageOf(block))) continue;
    const sum = await orRefused(final, () => sumOf(final, block));
    if (sum === REFUSED) {
      refused.add(pageOf(block));
      continue;
    }
    if (sum === undefined) {
      // One sector is one fault, however many blocks it is for.
      if (damaged.has(sectorOf(block))) continue;
      damaged.add(sectorOf(block));
      telling += 1;
      problems.push(`block ${block}: its checksums are damaged`);
      continue;
    }
    if (sum.kind === SUM_LOST) continue;
    if ((await orRefused(final, () => final.readRaw(block, content))) === REFUSED) continue;
    // Zeros that should be zeros are in every blank image, and tell nothing.
    const blank = sum.kind !== SUM_DATA && content.every((byte) => byte === 0);
    if (blank && generation === undefined) continue;
    telling += 1;
    const problem = final.problem(block, content, sum);
    if (problem !== undefined) problems.push(problem);
    else if (generation !== undefined && sum.generation < generation) {
      const older = `block ${block}: of generation ${sum.generation}, expected ${generation}`;
      throw new VarveError('VOLUME_FOREIGN', `final storage is older than the log: ${older}`);
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

async function sumOf(final: FinalStorage, block: Block): Promise<Sum | undefined> {
  try {
    return await final.sidecar.sum(block);
  } catch (error) {
    if (isVarveError(error, 'BLOCK_CORRUPT')) return undefined;
    throw error;
  }
}

const REFUSED = Symbol('refused');

/** @throws VarveError DEVICE_IO when it is not one bad place, but a device that is away */
async function orRefused<T>(
  final: FinalStorage,
  read: () => Promise<T>,
): Promise<T | typeof REFUSED> {
  try {
    return await read();
  } catch (error) {
    if (!isVarveError(error, 'DEVICE_IO') || !(await final.isThere())) throw error;
    return REFUSED;
  }
}
