/** Between the log, which is there first, and the volume that listens to it. */
import type { Generation } from '../base/units.ts';
import type { Segment } from '../../log/segments.ts';
import type { SealedBatch } from '../../log/stream.ts';
import type { Core } from './core.ts';
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
