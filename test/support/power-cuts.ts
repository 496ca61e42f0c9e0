/**
 * Power cuts as a blow to a server: log, final storage and sums of the volume `disk` are moved to
 * disks that forget, the server works on them through the kernel, and a cut takes what was not
 * flushed.
 *
 * The moment of a cut is counted in what a disk is asked for, so that it hits the short steps of a
 * round or a recovery too; or it is one of time.
 */
import { mkdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { WriteMode } from '../../src/volume/report.ts';
import type { SeededRandom } from '../sim/random.ts';
import { FickleDisks, type FlushHonesty, type Remains } from './fickle-disks.ts';
import { WORK_MS_MAX, type Blow } from './kill-rounds.ts';
import type { Server } from './server.ts';

/** Of the volume's folder. */
const FILES = { log: 'log', final: 'final.raw', sums: 'final.sums' } as const;
const ASKED_MAX = 300;

export interface PowerCutOptions {
  readonly random: SeededRandom;
  readonly flushes?: FlushHonesty;
  readonly remains?: Remains;
}

export class PowerCuts implements Blow {
  readonly disks: FickleDisks;

  private constructor(disks: FickleDisks) {
    this.disks = disks;
  }

  /** @param directory - with the volume `disk`, which nobody has open */
  static async install(directory: string, options: PowerCutOptions): Promise<PowerCuts> {
    const folder = join(directory, 'disk');
    const mounts = join(directory, 'fickle-disks');
    mkdirSync(mounts);
    const contents = Object.fromEntries(
      Object.entries(FILES).map(([name, file]) => [name, readFileSync(join(folder, file))]),
    );
    const disks = new FickleDisks({ ...options, directory: mounts, contents });
    for (const [name, file] of Object.entries(FILES)) {
      rmSync(join(folder, file));
      symlinkSync(disks.path(name), join(folder, file));
    }
    return new PowerCuts(disks);
  }

  async begin(): Promise<void> {
    await this.disks.unmount();
    await this.disks.mount();
  }

  async strike(server: Server, random: SeededRandom): Promise<void> {
    const disk = random.pick(['any', 'any', 'log', 'final', 'sums']);
    const asked = this.disks.cutAt(random.between(1, ASKED_MAX), disk);
    const most = delay(random.between(WORK_MS_MAX / 2, WORK_MS_MAX));
    await Promise.race([asked, most]);
    this.disks.cut();
    // What waits for a disk that says nothing more is ended when nbdfuse is.
    const gone = server.kill();
    await this.disks.unmount();
    await gone;
  }

  async strikeIdle(): Promise<void> {
    this.disks.cut();
    await this.disks.unmount();
  }

  spares(mode: WriteMode): boolean {
    return mode === 'through';
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.disks[Symbol.asyncDispose]();
  }
}
