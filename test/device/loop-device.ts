/** A loop device: a real raw block device over a file, where the machine lets us have one. */
import { execFileSync } from 'node:child_process';
import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { temporaryDirectory } from '../support/files.ts';

export interface LoopDevice extends Disposable {
  readonly path: string;
  readonly backingFile: string;
}

/** @throws Error with the reason when there can be none */
export function loopDevice(size: number): LoopDevice {
  const directory = temporaryDirectory();
  const backingFile = join(directory.path, 'backing');
  try {
    writeFileSync(backingFile, '');
    truncateSync(backingFile, size);
    const output = execFileSync('losetup', ['--find', '--show', backingFile], { stdio: 'pipe' });
    const path = output.toString().trim();
    return {
      path,
      backingFile,
      [Symbol.dispose](): void {
        execFileSync('losetup', ['--detach', path]);
        directory[Symbol.dispose]();
      },
    };
  } catch (error) {
    directory[Symbol.dispose]();
    throw error;
  }
}

/** Undefined when loop devices work here, else why not. */
export function loopDeviceObstacle(): string | undefined {
  try {
    loopDevice(1024 ** 2)[Symbol.dispose]();
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message.trim() : String(error);
  }
}
