/** The script of a run: what the machine is, and the steps of its lives. */
import fc from 'fast-check';
import { WRITE_MODES, type WriteMode } from '../../src/volume/report.ts';
import { FAULTS, type FaultKind, type FaultStep } from './faults.ts';
import type { DiskName } from './oracle.ts';

/** `at` and `where` are parts of 10,000 of whatever there is; lengths are bytes. */
export type Step =
  | { readonly do: 'write'; readonly at: number; readonly length: number; readonly fua: boolean }
  | { readonly do: 'trim'; readonly at: number; readonly length: number; readonly fua: boolean }
  | {
      readonly do: 'zero';
      readonly at: number;
      readonly length: number;
      readonly fua: boolean;
      readonly allocate: boolean;
    }
  | { readonly do: 'burst'; readonly at: number; readonly count: number }
  | { readonly do: 'read'; readonly at: number; readonly length: number }
  | { readonly do: 'flush' | 'drain' | 'mark' | 'check' | 'reopen' | 'look' | 'heal' | 'scrub' }
  | { readonly do: 'pause'; readonly us: number }
  | { readonly do: 'open-moment' | 'snapshot'; readonly at: number }
  | { readonly do: 'read-moment' | 'close-moment' | 'delete-snapshot'; readonly at: number }
  | { readonly do: 'mode'; readonly mode: WriteMode }
  | { readonly do: 'crash'; readonly loss: 'cut' | 'kill'; readonly operations: number }
  | ({ readonly do: 'fault' } & FaultStep);

export interface Script {
  /** Of the simulated world: latencies, orders, what a cut takes. */
  readonly seed: number;
  readonly blocks: number;
  /** Bytes that the volume is shorter than its blocks. */
  readonly short: number;
  readonly slots: number;
  readonly segmentKib: number;
  readonly ringKib: number;
  readonly liar: DiskName;
  /** Kinds of faults that this run knows; few at a time, so that they don't hide each other. */
  readonly faults: readonly FaultKind[];
  readonly steps: readonly Step[];
}

const part = fc.nat({ max: 9999 });
const short = fc.oneof(
  { weight: 5, arbitrary: fc.constantFrom(4096, 4096, 8192, 12_288) },
  { weight: 3, arbitrary: fc.integer({ min: 1, max: 9000 }) },
  { weight: 1, arbitrary: fc.integer({ min: 9000, max: 24_000 }) },
);
/** Most requests lie on blocks; the machine turns `at` into an offset. */
const fua = fc.constantFrom(true, false, false, false, false, false, false, false, false, false);
const allocate = fc.constantFrom(true, false, false, false);

const plain = <T extends string>(name: T): fc.Arbitrary<{ readonly do: T }> =>
  fc.record({ do: fc.constant(name) });

interface Kind {
  readonly weight: number;
  readonly arbitrary: fc.Arbitrary<Step>;
}

const crash: Kind = {
  weight: 16,
  arbitrary: fc.record({
    do: fc.constant('crash' as const),
    loss: fc.constantFrom('cut' as const, 'cut' as const, 'kill' as const),
    operations: fc.oneof(fc.nat({ max: 12 }), fc.nat({ max: 200 })),
  }),
};

const fault: Kind = {
  weight: 25,
  arbitrary: fc.record({
    do: fc.constant('fault' as const),
    fault: fc.constantFrom(...FAULTS),
    where: part,
    how: fc.nat({ max: 999 }),
  }),
};

const KINDS: readonly Kind[] = [
  {
    weight: 300,
    arbitrary: fc.record({ do: fc.constant('write' as const), at: part, length: short, fua }),
  },
  {
    weight: 40,
    arbitrary: fc.record({ do: fc.constant('trim' as const), at: part, length: short, fua }),
  },
  {
    weight: 40,
    arbitrary: fc.record({
      do: fc.constant('zero' as const),
      at: part,
      length: short,
      fua,
      allocate,
    }),
  },
  {
    weight: 25,
    arbitrary: fc.record({
      do: fc.constant('burst' as const),
      at: part,
      count: fc.integer({ min: 4, max: 60 }),
    }),
  },
  {
    weight: 120,
    arbitrary: fc.record({ do: fc.constant('read' as const), at: part, length: short }),
  },
  { weight: 80, arbitrary: plain('flush') },
  { weight: 60, arbitrary: plain('drain') },
  { weight: 10, arbitrary: plain('mark') },
  { weight: 30, arbitrary: plain('check') },
  { weight: 8, arbitrary: plain('reopen') },
  { weight: 6, arbitrary: plain('look') },
  { weight: 15, arbitrary: plain('heal') },
  { weight: 8, arbitrary: plain('scrub') },
  {
    weight: 100,
    arbitrary: fc.record({
      do: fc.constant('pause' as const),
      us: fc.oneof(fc.nat({ max: 400 }), fc.nat({ max: 20_000 }), fc.constant(1_500_000)),
    }),
  },
  { weight: 30, arbitrary: fc.record({ do: fc.constant('open-moment' as const), at: part }) },
  { weight: 60, arbitrary: fc.record({ do: fc.constant('read-moment' as const), at: part }) },
  { weight: 20, arbitrary: fc.record({ do: fc.constant('close-moment' as const), at: part }) },
  { weight: 12, arbitrary: fc.record({ do: fc.constant('snapshot' as const), at: part }) },
  { weight: 14, arbitrary: fc.record({ do: fc.constant('delete-snapshot' as const), at: part }) },
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant('mode' as const),
      mode: fc.constantFrom(...WRITE_MODES),
    }),
  },
];

export const step: fc.Arbitrary<Step> = fc.oneof(...KINDS, crash, fault);

/** Of a hard life: every eighth step ends one, and as many are faults. */
const hardStep: fc.Arbitrary<Step> = fc.oneof(
  ...KINDS,
  { ...crash, weight: 160 },
  { ...fault, weight: 160 },
);

const machine = fc.record({
  seed: fc.nat(),
  blocks: fc.constantFrom(24, 40, 64, 96, 300),
  short: fc.constantFrom(0, 0, 512, 1000),
  slots: fc.constantFrom(7, 8, 10, 14),
  segmentKib: fc.constantFrom(32, 32, 64),
  ringKib: fc.constantFrom(64, 96, 192, 512),
  liar: fc.constantFrom<DiskName>('log', 'final', 'sums', 'undo'),
  faults: fc.oneof(fc.constant([...FAULTS]), fc.subarray([...FAULTS], { maxLength: 5 })),
});

/** Steps and crashes that a whole run has at least. */
export const STEPS_MIN = 1000;
export const CRASHES_MIN = 10;

function machineOf(seed: number): Omit<Script, 'steps'> {
  const [about] = fc.sample(machine, { seed, numRuns: 1 });
  if (about === undefined) throw new Error('a sample has what was asked for');
  return about;
}

export function scriptOf(seed: number): Script {
  const steps = fc.sample(step, { seed: seed ^ 0x5bd1e995, numRuns: STEPS_MIN + 20 });
  const crashes = steps.filter((one) => one.do === 'crash').length;
  const more: Step[] = [];
  // A planned crash may come late and the next one on top of it: two more are sure to be enough.
  for (let i = crashes; i < CRASHES_MIN + 2; i++) {
    more.push({ do: 'burst', at: (i * 997) % 10_000, count: 10 });
    more.push({ do: 'crash', loss: 'cut', operations: 0 });
  }
  return { ...machineOf(seed), steps: [...steps, ...more] };
}

/** As many crashes and faults as a run of `scriptOf` has, in a fifth of the steps. */
export function hardScriptOf(seed: number): Script {
  return {
    ...machineOf(seed),
    steps: fc.sample(hardStep, { seed: seed ^ 0x5bd1e995, numRuns: 200 }),
  };
}

/** What `JSON.stringify` made of a script. */
export function parseScript(text: string): Script {
  const value: unknown = JSON.parse(text);
  if (!isScript(value)) throw new Error('a script is an object with seed, disks and steps');
  return value;
}

function isScript(value: unknown): value is Script {
  if (typeof value !== 'object' || value === null) return false;
  const { seed, steps, faults } = { seed: '', steps: 0, faults: 0, ...value };
  return Number.isInteger(seed) && Array.isArray(steps) && Array.isArray(faults);
}
