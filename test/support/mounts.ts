/**
 * A served disk in the kernel, without its nbd driver: nbdfuse makes a file of an export, a loop
 * device a disk of the file, and a file system is mounted from it.
 *
 * Invariant: what was attached here is detached when it is disposed of, in any state.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { temporaryDirectory } from './files.ts';
import { run, runToEnd } from './run.ts';

export type MountAccess = 'read' | 'write';

const ATTACH_MS = 10_000;

/** An export as a loop device. */
export class AttachedDisk implements AsyncDisposable {
  readonly #directory: ReturnType<typeof temporaryDirectory>;
  readonly #fuse: ChildProcess;
  readonly #access: MountAccess;
  #stderr = '';
  #loop: string | undefined;
  #ended = false;

  private constructor(uri: string, access: MountAccess) {
    this.#directory = temporaryDirectory();
    this.#access = access;
    mkdirSync(this.#mountPoint);
    const words = access === 'read' ? ['--readonly'] : [];
    this.#fuse = spawn('nbdfuse', [...words, this.#mountPoint, uri], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    this.#fuse.stderr?.on('data', (chunk: Buffer) => (this.#stderr += chunk.toString()));
    this.#fuse.on('exit', () => (this.#ended = true));
    this.#fuse.on('error', () => (this.#ended = true));
  }

  /** @throws Error with what nbdfuse or losetup said */
  static async attach(uri: string, access: MountAccess): Promise<AttachedDisk> {
    const disk = new AttachedDisk(uri, access);
    try {
      await disk.#attach();
      return disk;
    } catch (error) {
      await disk[Symbol.asyncDispose]();
      throw error;
    }
  }

  get #mountPoint(): string {
    return join(this.#directory.path, 'export');
  }

  /** The raw block device. */
  get device(): string {
    if (this.#loop === undefined) throw new Error('the disk is detached');
    return this.#loop;
  }

  async #attach(): Promise<void> {
    const file = join(this.#mountPoint, 'nbd');
    for (let waitedMs = 0; !isThere(file); waitedMs += 20) {
      if (this.#ended || waitedMs > ATTACH_MS) throw new Error(`nbdfuse: ${this.#stderr}`);
      await delay(20);
    }
    const words = this.#access === 'read' ? ['--read-only'] : [];
    this.#loop = (await run('losetup', ['--find', '--show', ...words, file])).trim();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const loop = this.#loop;
    this.#loop = undefined;
    if (loop !== undefined) await run('losetup', ['--detach', loop]);
    if (!this.#ended) await this.#unmount();
    this.#directory[Symbol.dispose]();
  }

  async #unmount(): Promise<void> {
    const gone = once(this.#fuse, 'exit');
    for (let tries = 0; tries < 50; tries++) {
      const { code } = await runToEnd('fusermount3', ['-u', this.#mountPoint]);
      if (code === 0) break;
      // The kernel lets go of a detached loop device a moment later.
      await delay(100);
    }
    const timer = setTimeout(() => this.#fuse.kill('SIGTERM'), ATTACH_MS);
    await gone;
    clearTimeout(timer);
  }
}

function isThere(path: string): boolean {
  return (statSync(path, { throwIfNoEntry: false })?.size ?? 0) > 0;
}

export interface MountOptions {
  readonly type: string;
  readonly options: string;
}

/** A mounted file system. */
export class Mount implements AsyncDisposable {
  readonly #directory = temporaryDirectory();
  #mounted = false;

  static async mount(device: string, { type, options }: MountOptions): Promise<Mount> {
    const mount = new Mount();
    try {
      await run('mount', ['-t', type, '-o', options, device, mount.path]);
      mount.#mounted = true;
      return mount;
    } catch (error) {
      mount.#directory[Symbol.dispose]();
      throw error;
    }
  }

  get path(): string {
    return this.#directory.path;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#mounted) return;
    await run('umount', [this.path]);
    this.#mounted = false;
    this.#directory[Symbol.dispose]();
  }
}

/** Works on the ext4 of a live export, mounted for that; what was done is synced. */
export async function withExt4<T>(uri: string, work: (path: string) => Promise<T>): Promise<T> {
  await using disk = await AttachedDisk.attach(uri, 'write');
  await using mount = await Mount.mount(disk.device, { type: 'ext4', options: 'noatime,discard' });
  const result = await work(mount.path);
  await run('sync', ['--file-system', mount.path]);
  return result;
}
