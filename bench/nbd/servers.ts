/**
 * The servers that are measured side by side: Varve and its peers, each on a Unix socket, on files
 * of the same folder. Only processes that were started here are ended, by their pid.
 */
import { spawn, execFile, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);
const LAUNCHER = fileURLToPath(new URL('../../../bin/varve', import.meta.url));

export interface Server {
  readonly name: string;
  readonly uri: string;
  /** Resident memory of the server now, and the most it had, in bytes. */
  memory(): { readonly now: number; readonly peak: number };
  stop(): Promise<void>;
}

export interface Place {
  readonly folder: string;
  readonly sizeBytes: number;
  readonly logBytes: number;
}

export type StartServer = (place: Place) => Promise<Server>;

export const SERVERS: Readonly<Record<string, StartServer>> = {
  varve: startVarve,
  'nbdkit-file': startNbdkitFile,
  'nbdkit-memory': startNbdkitMemory,
  'qemu-nbd-raw': (place) => startQemu(place, 'raw'),
  'qemu-nbd-qcow2': (place) => startQemu(place, 'qcow2'),
};

async function startVarve(place: Place): Promise<Server> {
  const dir = join(place.folder, 'varve');
  rmSync(dir, { recursive: true, force: true });
  const size = String(place.sizeBytes);
  const log = String(place.logBytes);
  await run(LAUNCHER, ['create', 'disk', '--size', size, '--log-size', log, '--dir', dir]);
  const child = spawn(LAUNCHER, ['serve', '--dir', dir], { stdio: ['ignore', 'pipe', 'inherit'] });
  const socket = join(dir, 'nbd.sock');
  return await serving('varve', child, socket, 'disk');
}

async function startNbdkitFile(place: Place): Promise<Server> {
  const file = join(place.folder, 'nbdkit.raw');
  await writeFile(file, '');
  await truncate(file, place.sizeBytes);
  return await startNbdkit(place, 'nbdkit-file', ['file', file]);
}

async function startNbdkitMemory(place: Place): Promise<Server> {
  return await startNbdkit(place, 'nbdkit-memory', ['memory', String(place.sizeBytes)]);
}

async function startNbdkit(place: Place, name: string, plugin: string[]): Promise<Server> {
  const socket = join(place.folder, `${name}.sock`);
  // nbdkit leaves its socket behind.
  rmSync(socket, { force: true });
  const child = spawn('nbdkit', ['-f', '-U', socket, ...plugin], { stdio: 'ignore' });
  return await serving(name, child, socket, '');
}

async function startQemu(place: Place, format: string): Promise<Server> {
  const file = join(place.folder, `qemu.${format}`);
  rmSync(file, { force: true });
  await run('qemu-img', ['create', '-q', '-f', format, file, String(place.sizeBytes)]);
  const socket = join(place.folder, `qemu-${format}.sock`);
  rmSync(socket, { force: true });
  const args = ['-k', socket, '-f', format, '--cache=writeback', '-t', '-e', '8', '-x', '', file];
  const child = spawn('qemu-nbd', args, { stdio: 'ignore' });
  return await serving(`qemu-nbd-${format}`, child, socket, '');
}

async function serving(
  name: string,
  child: ChildProcess,
  socket: string,
  exportName: string,
): Promise<Server> {
  const ended = once(child, 'exit');
  for (let i = 0; !existsSync(socket); i++) {
    if (i > 600 || child.exitCode !== null) throw new Error(`${name} did not start`);
    await setTimeout(50);
  }
  const uri = `nbd+unix:///${exportName}?socket=${socket}`;
  // The socket may exist a moment before it is listened to.
  for (let i = 0; ; i++) {
    const answers = await run('nbdinfo', ['--size', uri]).then(
      () => true,
      () => false,
    );
    if (answers) break;
    if (i > 100) throw new Error(`${name} does not answer`);
    await setTimeout(50);
  }
  return {
    name,
    uri,
    memory: () => memoryOf(child.pid ?? 0),
    stop: async () => {
      child.kill('SIGTERM');
      await ended;
    },
  };
}

function memoryOf(pid: number): { now: number; peak: number } {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const kibibytes = (field: string): number =>
    Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(status)?.[1] ?? 0);
  return { now: kibibytes('VmRSS') * 1024, peak: kibibytes('VmHWM') * 1024 };
}
