/** What an exploration tells: states, and what explains those that fail; as JSON it is stable. */
import type { ByteCount, ByteOffset, Generation, Micros } from '../base/units.ts';
import { BLOCK_BYTES, byteCount, byteOffset } from '../base/units.ts';
import { missingOf, type CrashState, type Stretch } from '../explore/crash-state.ts';
import type { Explanation } from '../explore/explain.ts';

/** How a check of one state ended. */
export interface Verdict {
  readonly isGood: boolean;
  /** Undefined when a signal ended it. */
  readonly exitCode: number | undefined;
  readonly isLate: boolean;
  /** The end of what it printed, both streams. */
  readonly output: string;
}

export interface ToldRange {
  readonly kind: 'write' | 'zero';
  readonly offset: ByteOffset;
  readonly length: ByteCount;
}

export interface ToldRequest {
  readonly generation: Generation;
  readonly wallUs: Micros;
  readonly fua: boolean;
  readonly ranges: readonly ToldRange[];
}

export interface Finding {
  /**
   * - `unstable`: the same state failed, and passed when it was looked at again.
   * - `unminimised`: it failed, and the exploration ended before it was looked into.
   */
  readonly kind: Explanation['kind'] | 'unstable' | 'unminimised';
  /** Everything up to here is there: a flush covered it, or it is where the exploration begins. */
  readonly flushed: Generation;
  /** With everything up to `through` but these, the check fails. */
  readonly missing: readonly ToldRequest[];
  /** With these alone since the flush it fails as well; of a prefix, the one that makes it fail. */
  readonly present: readonly ToldRequest[];
  readonly through: Generation;
  /** Of a torn request: which of its sectors of 512 bytes are there, from and to (exclusive). */
  readonly sectors: { readonly from: number; readonly to: number } | undefined;
  /** Of an order: the request that reached the disk after newer ones. */
  readonly last: ToldRequest | undefined;
  /** States that failed and have all of this. */
  readonly states: number;
  readonly verdict: Verdict;
}

export interface ExploreReport {
  readonly from: Generation;
  readonly to: Generation;
  readonly requests: number;
  readonly flushes: number;
  /** Sets of whole requests that the rules allow; undefined: more than can be counted. */
  readonly allowed: number | undefined;
  /** Chosen to be looked at, each another disk. */
  readonly planned: number;
  readonly checked: number;
  readonly failed: number;
  /** Checks that minimising took beyond those. */
  readonly checksMore: number;
  /** Every allowed set of whole requests was looked at. */
  readonly isComplete: boolean;
  readonly isInterrupted: boolean;
  /** Failing states that were not looked into, for there were enough findings or no more time. */
  readonly unexplained: number;
  readonly seed: number;
  readonly torn: boolean;
  readonly tookMs: number;
  readonly statesPerSecond: number;
  readonly findings: readonly Finding[];
}

function toldRequest({ requests }: Stretch, position: number): ToldRequest[] {
  const request = requests[position];
  if (request === undefined) return [];
  const { generation, wallUs, fua, parts } = request;
  const ranges = parts.map(({ start, count, crcs }): ToldRange => ({
    kind: crcs === undefined ? 'zero' : 'write',
    offset: byteOffset(start * BLOCK_BYTES),
    length: byteCount(count * BLOCK_BYTES),
  }));
  return [{ generation, wallUs, fua, ranges }];
}

/** What explains failing states, in the words of the report. */
export function toldFinding(
  stretch: Stretch,
  explanation: Explanation,
  { states, verdict }: { readonly states: number; readonly verdict: Verdict },
): Finding {
  const { kind, missing, present, witness } = explanation;
  return told(stretch, { kind, missing, present, witness, states, verdict });
}

/** Of a state that failed: as it is, because nothing smaller is known. */
export function toldState(
  stretch: Stretch,
  kind: 'unstable' | 'unminimised',
  { state, verdict }: { readonly state: CrashState; readonly verdict: Verdict },
): Finding {
  const missing = missingOf(state);
  const present = state.present.slice(-1);
  return told(stretch, { kind, missing, present, witness: state, states: 1, verdict });
}

function told(
  stretch: Stretch,
  all: Pick<Finding, 'kind' | 'states' | 'verdict'> & {
    readonly missing: readonly number[];
    readonly present: readonly number[];
    readonly witness: CrashState;
  },
): Finding {
  const { kind, missing, present, witness, states, verdict } = all;
  const { from, requests } = stretch;
  const before = (position: number): Generation => requests[position]?.generation ?? from;
  const { tear, last } = witness;
  return {
    kind,
    flushed: before(witness.epoch.first - 1),
    missing: missing.flatMap((at) => toldRequest(stretch, at)),
    present: present.flatMap((at) => toldRequest(stretch, at)),
    through: before(witness.present.at(-1) ?? witness.epoch.first - 1),
    sectors: tear === undefined ? undefined : { from: tear.from, to: tear.to },
    last: last === undefined ? undefined : toldRequest(stretch, last)[0],
    states,
    verdict,
  };
}
