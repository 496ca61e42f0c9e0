/**
 * Memory that is taken away, as a blow to a server: the limit of its control group falls below what
 * it holds, step by step, until the kernel ends it or there is no way down.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { WriteMode } from '../../src/volume/report.ts';
import type { SeededRandom } from '../sim/random.ts';
import { WORK_MS_MAX, type Blow } from './kill-rounds.ts';
import type { MemoryGroup } from './memory-group.ts';
import type { Server } from './server.ts';

const ROOMY_BYTES = 2 * 1024 ** 3;
const STEP_MS = 20;
const SQUEEZE_MS_MAX = 1000;

export class MemorySqueeze implements Blow {
  readonly group: MemoryGroup;
  /** Servers that the kernel ended; others were killed with what little they had. */
  ended = 0;
  /** The lowest limit that was reached. */
  lowestBytes = Infinity;

  constructor(group: MemoryGroup) {
    this.group = group;
  }

  get launcher(): readonly string[] {
    return this.group.launcher;
  }

  async begin(): Promise<void> {
    this.group.limit(ROOMY_BYTES);
  }

  async strike(server: Server, random: SeededRandom): Promise<void> {
    await delay(random.between(20, WORK_MS_MAX));
    const until = performance.now() + SQUEEZE_MS_MAX;
    while (server.isRunning && performance.now() < until) {
      const bytes = this.group.usedBytes * 0.9;
      if (this.group.limit(bytes)) this.lowestBytes = Math.min(this.lowestBytes, bytes);
      await delay(STEP_MS);
    }
    if (!server.isRunning) this.ended += 1;
    this.group.limit(ROOMY_BYTES);
    await server.kill();
  }

  async strikeIdle(): Promise<void> {
    // Who has ended has lost nothing.
  }

  spares(mode: WriteMode): boolean {
    return mode !== 'back';
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.group[Symbol.asyncDispose]();
  }
}
