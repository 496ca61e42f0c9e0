/** A file of given bytes that is only read; what is asked for beyond its end is a bug. */
import { assert } from '../../src/base/assert.ts';
import { VarveError } from '../../src/base/errors.ts';
import { byteCount, type ByteCount } from '../../src/base/units.ts';
import type { LowerDevice, OpenDevice } from '../../src/device/lower-device.ts';

export class BufferDevice implements LowerDevice {
  readonly name: string;
  readonly size: ByteCount;
  readonly #bytes: Uint8Array;
  isOpen = true;
  bytesRead = 0;

  constructor(name: string, bytes: Uint8Array) {
    this.name = name;
    this.size = byteCount(bytes.length);
    this.#bytes = bytes;
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    assert(this.isOpen, 'what is read is open');
    const isInside = Number.isSafeInteger(offset) && offset >= 0;
    assert(isInside && offset + target.length <= this.size, 'a read lies inside the file');
    target.set(this.#bytes.subarray(offset, offset + target.length));
    this.bytesRead += target.length;
  }

  write(): never {
    throw new VarveError('READ_ONLY', this.name);
  }

  punch(): never {
    throw new VarveError('READ_ONLY', this.name);
  }

  sync(): never {
    throw new VarveError('READ_ONLY', this.name);
  }

  allocated(): Promise<ByteCount> {
    return Promise.resolve(this.size);
  }

  close(): Promise<void> {
    this.isOpen = false;
    return Promise.resolve();
  }
}

/** Files by path, and what was opened of them. */
export class BufferFiles {
  readonly files: ReadonlyMap<string, Uint8Array>;
  readonly opened: BufferDevice[] = [];

  constructor(files: Readonly<Record<string, Uint8Array>>) {
    this.files = new Map(Object.entries(files));
  }

  readonly openDevice: OpenDevice = async (path) => {
    const bytes = this.files.get(path);
    if (bytes === undefined) throw new VarveError('FILE_BAD', `opening ${path}: ENOENT`);
    const device = new BufferDevice(path, bytes);
    this.opened.push(device);
    return device;
  };
}
