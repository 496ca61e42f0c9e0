/** Faults of a simulated disk, planned by a test; the disk asks here before each operation. */
import { VarveError } from '../../src/base/errors.ts';
import type { SyncPoint } from '../../src/device/lower-device.ts';
import type { Platter } from './platter.ts';

export interface FaultRange {
  readonly offset: number;
  readonly length: number;
}

export interface SyncFault {
  /** What the sync covered is never durable, though a later sync succeeds: the page cache forgot. */
  readonly dropDirty: boolean;
  /** With `dropDirty`: readers see the old content from now on. Else not before a power cut. */
  readonly evict?: boolean;
  /** Only a sync for this reason; the next one if not given. */
  readonly point?: SyncPoint;
}

/** What a write or punch that lied was about. */
export interface LiedWrite {
  readonly offset: number;
  readonly length: number;
  /** What should have been there afterwards: bytes, or zeros when it was a punch. */
  readonly bytes: Uint8Array;
  /** Where it went instead; undefined: nowhere. */
  readonly astray: number | undefined;
}

/** A write or punch that claims success: nothing arrives, or it arrives elsewhere. */
export interface WriteLie {
  /** Undefined: lost. Else the bytes land so many bytes further on; clamped into the disk. */
  readonly shift?: number;
  /** Called before the lie takes effect. */
  readonly told: (lie: LiedWrite) => void;
}

/** A read that claims success with the bytes of another place. */
export interface ReadLie {
  readonly shift: number;
  readonly told: (lie: { readonly offset: number; readonly length: number }) => void;
}

function touches(ranges: ReadonlySet<FaultRange>, offset: number, length: number): boolean {
  for (const range of ranges) {
    if (offset < range.offset + range.length && range.offset < offset + length) return true;
  }
  return false;
}

function added<T>(set: Set<T>, value: T): () => void {
  set.add(value);
  return () => {
    set.delete(value);
  };
}

export class DiskFaults {
  readonly #reads = new Set<FaultRange>();
  readonly #writes = new Set<FaultRange>();
  readonly #syncs: SyncFault[] = [];
  readonly #writeLies: WriteLie[] = [];
  readonly #readLies: ReadLie[] = [];
  /** Told of each write and punch that arrives where it should. */
  watch: ((offset: number, length: number) => void) | undefined;
  /** The device has gone: every operation fails. */
  isGone = false;
  /** Each operation takes so many times as long. */
  slowness = 1;
  /** Bytes of pages that the disk takes; unlimited while undefined. */
  allocatedBytesMax: number | undefined;

  failRead(range: FaultRange): () => void {
    return added(this.#reads, { ...range });
  }

  failWrite(range: FaultRange): () => void {
    return added(this.#writes, { ...range });
  }

  failNextSync(fault: SyncFault): void {
    this.#syncs.push(fault);
  }

  lieOnWrite(lie: WriteLie): void {
    this.#writeLies.push(lie);
  }

  lieOnRead(lie: ReadLie): void {
    this.#readLies.push(lie);
  }

  takeWriteLie(): WriteLie | undefined {
    return this.#writeLies.shift();
  }

  takeReadLie(): ReadLie | undefined {
    return this.#readLies.shift();
  }

  /** What is planned and has not happened never will; the disk is as good as new. */
  clear(): void {
    this.#reads.clear();
    this.#writes.clear();
    this.#syncs.length = 0;
    this.#writeLies.length = 0;
    this.#readLies.length = 0;
    this.isGone = false;
    this.slowness = 1;
    this.allocatedBytesMax = undefined;
  }

  readFault(name: string, offset: number, length: number): VarveError | undefined {
    if (!this.isGone && !touches(this.#reads, offset, length)) return undefined;
    return new VarveError('DEVICE_IO', `${name}: read at ${offset}: EIO (simulated)`);
  }

  punchFault(name: string, offset: number, length: number): VarveError | undefined {
    if (!this.isGone && !touches(this.#writes, offset, length)) return undefined;
    return new VarveError('DEVICE_IO', `${name}: punch at ${offset}: EIO (simulated)`);
  }

  writeFault(
    name: string,
    platter: Platter,
    offset: number,
    length: number,
  ): VarveError | undefined {
    if (this.isGone || touches(this.#writes, offset, length)) {
      return new VarveError('DEVICE_IO', `${name}: write at ${offset}: EIO (simulated)`);
    }
    if (this.allocatedBytesMax === undefined) return undefined;
    const more = platter.newBytes(offset, length);
    if (more === 0 || platter.allocatedBytes + more <= this.allocatedBytesMax) return undefined;
    return new VarveError('DISK_FULL', `${name}: write at ${offset}: ENOSPC (simulated)`);
  }

  takeSyncFault(point: SyncPoint): SyncFault | undefined {
    if (this.isGone) return { dropDirty: false };
    const at = this.#syncs.findIndex((fault) => fault.point === undefined || fault.point === point);
    return at < 0 ? undefined : this.#syncs.splice(at, 1)[0];
  }
}
