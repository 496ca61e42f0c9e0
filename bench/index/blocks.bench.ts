/**
 * What a version costs: nanoseconds a put and a find, bytes of RAM, and the length of the longest
 * single call, at 1 and 8 million versions; the B+tree beside it.
 */
import { BlockIndex, RANGE_TRIM } from '../../index/block-index.ts';
import { SegmentReferences } from '../../index/segment-references.ts';
import { sortedMap } from '../../index/sorted-map.ts';
import {
  block,
  blockCount,
  checksum,
  generation,
  lsn,
  segmentSequence,
  type Generation,
} from '../../src/base/units.ts';
import { bytesInUse, measure, Shuffle } from './clock.ts';

const BLOCKS = blockCount(2 ** 28);
const CALLS = 1_000_000;
const SEGMENT_VERSIONS = 16_384;

export interface Row {
  readonly name: string;
  readonly figure: number;
  readonly unit: string;
}

function newIndex(): { index: BlockIndex; segments: SegmentReferences } {
  const segments = new SegmentReferences();
  segments.open(segmentSequence(1), lsn(0));
  return { index: new BlockIndex({ blocks: BLOCKS, segments }), segments };
}

/** @param places - writes go to blocks below this, at random */
function versionRows(versions: number, places: number): Row[] {
  const { index, segments } = newIndex();
  const shuffle = new Shuffle(7);
  const rows: Row[] = [];
  const label = `${versions / 1e6} M versions of ${places / 1e6} M blocks: `;
  const add = (name: string, figure: number, unit: string): void => {
    rows.push({ name: label + name, figure, unit });
  };
  const before = bytesInUse();
  const put = (from: number, to: number): number => {
    for (let at = from; at <= to; at++) {
      if (at % SEGMENT_VERSIONS === 0) {
        segments.open(segmentSequence(at / SEGMENT_VERSIONS + 1), lsn(at * 4096));
      }
      index.putBlock(block(shuffle.below(places)), generation(at), lsn(at * 4096), checksum(at));
    }
    return to;
  };
  const all = measure('put', versions, () => put(1, versions));
  add('put, growth included', all.nsPerCall, 'ns');
  const bytes = bytesInUse() - before;
  add('RAM a version, by its own count', index.bytes / versions, 'bytes');
  add('RAM a version, heap and arrays', bytes / versions, 'bytes');
  const head = generation(versions);
  const find = (at: () => number): number => {
    let sum = 0;
    for (let call = 0; call < CALLS; call++) {
      sum += index.find(block(shuffle.below(places)), generation(at()));
    }
    return sum;
  };
  add('find at head', measure('find', CALLS, () => find(() => head)).nsPerCall, 'ns');
  const old = measure('find', CALLS, () => find(() => shuffle.below(versions)));
  add('find at any moment', old.nsPerCall, 'ns');
  const more = measure('put', CALLS, () => put(versions + 1, versions + CALLS));
  add('put, at that size', more.nsPerCall, 'ns');
  const quarter = generation(Math.floor(versions / 4));
  const round = measure('round', 1, () => index.newestUpTo(quarter).length);
  add('newestUpTo a quarter', round.nsPerCall / 1e6, 'ms');
  add('its longest step', longestStepMs(index, quarter), 'ms');
  let steps = 0;
  let stepMs = 0;
  const drop = measure('drop', quarter, () => {
    for (let done = false; !done; steps++) {
      const began = performance.now();
      done = index.dropSome(quarter, 10_000);
      stepMs = Math.max(stepMs, performance.now() - began);
    }
    return steps;
  });
  add('drop of a quarter, a version', drop.nsPerCall, 'ns');
  add('longest dropSome of 10,000', stepMs, 'ms');
  return rows;
}

function longestStepMs(index: BlockIndex, target: Generation): number {
  let longestMs = 0;
  const steps = index.newestUpToSteps(target);
  for (let done = false; !done;) {
    const began = performance.now();
    done = steps.next().done === true;
    longestMs = Math.max(longestMs, performance.now() - began);
  }
  return longestMs;
}

/** The longest single put: what the growth of the table adds to a request. */
function pauseRow(versions: number): Row {
  const { index } = newIndex();
  const shuffle = new Shuffle(9);
  let longestMs = 0;
  for (let at = 1; at <= versions; at++) {
    const began = performance.now();
    index.putBlock(block(shuffle.below(BLOCKS)), generation(at), lsn(at * 4096), checksum(at));
    longestMs = Math.max(longestMs, performance.now() - began);
  }
  return { name: `longest put, growing to ${versions / 1e6} M`, figure: longestMs, unit: 'ms' };
}

function chainRows(versions: number): Row[] {
  const { index } = newIndex();
  const shuffle = new Shuffle(3);
  for (let at = 1; at <= versions; at++) {
    index.putBlock(block(5), generation(at), lsn(at * 4096), checksum(at));
  }
  const any = measure('chain', CALLS, () => {
    let sum = 0;
    for (let call = 0; call < CALLS; call++) {
      sum += index.find(block(5), generation(shuffle.below(versions)));
    }
    return sum;
  });
  const name = `find at any moment, one block with ${versions / 1e6} M versions`;
  return [{ name, figure: any.nsPerCall, unit: 'ns' }];
}

function rangeRows(records: number): Row[] {
  const { index } = newIndex();
  const shuffle = new Shuffle(5);
  const label = `${records / 1e3} k trims: `;
  const before = bytesInUse();
  const put = measure('trim', records, () => {
    for (let at = 1; at <= records; at++) {
      const count = blockCount(1 + shuffle.below(1000));
      index.putRange(block(shuffle.below(BLOCKS - 1000)), count, generation(at), RANGE_TRIM);
    }
    return records;
  });
  const bytes = bytesInUse() - before;
  const find = (at: () => number): number => {
    let sum = 0;
    for (let call = 0; call < CALLS; call++) {
      sum += index.find(block(shuffle.below(BLOCKS)), generation(at()));
    }
    return sum;
  };
  const rows = [
    { name: `${label}put`, figure: put.nsPerCall, unit: 'ns' },
    { name: `${label}RAM a record, heap`, figure: bytes / records, unit: 'bytes' },
    { name: `${label}RAM a record, estimate`, figure: index.bytes / records, unit: 'bytes' },
  ];
  const head = measure('find', CALLS, () => find(() => records)).nsPerCall;
  const any = measure('find', CALLS, () => find(() => shuffle.below(records))).nsPerCall;
  rows.push({ name: `${label}find at head`, figure: head, unit: 'ns' });
  rows.push({ name: `${label}find at any moment`, figure: any, unit: 'ns' });
  const whole = measure('whole', 1, () => {
    index.putRange(block(0), BLOCKS, generation(records + 1), RANGE_TRIM);
    return 1;
  });
  rows.push({ name: `${label}then of all`, figure: whole.nsPerCall / 1e6, unit: 'ms' });
  return rows;
}

function treeRows(versions: number): Row[] {
  const shuffle = new Shuffle(7);
  const before = bytesInUse();
  const tree = sortedMap<number>();
  const set = measure('set', versions, () => {
    for (let at = 1; at <= versions; at++) tree.set(shuffle.below(BLOCKS), at);
    return tree.size;
  });
  const bytes = bytesInUse() - before;
  const label = `sorted-btree, ${versions / 1e6} M keys: `;
  return [
    { name: `${label}set`, figure: set.nsPerCall, unit: 'ns' },
    { name: `${label}RAM a key`, figure: bytes / tree.size, unit: 'bytes' },
  ];
}

/** Prints one line a figure; the page docs/decisions/0001-index-structure.md quotes them. */
export function main(): void {
  const parts = [
    () => versionRows(1_000_000, BLOCKS),
    () => versionRows(8_000_000, BLOCKS),
    () => versionRows(8_000_000, 1_000_000),
    () => [pauseRow(8_000_000)],
    () => chainRows(1_000_000),
    () => rangeRows(10_000),
    () => rangeRows(100_000),
    () => treeRows(1_000_000),
    () => treeRows(8_000_000),
  ];
  for (const part of parts) {
    for (const { name, figure, unit } of part()) {
      console.log(`${name.padEnd(64)} ${figure.toFixed(1).padStart(9)} ${unit}`);
    }
  }
}
