/** Between the log, which is there first, and the volume that listens to it. */
import type { ByteCount, Generation } from '../base/units.ts';
import type { World } from '../base/world.ts';
import { Log, type OpenedLog } from '../../log/log.ts';
import type { Segment } from '../../log/segments.ts';
import type { SealedBatch } from '../../log/stream.ts';
import type { Core } from './core.ts';
import type { ElapsedClock } from './elapsed-clock.ts';
import type { Recovery } from './recover.ts';

/** What the log tells the volume: filled in when the volume is put together. */
export class Hooks {
  onSegment: (segment: Segment) => void = () => undefined;
  onSeal: (sealed: SealedBatch) => void = () => undefined;
  onDurable: () => void = () => undefined;
  onReslot: (...args: Parameters<Core['references']['reslot']>) => void = () => undefined;
  onFail: () => void = () => undefined;
  /** The generation that the timeline knows already. */
  timed: Generation;
  /** Written in the window before this opening. */
  readonly payloadBytes: number;
  readonly trims: number;
  readonly trimmedBytes: number;

  constructor(recovery: Recovery) {
    this.timed = recovery.generation;
    this.payloadBytes = recovery.payloadBytes;
    this.trims = recovery.trims;
    this.trimmedBytes = recovery.trimmedBytes;
  }
}

/** The log begins where the recovery ended, and tells the hooks. */
export function startLog(
  opened: OpenedLog,
  recovery: Recovery,
  {
    options,
    world,
    clock,
    hooks,
  }: {
    readonly options: { readonly ringBytes: ByteCount };
    readonly world: World;
    readonly clock: ElapsedClock;
    readonly hooks: Hooks;
  },
): Log {
  return Log.start(opened, {
    ringBytes: options.ringBytes,
    timers: world.timers,
    now: () => ({ wallUs: clock.wallUs(), elapsedUs: clock.elapsedUs() }),
    generation: recovery.generation,
    lineage: recovery.lineage,
    opening: randomNumber(world.random),
    onSegment: (segment) => hooks.onSegment(segment),
    onSeal: (sealed) => hooks.onSeal(sealed),
    onDurable: () => hooks.onDurable(),
    onReslot: (from, moves) => hooks.onReslot(from, moves),
    onFail: () => hooks.onFail(),
  });
}

/** 48 random bits. */
export function randomNumber(random: World['random']): number {
  return random.bytes(6).reduce((sum, byte) => sum * 256 + byte, 0);
}
