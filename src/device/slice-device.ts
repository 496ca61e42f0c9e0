/**
 * A window of another device.
 *
 * Invariants:
 *   - Nothing outside the window is read or written.
 *   - The device below is not its own: `close` ends the window only, and `sync` covers all of the
 *     device below.
 */
import { assert } from '../base/assert.ts';
import { VarveError } from '../base/errors.ts';
import { byteOffset, type ByteCount, type ByteOffset } from '../base/units.ts';
import type { LowerDevice, SyncPoint } from './lower-device.ts';

export interface Slice {
  readonly offset: ByteOffset;
  readonly size: ByteCount;
  /** Of the device below, with the offset, if not given. */
  readonly name?: string;
}

export class SliceDevice implements LowerDevice {
  readonly name: string;
  readonly size: ByteCount;
  readonly #below: LowerDevice;
  readonly #offset: ByteOffset;
  #isOpen = true;

  constructor(below: LowerDevice, { offset, size, name }: Slice) {
    assert(offset >= 0 && offset + size <= below.size, `a slice lies inside ${below.name}`);
    this.name = name ?? `${below.name}+${offset}`;
    this.size = size;
    this.#below = below;
    this.#offset = offset;
  }

  async read(offset: ByteOffset, target: Uint8Array): Promise<void> {
    await this.#below.read(this.#place('read', offset, target.length), target);
  }

  async write(offset: ByteOffset, sources: readonly Uint8Array[]): Promise<void> {
    const length = sources.reduce((sum, source) => sum + source.length, 0);
    await this.#below.write(this.#place('write', offset, length), sources);
  }

  async punch(offset: ByteOffset, length: ByteCount): Promise<void> {
    await this.#below.punch(this.#place('punch', offset, length), length);
  }

  async sync(point: SyncPoint): Promise<void> {
    this.#checkOpen('sync');
    await this.#below.sync(point);
  }

  /** Not known of a part of a device: all of it. */
  async allocated(): Promise<ByteCount> {
    this.#checkOpen('space');
    return this.size;
  }

  async close(): Promise<void> {
    this.#isOpen = false;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #place(doing: string, offset: ByteOffset, length: number): ByteOffset {
    this.#checkOpen(doing);
    const isInside = offset >= 0 && length >= 0 && offset + length <= this.size;
    assert(isInside, `bytes ${offset} to ${offset + length} lie inside ${this.name}`);
    return byteOffset(this.#offset + offset);
  }

  #checkOpen(doing: string): void {
    if (!this.#isOpen) throw new VarveError('CLOSED', `${doing} of ${this.name}`);
  }
}
