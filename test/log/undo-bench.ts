/** An undo device by itself, opened again and again, for tests that tell a single story. */
import { crc32c } from '../../src/base/crc32c.ts';
import { newUuid } from '../../src/base/identity.ts';
import {
  block as blockOf,
  BLOCK_BYTES,
  blockCount,
  byteCount,
  generation as generationOf,
  kibibytes,
  micros,
  type SegmentSequence,
} from '../../src/base/units.ts';
import { bindChecksum, volumeSeed } from '../../src/format/block-checksum.ts';
import type { BeforeImage } from '../../log/before-image.ts';
import { UndoLog, type StatedImage, type UndoLogOptions } from '../../log/undo-log.ts';
import { Undo } from '../../src/volume/undo.ts';
import { Pins } from '../../index/pins.ts';
import { PowerSupply } from '../sim/power-supply.ts';
import { SimDisk } from '../sim/sim-disk.ts';
import { SimWorld } from '../sim/sim-world.ts';

const SEGMENT_BYTES = kibibytes(64);
const SLOTS = 16;

export class UndoBench {
  readonly world: SimWorld;
  readonly power: PowerSupply;
  readonly disk: SimDisk;
  readonly volume;
  /** As superblocks would have them. */
  slotsUsed = 0;
  horizon = generationOf(2 ** 40);
  /** What the last opening has stated, as texts. */
  stated: string[] = [];

  constructor(seed: number) {
    this.world = new SimWorld(seed);
    this.power = new PowerSupply(this.world);
    this.volume = newUuid(this.world.random);
    const size = byteCount(kibibytes(64) + SLOTS * SEGMENT_BYTES);
    this.disk = SimDisk.create(this.power, { name: 'undo', size, skipSyncs: new Set() });
  }

  /** @param opening - 0: as early versions did, whose batches don't say of which one they are */
  async open(opening = 1 + this.world.random.below(2 ** 40)): Promise<UndoLog> {
    this.stated = [];
    return await UndoLog.open(this.disk.reopen(), {
      ...this.#options(opening),
      onImage: (_, image) => this.stated.push(textOf(image)),
      onSync: () => undefined,
    });
  }

  /** As a volume does it that has one snapshot, which needs all that is there. */
  async openUndo(isClean: boolean): Promise<Undo> {
    const pins = new Pins<undefined>();
    pins.add(generationOf(5), undefined);
    const opening = 1 + this.world.random.below(2 ** 40);
    const options = { ...this.#options(opening), pins, readOnly: false, isClean };
    return await Undo.open(this.disk.reopen(), options);
  }

  #options(opening: number): Omit<UndoLogOptions, 'onImage' | 'onSync'> {
    return {
      volume: this.volume,
      segmentBytes: SEGMENT_BYTES,
      cacheBytes: byteCount(4096),
      opening,
      slotsUsed: this.slotsUsed,
      horizon: () => this.horizon,
      now: () => ({ wallUs: micros(1), elapsedUs: micros(1) }),
    };
  }

  image(block: number, from: number, until: number): StatedImage {
    const content = this.world.random.bytes(BLOCK_BYTES);
    const checksum = bindChecksum(crc32c(content), volumeSeed(this.volume), block, from);
    return { image: { ...imageOf(block, from, until), checksum }, content };
  }

  /** Puts images of the block, which was zeros, until they fill a segment. @returns that */
  async fillSegment(undo: UndoLog, block: number): Promise<SegmentSequence> {
    const before = new Set(undo.segments.keys());
    for (let until = 10; undo.segments.size < before.size + 2; until++) {
      await undo.put([zeros(block, 1, until)], generationOf(50));
    }
    const [first] = [...undo.segments.keys()].filter((sequence) => !before.has(sequence));
    if (first === undefined) throw new Error('a segment was begun');
    return first;
  }

  /** Joins segments. @param beforeMark - all is durable but the mark that ends it. @returns into which */
  async join(
    undo: UndoLog,
    sources: readonly SegmentSequence[],
    beforeMark: () => void = () => undefined,
  ): Promise<SegmentSequence> {
    const onDurable = async (): Promise<void> => {
      this.slotsUsed = undo.slotsUsed;
      beforeMark();
    };
    await undo.join(sources, imagesOf(undo, sources), generationOf(60), onDurable);
    const into = [...undo.segments.keys()].at(-1);
    if (into === undefined) throw new Error('there is one');
    return into;
  }

  /** Bytes of the disk, as a reader would find them now. */
  bytesAt(offset: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    this.disk.platter.read(offset, bytes);
    return bytes;
  }
}

export function zeros(block: number, from: number, until: number): StatedImage {
  return { image: { ...imageOf(block, from, until), checksum: undefined }, content: undefined };
}

export function textOf({ block, from, until }: BeforeImage): string {
  return `${block}: ${from} to ${until}`;
}

function imageOf(block: number, from: number, until: number): Omit<BeforeImage, 'checksum'> {
  return {
    block: blockOf(block),
    count: blockCount(1),
    from: generationOf(from),
    until: generationOf(until),
  };
}

/** All zeros that are in some segments, as a join takes them. */
async function* imagesOf(
  undo: UndoLog,
  sources: readonly SegmentSequence[],
): AsyncGenerator<readonly StatedImage[]> {
  const images: StatedImage[] = [];
  for (const batch of undo.images.batches()) {
    if (!sources.includes(batch.segment.sequence)) continue;
    for (const { image } of await undo.images.imagesOf(batch)) {
      images.push({ image, content: undefined });
    }
  }
  images.sort(({ image: a }, { image: b }) => a.block - b.block || a.until - b.until);
  for (let at = 0; at < images.length; at += undo.imagesMax) {
    yield images.slice(at, at + undo.imagesMax);
  }
}
