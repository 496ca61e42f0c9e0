/**
 * System calls that Node lacks: fallocate to punch holes, flock, mallopt. Through koffi where it is
 * installed (an optional dependency), else by the small programs of util-linux, which are given
 * our open file.
 *
 * Invariants:
 *   - What is not possible here is said (`unsupported`), never done in part or in silence.
 *   - Nothing blocks the event loop for longer than a system call that can't wait for a disk.
 */
import { spawn } from 'node:child_process';
import type koffiModule from 'koffi';
import type { KoffiFunc, LibraryHandle } from 'koffi';
import { VarveError } from '../base/errors.ts';
import type { ByteCount, ByteOffset } from '../base/units.ts';
import { fromSystemError, systemCode } from './system-error.ts';

/** `shared`: with other shared ones, which is how readers of a file keep its writers out. */
export type LockKind = 'exclusive' | 'shared';

/** `unsupported`: the range is as it was, and zeros are to be written instead. */
export type Punched = 'punched' | 'unsupported';

export interface Platform {
  /** How it is done: for messages and tests. */
  readonly means: 'koffi' | 'programs';
  /** The smallest range for which punching is worth its price. */
  readonly punchBytesMin: number;
  /**
   * Makes the range a hole, which reads as zeros; the file keeps its size.
   * @throws VarveError DEVICE_IO, DISK_FULL, PERMISSION
   */
  punchHole(fd: number, offset: ByteOffset, length: ByteCount): Promise<Punched>;
  /**
   * Takes the file's lock without waiting. It ends with the last copy of the descriptor, so also
   * with the process, however that ends.
   * @returns false when another opening holds it
   */
  lock(fd: number, kind: LockKind): Promise<boolean>;
  /**
   * From now on large buffers go back to the system when they are freed. Else the C library keeps
   * them, in pieces that the next ones do not fit, and the process holds far more than it uses.
   * @returns false where that can't be had
   */
  returnFreedBuffers(): boolean;
}

// Source: linux/falloc.h, sys/file.h.
const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;
const LOCK_SH = 1;
const LOCK_EX = 2;
const LOCK_NB = 4;
// Source: malloc.h of glibc. Setting it also ends that it grows by itself, up to 32 MiB.
const M_MMAP_THRESHOLD = -3;
const MMAP_BYTES_MIN = 128 * 1024;

/** What file systems and devices answer that can't punch, or not in such a place. */
const UNSUPPORTED: readonly string[] = ['EOPNOTSUPP', 'ENOSYS', 'EINVAL', 'ENODEV'];

type Fallocate = KoffiFunc<(fd: number, mode: number, offset: number, length: number) => number>;
type Flock = KoffiFunc<(fd: number, operation: number) => number>;
type Mallopt = KoffiFunc<(what: number, value: number) => number>;
type Koffi = typeof koffiModule;

/** An error as Node's own: with the name of its number. */
function systemError(koffi: Koffi, errno: number, call: string): Error {
  const entry = Object.entries(koffi.os.errno).find(([, number]) => number === errno);
  return Object.assign(new Error(`${call} failed, errno ${errno}`), {
    code: entry?.[0] ?? `errno ${errno}`,
  });
}

class KoffiPlatform implements Platform {
  readonly means = 'koffi';
  readonly punchBytesMin = 4096;
  readonly #koffi: Koffi;
  readonly #library: LibraryHandle;
  readonly #fallocate: Fallocate;
  readonly #flock: Flock;

  /** @throws Error when the C library has no such functions */
  constructor(koffi: Koffi) {
    const library = koffi.load(null);
    this.#koffi = koffi;
    this.#library = library;
    this.#fallocate = library.func('int fallocate(int fd, int mode, int64_t from, int64_t length)');
    this.#flock = library.func('int flock(int fd, int operation)');
  }

  /** On a thread of the pool: freeing many extents waits for the journal. */
  async punchHole(fd: number, offset: ByteOffset, length: ByteCount): Promise<Punched> {
    const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    const error = await new Promise<Error | undefined>((resolve, reject) => {
      this.#fallocate.async(fd, mode, offset, length, (failure: Error | null, result) => {
        if (failure !== null) reject(failure);
        else resolve(result === 0 ? undefined : this.#lastError('fallocate'));
      });
    });
    if (error === undefined) return 'punched';
    const code = systemCode(error);
    if (code === 'EINTR') return this.punchHole(fd, offset, length);
    if (code !== undefined && UNSUPPORTED.includes(code)) return 'unsupported';
    throw fromSystemError(error, `punching ${length} bytes at ${offset}`);
  }

  async lock(fd: number, kind: LockKind): Promise<boolean> {
    const operation = kind === 'shared' ? LOCK_SH : LOCK_EX;
    if (this.#flock(fd, operation | LOCK_NB) === 0) return true;
    const error = this.#lastError('flock');
    // EWOULDBLOCK is the same number, and which of the two names it has is open.
    if (['EAGAIN', 'EWOULDBLOCK'].includes(systemCode(error) ?? '')) return false;
    throw fromSystemError(error, 'locking');
  }

  returnFreedBuffers(): boolean {
    try {
      const mallopt: Mallopt = this.#library.func('int mallopt(int what, int value)');
      return mallopt(M_MMAP_THRESHOLD, MMAP_BYTES_MIN) === 1;
    } catch {
      return false;
    }
  }

  #lastError(call: string): Error {
    return systemError(this.#koffi, this.#koffi.errno(), call);
  }
}

interface ProgramEnd {
  /** Undefined when the program is not installed. */
  readonly status: number | undefined;
  readonly complaint: string;
}

/** Runs a program with `fd` as its descriptor 3. */
function runProgram(program: string, options: readonly string[], fd: number): Promise<ProgramEnd> {
  return new Promise((resolve) => {
    const child = spawn(program, options, {
      stdio: ['ignore', 'ignore', 'pipe', fd],
      env: { ...process.env, LC_ALL: 'C' },
    });
    let complaint = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      complaint += text;
    });
    child.on('error', () => {
      resolve({ status: undefined, complaint: `${program} is not installed` });
    });
    child.on('close', (status) => {
      resolve({ status: status ?? -1, complaint: complaint.trim() });
    });
  });
}

class ProgramPlatform implements Platform {
  readonly means = 'programs';
  /** Starting a program costs milliseconds: below this, zeros are written sooner. */
  readonly punchBytesMin = 1024 ** 2;

  async punchHole(fd: number, offset: ByteOffset, length: ByteCount): Promise<Punched> {
    const options = ['--punch-hole', '--offset', String(offset), '--length', String(length)];
    const { status, complaint } = await runProgram(
      'fallocate',
      [...options, '/proc/self/fd/3'],
      fd,
    );
    if (status === 0) return 'punched';
    // Only what is surely harmless: after an I/O error zeros would hide that something is wrong.
    const isFatal = /Input\/output error|No space|quota exceeded/i.test(complaint);
    if (!isFatal) return 'unsupported';
    throw new VarveError('DEVICE_IO', `punching ${length} bytes at ${offset}: ${complaint}`);
  }

  async lock(fd: number, kind: LockKind): Promise<boolean> {
    const { status, complaint } = await runProgram('flock', [`--${kind}`, '-n', '3'], fd);
    if (status === 0) return true;
    // flock(1) says a conflict by 1 and no word; anything else is no answer to rely on.
    if (status === 1 && complaint === '') return false;
    const help = 'locking needs the package koffi or the program flock of util-linux';
    throw new VarveError('DEVICE_IO', `${help}: ${complaint}`);
  }

  returnFreedBuffers(): boolean {
    return false;
  }
}

export function programPlatform(): Platform {
  return new ProgramPlatform();
}

/** @returns undefined where koffi is not installed, or has no binary for this system */
export async function koffiPlatform(): Promise<Platform | undefined> {
  try {
    const { default: koffi } = await import('koffi');
    return new KoffiPlatform(koffi);
  } catch {
    return undefined;
  }
}

let best: Promise<Platform> | undefined;

/** The best one there is; found once in a process. */
export function platform(): Promise<Platform> {
  best ??= koffiPlatform().then((found) => found ?? programPlatform());
  return best;
}
