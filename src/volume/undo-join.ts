/**
 * Joining segments of the undo device that are mostly empty: which ones, and what of them goes on.
 *
 * Invariants:
 *   - What is chosen fits one segment, together, and frees more slots than it takes.
 *   - A fact that is there twice goes on once; what nobody needs does not.
 */
import { isVarveError, VarveError } from '../base/errors.ts';
import type { SegmentSequence } from '../base/units.ts';
import type { Amount } from '../../index/held-counts.ts';
import type { FoundImage } from '../../log/found-image.ts';
import type { StatedImage, UndoLog } from '../../log/undo-log.ts';

/** In memory at once, without their content. */
const IMAGES_MAX = 65_536;
/** So few are joined only where slots are short: what is written again is less than what it frees. */
const SOURCES_SHORT = 2;
const SOURCES_MIN = 4;

export interface Candidate {
  readonly sequence: SegmentSequence;
  /** What pins need of it. */
  readonly held: Amount;
}

/** @returns the emptiest that fit one segment together; none when it is not worth it */
export function chooseSources(
  log: UndoLog,
  candidates: readonly Candidate[],
): readonly SegmentSequence[] {
  const chosen: SegmentSequence[] = [];
  let [images, bytes] = [0, 0];
  for (const { sequence, held } of candidates.toSorted((a, b) => a.held.bytes - b.held.bytes)) {
    images += held.images;
    bytes += held.bytes;
    if (images > IMAGES_MAX || !log.fitsJoined(chosen.length + 1, { images, bytes })) break;
    chosen.push(sequence);
  }
  const least = log.isShort ? SOURCES_SHORT : SOURCES_MIN;
  return chosen.length < least ? [] : chosen;
}

/** A segment that has to be left as it is: something in it is damaged, or not settled history yet. */
export class BadSource extends VarveError {
  readonly sequence: SegmentSequence;
  /** When the horizon is there it may be tried again. */
  readonly until: number;

  constructor(sequence: SegmentSequence, detail: string, until = Infinity) {
    super('VOLUME_CORRUPT', detail);
    this.sequence = sequence;
    this.until = until;
  }
}

/**
 * What is needed of the sources, in order of block and `until`, in batches.
 * @throws VarveError DEVICE_IO when the device is away; BadSource
 */
export async function* imagesToJoin(
  log: UndoLog,
  sources: readonly SegmentSequence[],
  isNeeded: (found: FoundImage) => boolean,
): AsyncGenerator<readonly StatedImage[]> {
  const facts = new Map<string, FoundImage>();
  for (const batch of log.images.batches(sources)) {
    const found = log.images.imagesOf(batch);
    for (const one of await readable(log, batch.segment.sequence, found)) {
      const { block, from, until } = one.image;
      const key = `${block}:${from}:${until}`;
      const isNewer = one.segment > (facts.get(key)?.segment ?? 0);
      if (isNewer && isNeeded(one)) facts.set(key, one);
    }
  }
  const sorted = [...facts.values()].toSorted(
    ({ image: a }, { image: b }) => a.block - b.block || a.until - b.until,
  );
  for (let from = 0; from < sorted.length; from += log.imagesMax) {
    const chunk: StatedImage[] = [];
    for (const one of sorted.slice(from, from + log.imagesMax)) {
      chunk.push({ image: one.image, content: await contentOf(log, one) });
    }
    yield chunk;
  }
}

/** @throws BadSource where it is damaged, or a device that reads others refuses it */
async function readable<T>(log: UndoLog, segment: SegmentSequence, read: Promise<T>): Promise<T> {
  try {
    return await read;
  } catch (error) {
    const isDamaged = isVarveError(error, 'VOLUME_CORRUPT');
    if (!isDamaged && !isVarveError(error, 'DEVICE_IO')) throw error;
    // What is away is asked again when it is back.
    if (!isDamaged && !(await log.isThere())) throw error;
    throw new BadSource(segment, error.detail);
  }
}

async function contentOf(log: UndoLog, one: FoundImage): Promise<Uint8Array | undefined> {
  const { image, segment } = one;
  if (image.checksum === undefined) return undefined;
  const content = await readable(log, segment, log.images.read(one, image.block));
  if (content !== undefined) return content;
  const which = `block ${image.block}, generation ${image.from}`;
  throw new BadSource(segment, `${which}: its before-image fails its checksum`);
}
