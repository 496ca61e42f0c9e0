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

  readFault(name: string, offset: number, length: number): VarveError | undefined {
    if (!touches(this.#reads, offset, length)) return undefined;
    return new VarveError('DEVICE_IO', `${name}: read at ${offset}: EIO (simulated)`);
  }

  punchFault(name: string, offset: number, length: number): VarveError | undefined {
    if (!touches(this.#writes, offset, length)) return undefined;
    return new VarveError('DEVICE_IO', `${name}: punch at ${offset}: EIO (simulated)`);
  }

  writeFault(
    name: string,
    platter: Platter,
    offset: number,
    length: number,
  ): VarveError | undefined {
    if (touches(this.#writes, offset, length)) {
      return new VarveError('DEVICE_IO', `${name}: write at ${offset}: EIO (simulated)`);
    }
    if (this.allocatedBytesMax === undefined) return undefined;
    const more = platter.newBytes(offset, length);
    if (more === 0 || platter.allocatedBytes + more <= this.allocatedBytesMax) return undefined;
    return new VarveError('DISK_FULL', `${name}: write at ${offset}: ENOSPC (simulated)`);
  }

  takeSyncFault(point: SyncPoint): SyncFault | undefined {
    const at = this.#syncs.findIndex((fault) => fault.point === undefined || fault.point === point);
    return at < 0 ? undefined : this.#syncs.splice(at, 1)[0];
  }
}
