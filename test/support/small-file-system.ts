/** A small ext4 file system of its own on a loop device, which a test fills up and frees again. */
import { closeSync, fsyncSync, openSync, rmSync, statfsSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { loopDevice } from '../device/loop-device.ts';
import { systemCode } from '../../src/device/system-error.ts';
import { Mount } from './mounts.ts';
import { run } from './run.ts';

const CHUNK = Buffer.alloc(256 * 1024, 0xf1);
const BLOCK = 4096;

export class SmallFileSystem implements AsyncDisposable {
  readonly #loop: ReturnType<typeof loopDevice>;
  readonly #mount: Mount;

  private constructor(loop: ReturnType<typeof loopDevice>, mount: Mount) {
    this.#loop = loop;
    this.#mount = mount;
  }

  /** @param size - in bytes, of the device */
  static async make(size: number): Promise<SmallFileSystem> {
    const loop = loopDevice(size);
    try {
      // No reserve for root, who runs the test.
      await run('mkfs.ext4', ['-q', '-m', '0', '-b', String(BLOCK), loop.path]);
      const mount = await Mount.mount(loop.path, { type: 'ext4', options: 'noatime' });
      return new SmallFileSystem(loop, mount);
    } catch (error) {
      loop[Symbol.dispose]();
      throw error;
    }
  }

  get path(): string {
    return this.#mount.path;
  }

  /** Bytes that files can still take. */
  get freeBytes(): number {
    const { bavail, bsize } = statfsSync(this.path);
    return bavail * bsize;
  }

  /** Fills it up with a file of that name, but for `leaveBytes`. */
  fill(name: string, leaveBytes = 0): void {
    const file = openSync(join(this.path, name), 'w');
    try {
      for (;;) {
        const count = Math.min(CHUNK.length, this.freeBytes - leaveBytes);
        if (count < BLOCK) break;
        writeSync(file, CHUNK.subarray(0, count));
        fsyncSync(file);
      }
      if (leaveBytes === 0) for (;;) writeSync(file, CHUNK.subarray(0, BLOCK));
    } catch (error) {
      if (systemCode(error) !== 'ENOSPC') throw error;
    } finally {
      closeSync(file);
    }
  }

  remove(name: string): void {
    rmSync(join(this.path, name));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#mount[Symbol.asyncDispose]();
    this.#loop[Symbol.dispose]();
  }
}
