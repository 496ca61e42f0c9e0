/**
 * A shell command as the judge of disks: each disk is an export of an NBD server of ours on a Unix
 * socket, and, where nbdfuse is there, a file.
 *
 * Invariants:
 *   - What is started here is ended here, by its process id; a command with all its children, as a
 *     process group of its own.
 *   - Sockets and mounts lie in one temporary directory, which is gone afterwards.
 *   - Nothing is removed through a mount: what a check left mounted there is unmounted first.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { access, constants, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { VarveError } from '../base/errors.ts';
import type { Timers } from '../base/world.ts';
import type {
  BlockDevice,
  ExportDirectory,
  ExportListing,
  OpenExport,
} from '../device/block-device.ts';
import { fromSystemError, systemCode } from '../device/system-error.ts';
import type { Verdict } from './explore-report.ts';
import type { Judge } from './explorer.ts';
import { nodeFrontEnd } from './node-front-end.ts';
import type { FrontEnd } from './server.ts';
import { unixUri } from './uris.ts';

export type DeviceFile = 'auto' | 'nbdfuse' | 'none';

export interface JudgeOptions {
  /** For /bin/sh. */
  readonly command: string;
  readonly timeoutMs: number;
  readonly deviceFile: DeviceFile;
  readonly timers: Timers;
}

const OUTPUT_BYTES_MAX = 4096;
/** Between SIGTERM and SIGKILL. */
const TERM_MS = 2000;
const ATTACH_MS = 10_000;
const POLL_MS = 3;
/** The shell did not find the command, or may not run it. */
const EXIT_UNUSABLE = new Set([126, 127]);
const FUSE_DEVICE = '/dev/fuse';

/** The disks that are being judged, by name. */
class JudgedDisks implements ExportDirectory {
  readonly disks = new Map<string, BlockDevice>();

  list(): Promise<readonly ExportListing[]> {
    const names = [...this.disks.keys()];
    return Promise.resolve(names.map((name) => ({ name, description: 'a state of a disk' })));
  }

  open(name: string): Promise<OpenExport> {
    const disk = this.disks.get(name);
    if (disk === undefined) return Promise.reject(new VarveError('VOLUME_UNKNOWN', `"${name}"`));
    return Promise.resolve({
      device: disk,
      canonicalName: name,
      description: 'a state that a power cut may leave; what is written to it is forgotten',
      multipleConnections: true,
    });
  }
}

/** The end of what a process prints. */
class Tail {
  #text = Buffer.alloc(0);

  readonly add = (piece: Buffer): void => {
    this.#text = Buffer.concat([this.#text, piece]).subarray(-OUTPUT_BYTES_MAX);
  };

  get text(): string {
    return this.#text.toString();
  }
}

/** Settles when the process has ended, or could not be started. */
function ended(child: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    child.once('error', () => resolve());
    child.once('exit', () => resolve());
  });
}

async function isFuseThere(): Promise<boolean> {
  const folders = (process.env['PATH'] ?? '').split(delimiter);
  const found = await Promise.all(
    ['nbdfuse', 'fusermount3'].map(async (program) => {
      const tries = folders.map((folder) => access(join(folder, program), constants.X_OK));
      return (await Promise.allSettled(tries)).some(({ status }) => status === 'fulfilled');
    }),
  );
  const device = access(FUSE_DEVICE, constants.R_OK | constants.W_OK);
  return (
    found.every(Boolean) &&
    (await device.then(
      () => true,
      () => false,
    ))
  );
}

export class NodeJudge implements Judge {
  /** Whether a check finds the disk as a file, too. */
  readonly hasFile: boolean;
  readonly #options: JudgeOptions;
  readonly #folder: string;
  readonly #exports: JudgedDisks;
  readonly #frontEnd: FrontEnd;
  #count = 0;

  private constructor(
    options: JudgeOptions,
    parts: { folder: string; exports: JudgedDisks; frontEnd: FrontEnd; hasFile: boolean },
  ) {
    this.#options = options;
    this.#folder = parts.folder;
    this.#exports = parts.exports;
    this.#frontEnd = parts.frontEnd;
    this.hasFile = parts.hasFile;
  }

  /** @throws VarveError CHECK_BAD when nbdfuse was asked for and is not there; ADDRESS_BAD */
  static async start(options: JudgeOptions): Promise<NodeJudge> {
    const { deviceFile, timers } = options;
    const hasFile = deviceFile !== 'none' && (await isFuseThere());
    if (deviceFile === 'nbdfuse' && !hasFile) {
      throw new VarveError('CHECK_BAD', `nbdfuse, fusermount3 and ${FUSE_DEVICE} are needed`);
    }
    const folder = await mkdtemp(join(tmpdir(), 'varve-explore-'));
    const exports = new JudgedDisks();
    const frontEnd = nodeFrontEnd(exports, timers);
    try {
      await frontEnd.listenUnix(join(folder, 'nbd.sock'));
    } catch (error) {
      await rm(folder, { recursive: true });
      throw error;
    }
    return new NodeJudge(options, { folder, exports, frontEnd, hasFile });
  }

  async check(device: BlockDevice, signal: AbortSignal): Promise<Verdict> {
    const name = `state-${++this.#count}`;
    const uri = unixUri(name, join(this.#folder, 'nbd.sock'));
    const scratch = join(this.#folder, name);
    this.#exports.disks.set(name, device);
    try {
      await mkdir(scratch);
      const env = { ...process.env, VARVE_URI: uri, VARVE_SCRATCH: scratch };
      return await this.#offer(scratch, env, signal);
    } catch (error) {
      if (systemCode(error) === undefined) throw error;
      throw fromSystemError(error, 'offering a state to the check');
    } finally {
      this.#exports.disks.delete(name);
    }
  }

  /** Runs the check with the file, where there is one, and takes both away again. */
  async #offer(scratch: string, env: NodeJS.ProcessEnv, signal: AbortSignal): Promise<Verdict> {
    const file = `${scratch}.disk`;
    const fuse = this.hasFile ? await attach(file, env['VARVE_URI'] ?? '') : undefined;
    try {
      return await this.#run(fuse === undefined ? env : { ...env, VARVE_DEVICE: file }, signal);
    } finally {
      try {
        await removeFolder(scratch);
      } finally {
        if (fuse !== undefined) await detach(file, fuse);
      }
    }
  }

  /** Idempotent; no check runs any more. */
  async close(): Promise<void> {
    await this.#frontEnd.close();
    await removeFolder(this.#folder);
  }

  async #run(env: NodeJS.ProcessEnv, signal: AbortSignal): Promise<Verdict> {
    const child = spawn('/bin/sh', ['-c', this.#options.command], {
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    });
    const tail = new Tail();
    child.stdout.on('data', tail.add);
    child.stderr.on('data', tail.add);
    let isLate = false;
    let killing: NodeJS.Timeout | undefined;
    const end = (): void => {
      killGroup(child, 'SIGTERM');
      killing ??= setTimeout(() => killGroup(child, 'SIGKILL'), TERM_MS);
    };
    const timer = setTimeout(() => {
      isLate = true;
      end();
    }, this.#options.timeoutMs);
    signal.addEventListener('abort', end);
    if (signal.aborted) end();
    const closed = once(child, 'close');
    closed.catch(() => undefined);
    await ended(child);
    clearTimeout(timer);
    clearTimeout(killing);
    signal.removeEventListener('abort', end);
    // What it left behind in its group ends with it, and with that its output.
    killGroup(child, 'SIGKILL');
    await Promise.race([closed, delay(TERM_MS, undefined, { ref: false })]);
    const exitCode = child.exitCode ?? undefined;
    if (child.pid === undefined || (exitCode !== undefined && EXIT_UNUSABLE.has(exitCode))) {
      throw new VarveError('CHECK_BAD', `exit code ${exitCode ?? 'none'}: ${tail.text.trim()}`);
    }
    return { isGood: exitCode === 0 && !isLate, exitCode, isLate, output: tail.text };
  }
}

/** The command and whatever it started, unless that made a group of its own. */
function killGroup({ pid }: ChildProcess, signal: NodeJS.Signals): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, signal);
  } catch {
    // All of it has ended.
  }
}

/** Mount points in a folder, the last mounted first; none where the system does not tell. */
async function mountsIn(folder: string): Promise<readonly string[]> {
  const text = await readFile('/proc/self/mountinfo', 'utf8').catch(() => '');
  const points = text.split('\n').map((line) => line.split(' ')[4] ?? '');
  const octal = /\\([0-7]{3})/g;
  return points
    .map((point) =>
      point.replace(octal, (_, code: string) => String.fromCharCode(parseInt(code, 8))),
    )
    .filter((point) => point.startsWith(`${folder}/`))
    .toReversed();
}

/** @throws VarveError CHECK_BAD when something stays mounted in it; it is left as it is then */
async function removeFolder(folder: string): Promise<void> {
  for (const point of await mountsIn(folder)) {
    await ended(spawn('umount', ['--lazy', point], { stdio: 'ignore' }));
  }
  const [left] = await mountsIn(folder);
  if (left !== undefined) throw new VarveError('CHECK_BAD', `it left a mount at ${left}`);
  await rm(folder, { recursive: true, force: true });
}

interface Fuse {
  readonly child: ChildProcess;
  readonly ended: Promise<void>;
}

/** The export as a file; there when this settles. */
async function attach(file: string, uri: string): Promise<Fuse> {
  await writeFile(file, '');
  // A group of its own: a person's Ctrl-C is ours to handle, and ends the check first.
  const child = spawn('nbdfuse', [file, uri], {
    stdio: ['ignore', 'ignore', 'pipe'],
    detached: true,
  });
  const tail = new Tail();
  child.stderr.on('data', tail.add);
  const fuse = { child, ended: ended(child) };
  let isOver = false;
  void fuse.ended.then(() => (isOver = true));
  for (let waitedMs = 0; (await stat(file)).size === 0; waitedMs += POLL_MS) {
    if (isOver || waitedMs > ATTACH_MS) {
      await detach(file, fuse);
      throw new VarveError('CHECK_BAD', `nbdfuse does not start: ${tail.text.trim()}`);
    }
    await delay(POLL_MS);
  }
  return fuse;
}

/** Unmounts, waits for nbdfuse, and removes the file. */
async function detach(file: string, fuse: Fuse): Promise<void> {
  for (const words of [['-u'], ['-u'], ['-u', '-z']]) {
    if (fuse.child.exitCode !== null || fuse.child.signalCode !== null) break;
    const unmount = spawn('fusermount3', [...words, file], { stdio: 'ignore' });
    await ended(unmount);
    if (unmount.exitCode === 0) break;
    // Something that the check left behind may hold it a moment longer.
    await delay(100);
  }
  const isGone = await Promise.race([
    fuse.ended.then(() => true),
    delay(TERM_MS, false, { ref: false }),
  ]);
  if (!isGone) fuse.child.kill('SIGKILL');
  await fuse.ended;
  await rm(file, { force: true });
}
