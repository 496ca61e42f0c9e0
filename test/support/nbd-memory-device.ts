/** A device in memory for the tests of the NBD server: synchronous, or with faults and delays. */
import { VarveError } from '../../src/base/errors.ts';
import { byteCount, type ByteCount, type ByteOffset } from '../../src/base/units.ts';
import {
  STATE_HOLE,
  STATE_ZERO,
  type BlockDevice,
  type Done,
  type ExportDirectory,
  type ExportListing,
  type OpenExport,
  type StatusRun,
  type WriteOptions,
  type ZeroOptions,
} from '../../src/device/block-device.ts';

export interface MemoryDeviceOptions {
  readonly readOnly?: boolean;
  readonly requestBytesMax?: number;
}

/** What was asked of a device, in order. */
export interface Call {
  readonly kind: 'read' | 'write' | 'trim' | 'zero' | 'flush' | 'cache' | 'status' | 'close';
  readonly offset: number;
  readonly length: number;
  readonly fua: boolean;
  readonly allocate: boolean;
}

const GRAIN = 4096;

export class MemoryDevice implements BlockDevice {
  readonly size: ByteCount;
  readonly readOnly: boolean;
  readonly requestBytesMax: ByteCount;
  readonly bytes: Buffer;
  readonly #allocated: Uint8Array;
  /** Undefined: calls are not kept. */
  calls: Call[] | undefined;
  openCount = 0;
  /** Called before each request; throws or rejects to make it fail, awaits to delay it. */
  before: (call: Call) => Done = () => undefined;

  constructor(size: number, options: MemoryDeviceOptions = {}) {
    this.size = byteCount(size);
    this.readOnly = options.readOnly ?? false;
    this.requestBytesMax = byteCount(options.requestBytesMax ?? 32 * 2 ** 20);
    this.bytes = Buffer.alloc(size);
    this.#allocated = new Uint8Array(Math.ceil(size / GRAIN));
  }

  #do(call: Partial<Call> & Pick<Call, 'kind'>, work: () => void, by?: MemorySession): Done {
    const whole = { offset: 0, length: 0, fua: false, allocate: false, ...call };
    this.calls?.push(whole);
    const wait = this.before(whole);
    if (wait !== undefined) {
      return wait.then(() => {
        if (by?.isGone === true) throw new VarveError('CLOSED', 'its client is gone');
        work();
      });
    }
    work();
    return undefined;
  }

  #mark(offset: number, length: number, value: 0 | 1): void {
    const first = value === 1 ? Math.floor(offset / GRAIN) : Math.ceil(offset / GRAIN);
    const end = offset + length;
    const isTail = end === this.size || value === 1;
    const last = isTail ? Math.ceil(end / GRAIN) : Math.floor(end / GRAIN);
    if (last > first) this.#allocated.fill(value, first, last);
  }

  read(offset: ByteOffset, target: Uint8Array): Done {
    return this.#do({ kind: 'read', offset, length: target.length }, () => {
      this.bytes.copy(target, 0, offset, offset + target.length);
    });
  }

  write(offset: ByteOffset, source: Uint8Array, { fua }: WriteOptions, by?: MemorySession): Done {
    const work = (): void => {
      this.bytes.set(source, offset);
      this.#mark(offset, source.length, 1);
    };
    return this.#do({ kind: 'write', offset, length: source.length, fua }, work, by);
  }

  trim(offset: ByteOffset, length: ByteCount, { fua }: WriteOptions, by?: MemorySession): Done {
    const work = (): void => {
      const start = Math.ceil(offset / GRAIN) * GRAIN;
      const end = Math.floor((offset + length) / GRAIN) * GRAIN;
      if (end <= start) return;
      this.bytes.fill(0, start, end);
      this.#mark(start, end - start, 0);
    };
    return this.#do({ kind: 'trim', offset, length, fua }, work, by);
  }

  zero(
    offset: ByteOffset,
    length: ByteCount,
    { fua, allocate }: ZeroOptions,
    by?: MemorySession,
  ): Done {
    const work = (): void => {
      this.bytes.fill(0, offset, offset + length);
      this.#mark(offset, length, allocate ? 1 : 0);
    };
    return this.#do({ kind: 'zero', offset, length, fua, allocate }, work, by);
  }

  flush(): Done {
    return this.#do({ kind: 'flush' }, () => undefined);
  }

  cache(offset: ByteOffset, scratch: Uint8Array): Done {
    return this.#do({ kind: 'cache', offset, length: scratch.length }, () => undefined);
  }

  contexts(query: string | undefined): Promise<readonly string[]> {
    const all = ['base:allocation', 'qemu:dirty-bitmap:monday', 'varve:space'];
    if (query === undefined) return Promise.resolve(all);
    const isWild = query.endsWith(':');
    return Promise.resolve(
      all.filter((name) => (isWild ? name.startsWith(query) : name === query)),
    );
  }

  async status(
    context: string,
    offset: ByteOffset,
    length: ByteCount,
    runsMax: number,
  ): Promise<readonly StatusRun[]> {
    await this.#do({ kind: 'status', offset, length }, () => undefined);
    if (context !== 'base:allocation') return [{ length, flags: 0 }];
    const runs: { length: ByteCount; flags: number }[] = [];
    const end = offset + length;
    for (let at: number = offset; at < end;) {
      const next = Math.min(end, (Math.floor(at / GRAIN) + 1) * GRAIN);
      const flags = this.#allocated[Math.floor(at / GRAIN)] === 1 ? 0 : STATE_HOLE | STATE_ZERO;
      const last = runs.at(-1);
      if (last?.flags === flags) last.length = byteCount(last.length + next - at);
      else if (runs.length === runsMax) break;
      else runs.push({ length: byteCount(next - at), flags });
      at = next;
    }
    return runs;
  }

  close(): Promise<void> {
    this.calls?.push({ kind: 'close', offset: 0, length: 0, fua: false, allocate: false });
    this.openCount -= 1;
    return Promise.resolve();
  }
}

/** The device as one client has it: what it asked for and is not done ends with it. */
class MemorySession implements BlockDevice {
  readonly size: ByteCount;
  readonly readOnly: boolean;
  readonly requestBytesMax: ByteCount;
  readonly #device: MemoryDevice;
  isGone = false;

  constructor(device: MemoryDevice) {
    this.#device = device;
    this.size = device.size;
    this.readOnly = device.readOnly;
    this.requestBytesMax = device.requestBytesMax;
  }

  read(offset: ByteOffset, target: Uint8Array): Done {
    return this.#device.read(offset, target);
  }

  write(offset: ByteOffset, source: Uint8Array, options: WriteOptions): Done {
    return this.#device.write(offset, source, options, this);
  }

  trim(offset: ByteOffset, length: ByteCount, options: WriteOptions): Done {
    return this.#device.trim(offset, length, options, this);
  }

  zero(offset: ByteOffset, length: ByteCount, options: ZeroOptions): Done {
    return this.#device.zero(offset, length, options, this);
  }

  flush(): Done {
    return this.#device.flush();
  }

  cache(offset: ByteOffset, scratch: Uint8Array): Done {
    return this.#device.cache(offset, scratch);
  }

  contexts(query: string | undefined): Promise<readonly string[]> {
    return this.#device.contexts(query);
  }

  status(
    context: string,
    offset: ByteOffset,
    length: ByteCount,
    runsMax: number,
  ): Promise<readonly StatusRun[]> {
    return this.#device.status(context, offset, length, runsMax);
  }

  abandon(): void {
    this.isGone = true;
  }

  close(): Promise<void> {
    return this.#device.close();
  }
}

/** Devices by name. The name `NAME@latest` opens NAME too, under its canonical name `NAME`. */
export class MemoryDirectory implements ExportDirectory {
  readonly devices: Map<string, MemoryDevice>;
  multipleConnections = true;
  descriptions = 'a device in memory';
  opens = 0;

  constructor(devices: Readonly<Record<string, MemoryDevice>>) {
    this.devices = new Map(Object.entries(devices));
  }

  list(): Promise<readonly ExportListing[]> {
    const names = [...this.devices.keys()];
    return Promise.resolve(names.map((name) => ({ name, description: this.descriptions })));
  }

  open(name: string): Promise<OpenExport> {
    const canonicalName =
      name === '' && this.devices.size === 1
        ? (this.devices.keys().next().value ?? '')
        : name.replace(/@latest$/, '');
    const opened = this.devices.get(canonicalName);
    if (opened === undefined) return Promise.reject(new VarveError('VOLUME_UNKNOWN', name));
    opened.openCount += 1;
    const device = new MemorySession(opened);
    this.opens += 1;
    const { descriptions: description, multipleConnections } = this;
    return Promise.resolve({ device, canonicalName, description, multipleConnections });
  }
}
