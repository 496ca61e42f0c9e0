/** Recomputes the chains of versions from their rows: order, links, skip links and ranks. */
import { assert } from '../src/base/assert.ts';
import type { Block, Generation, Lsn } from '../src/base/units.ts';
import type { VersionStore } from './version-store.ts';

export interface CheckedVersions {
  /** Block -> number of its newest version. */
  readonly newest: ReadonlyMap<Block, number>;
  /** Of every version, oldest first. */
  readonly blocks: readonly Block[];
  readonly lsns: readonly Lsn[];
}

export function checkVersions(store: VersionStore, settled: Generation): CheckedVersions {
  const chains = new Map<Block, number[]>();
  const blocks: Block[] = [];
  const lsns: Lsn[] = [];
  let generationLast: number = settled + 1;
  let lsnLast = -1;
  for (let ordinal = 0; ordinal < store.live; ordinal++) {
    const version = store.at(ordinal);
    assert(store.ordinalOf(version) === ordinal, 'versions are numbered without a gap');
    const block = store.blockOf(version);
    const generation = store.generationOf(version);
    assert(generation >= generationLast, 'generations do not decrease, and are above settled');
    generationLast = generation;
    const lsn = store.lsnOf(version);
    assert(lsn > lsnLast, 'LSNs strictly increase');
    lsnLast = lsn;
    const chain = chains.get(block) ?? [];
    checkLinks(store, version, chain);
    chain.push(version);
    chains.set(block, chain);
    blocks.push(block);
    lsns.push(lsn);
  }
  const newest = new Map<Block, number>();
  for (const [block, chain] of chains) newest.set(block, chain[chain.length - 1] ?? -1);
  return { newest, blocks, lsns };
}

/** @param chain - the older live versions of the same block, oldest first */
function checkLinks(store: VersionStore, version: number, chain: readonly number[]): void {
  const replaced = store.replacedBy(version);
  const skip = store.skipOf(version);
  const older = chain[chain.length - 1];
  if (older === undefined) {
    assert(!store.isLive(replaced), 'the oldest live version of a block replaced none');
    assert(!store.isLive(skip), 'the oldest live version of a block skips to none');
    return;
  }
  assert(replaced === older, 'a version links to the one before of the same block');
  const back = 2 ** store.rankOf(version) - 1;
  if (store.isLive(skip)) {
    assert(chain[chain.length - back] === skip, 'a skip link leads 2^rank - 1 versions back');
  } else {
    assert(chain.length < back, 'a skip link is live while its target is');
  }
}
