/**
 * What changed between two moments, range by range, however many pages that takes; by requests, or
 * by comparing bytes.
 *
 * Invariants:
 *   - The older moment is open meanwhile, so that it does not leave between two pages.
 *   - Ranges ascend, and neighbours of one kind are one range; only one page is kept in memory.
 */
import {
  BLOCK_BYTES,
  byteCount,
  byteOffset,
  generation,
  mebibytes,
  type ByteOffset,
  type Generation,
} from '../base/units.ts';
import type { BlockDevice, OpenExport } from '../device/block-device.ts';
import { PAGE_MAX, type ChangedRange } from '../volume/past-report.ts';
import type { Progress } from '../volume/report.ts';
import type { Past } from './past.ts';

const PIECE_BYTES = mebibytes(1);

export interface DiffQuery {
  /** The two moments, in either order. */
  readonly from: Generation;
  readonly to: Generation;
  /** Leaves out blocks that hold the same bytes at both. */
  readonly content: boolean;
}

/** What was counted on the way. */
export class DiffTotals {
  ranges = 0;
  blocks = 0;
  bytes = 0;
  dataBytes = 0;
  zeroBytes = 0;
  /** Of blocks that were left out because both moments hold the same bytes there. */
  sameBytes = 0;

  add({ length, became }: ChangedRange): void {
    this.ranges += 1;
    this.blocks += Math.ceil(length / BLOCK_BYTES);
    this.bytes += length;
    if (became === 'data') this.dataBytes += length;
    else this.zeroBytes += length;
  }
}

/** @throws VarveError MOMENT_OUTSIDE, MOMENT_GONE, BLOCK_CORRUPT; what `progress` throws */
export async function* diffRanges(
  past: Past,
  query: DiffQuery,
  { totals, progress }: { readonly totals: DiffTotals; readonly progress: Progress },
): AsyncGenerator<ChangedRange, void> {
  const { from, to, content } = query;
  const opened: OpenExport[] = [];
  try {
    const older = await past.open(generation(Math.min(from, to)));
    opened.push(older);
    const changed = changedRanges(past, query, { size: older.device.size, progress });
    if (!content) {
      yield* counted(joined(changed), totals);
      return;
    }
    const newer = await past.open(generation(Math.max(from, to)));
    opened.push(newer);
    const different = differentRanges(changed, [older.device, newer.device], totals);
    yield* counted(joined(different), totals);
  } finally {
    for (const { device } of opened) await device.close();
  }
}

async function* changedRanges(
  past: Past,
  { from, to }: DiffQuery,
  { size, progress }: { readonly size: number; readonly progress: Progress },
): AsyncGenerator<ChangedRange, void> {
  for (let offset: ByteOffset | undefined = byteOffset(0); offset !== undefined;) {
    const page = await past.changed({ from, to, offset, rangesMax: PAGE_MAX });
    for (const range of page.ranges) {
      progress(range.offset, size);
      yield range;
    }
    offset = page.next;
    progress(offset ?? size, size);
  }
}

/** The blocks whose bytes are not the same on both devices. */
async function* differentRanges(
  changed: AsyncGenerator<ChangedRange, void>,
  devices: readonly [BlockDevice, BlockDevice],
  totals: DiffTotals,
): AsyncGenerator<ChangedRange, void> {
  for await (const { offset, length, became } of changed) {
    for (let at: number = offset; at < offset + length; at += PIECE_BYTES) {
      const pieceBytes = Math.min(PIECE_BYTES, offset + length - at);
      const [one, other] = await Promise.all(devices.map((device) => read(device, at, pieceBytes)));
      for (let i = 0; i < pieceBytes; i += BLOCK_BYTES) {
        const end = Math.min(pieceBytes, i + BLOCK_BYTES);
        if (one?.compare(other ?? one, i, end, i, end) === 0) totals.sameBytes += end - i;
        else yield { offset: byteOffset(at + i), length: byteCount(end - i), became };
      }
    }
  }
}

async function read(device: BlockDevice, offset: number, length: number): Promise<Buffer> {
  const target = Buffer.alloc(length);
  await device.read(byteOffset(offset), target);
  return target;
}

/** Neighbours of one kind become one range. */
async function* joined(
  ranges: AsyncGenerator<ChangedRange, void>,
): AsyncGenerator<ChangedRange, void> {
  let last: ChangedRange | undefined;
  for await (const range of ranges) {
    const adjoins = last !== undefined && last.offset + last.length === range.offset;
    if (last !== undefined && adjoins && last.became === range.became) {
      last = { ...last, length: byteCount(last.length + range.length) };
    } else {
      if (last !== undefined) yield last;
      last = range;
    }
  }
  if (last !== undefined) yield last;
}

async function* counted(
  ranges: AsyncGenerator<ChangedRange, void>,
  totals: DiffTotals,
): AsyncGenerator<ChangedRange, void> {
  for await (const range of ranges) {
    totals.add(range);
    yield range;
  }
}
