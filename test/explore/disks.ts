/** A small disk as a list of sectors, and what requests make of it: the oracle of the planner. */
import { block, blockCount, generation, micros } from '../../src/base/units.ts';
import { crc32c } from '../../src/base/crc32c.ts';
import type { RequestRecord } from '../../src/device/request-record.ts';
import { makeStretch, type CrashState, type Stretch } from '../../src/explore/crash-state.ts';

const BLOCK_SECTORS = 8;
const ZERO_CRC = crc32c(new Uint8Array(4096));

export interface SmallPart {
  readonly start: number;
  /** One for each block; undefined: so many zeros. */
  readonly contents: readonly number[] | number;
}

export interface SmallRequest {
  readonly fua: boolean;
  readonly parts: readonly SmallPart[];
}

export function stretchOf(
  requests: readonly SmallRequest[],
  flushes: readonly number[],
  from = 100,
): Stretch {
  const records = requests.map(({ fua, parts }, at): RequestRecord => ({
    generation: generation(from + at + 1),
    wallUs: micros(at),
    fua,
    parts: parts.map(({ start, contents }) => ({
      start: block(start),
      count: blockCount(typeof contents === 'number' ? contents : contents.length),
      crcs: typeof contents === 'number' ? undefined : contents,
    })),
  }));
  return makeStretch(
    generation(from),
    records,
    flushes.map((at) => generation(from + at)),
  );
}

/** Applies requests to sectors; equal texts are equal disks. */
export class SmallDisk {
  readonly #sectors: string[];

  constructor(blocks: number) {
    this.#sectors = Array.from({ length: blocks * BLOCK_SECTORS }, () => 'before');
  }

  apply({ parts }: RequestRecord, tear = { from: 0, to: Infinity }): void {
    let at = 0;
    for (const { start, count, crcs } of parts) {
      for (let i = 0; i < count * BLOCK_SECTORS; i++, at++) {
        const crc = crcs?.[Math.floor(i / BLOCK_SECTORS)] ?? ZERO_CRC;
        if (at < tear.from || at >= tear.to) continue;
        this.#sectors[start * BLOCK_SECTORS + i] = `${crc}`;
      }
    }
  }

  get text(): string {
    return this.#sectors.join();
  }
}

/** What the disk is in a state, block by block of the rules. */
export function diskOf(stretch: Stretch, state: CrashState, blocks: number): string {
  const disk = new SmallDisk(blocks);
  const newest = state.present.at(-1);
  const order = [
    ...state.present.filter((at) => at !== state.last),
    ...(state.last === undefined ? [] : [state.last]),
  ];
  for (let at = 0; at < state.epoch.first; at++) apply(disk, stretch, at);
  for (const at of order) apply(disk, stretch, at, at === newest ? state.tear : undefined);
  return disk.text;
}

function apply(
  disk: SmallDisk,
  { requests }: Stretch,
  at: number,
  tear?: { from: number; to: number },
): void {
  const request = requests[at];
  if (request !== undefined) disk.apply(request, tear);
}

/** Every disk that the rules allow with whole requests, by trying every set. */
export function allowedDisks(stretch: Stretch, blocks: number): ReadonlySet<string> {
  const disks = new Set<string>();
  for (const { first, end } of stretch.epochs) {
    for (let mask = 0; mask < 2 ** (end - first); mask++) {
      const there = (at: number): boolean => ((mask >> (at - first)) & 1) === 1;
      const disk = new SmallDisk(blocks);
      for (let at = 0; at < first; at++) apply(disk, stretch, at);
      let newest = first - 1;
      for (let at = first; at < end; at++) {
        if (!there(at)) continue;
        newest = at;
        apply(disk, stretch, at);
      }
      let isAllowed = true;
      for (let at = first; at < newest; at++) {
        if (stretch.requests[at]?.fua === true && !there(at)) isAllowed = false;
      }
      if (isAllowed) disks.add(disk.text);
    }
  }
  return disks;
}
