/**
 * Memory for payloads and replies. Small regions are cut one after the other from slabs, so that
 * replies which are ready in order lie side by side and leave in one piece; large ones have a
 * buffer of their own. Slabs and buffers are used again, so that what the budget says is also what
 * the process has.
 *
 * Invariants:
 *   - A store's bytes are in nobody else's hands until each pin on it was released.
 *   - All that a connection holds stands in its account; a connection without requests holds none.
 */
import { assert } from '../base/assert.ts';
import { HEADERS_BYTES_MAX, SLAB_BYTES, SLAB_REGION_BYTES_MAX, SPARE_BYTES_MAX } from './limits.ts';
import type { Account } from './budget.ts';

/** Bytes with a count of users; `release` is called once for each `take`. */
export class Store {
  readonly bytes: Buffer;
  /** What of the account this store has. */
  readonly charge: number;
  readonly #home: Memory;
  used = 0;
  pins = 0;

  constructor(home: Memory, bytes: Buffer, charge: number) {
    this.#home = home;
    this.bytes = bytes;
    this.charge = charge;
  }

  release(): void {
    this.pins -= 1;
    assert(this.pins >= 0, 'a pin is released once');
    if (this.pins === 0) this.#home.unpinned(this);
  }
}

/** Buffers waiting for their next use; one for all connections of a server. */
export class Spares {
  readonly #slabs: Buffer[] = [];
  readonly #large = new Map<number, Buffer[]>();
  #bytes = 0;

  slab(): Buffer {
    const slab = this.#slabs.pop();
    if (slab === undefined) return Buffer.allocUnsafeSlow(SLAB_BYTES);
    this.#bytes -= SLAB_BYTES;
    return slab;
  }

  /** At least `bytes` long. */
  large(bytes: number): Buffer {
    const size = sizeClass(bytes);
    const buffer = this.#large.get(size)?.pop();
    if (buffer === undefined) return Buffer.allocUnsafeSlow(size);
    this.#bytes -= size;
    return buffer;
  }

  keep(buffer: Buffer): void {
    if (this.#bytes + buffer.length > SPARE_BYTES_MAX) return;
    this.#bytes += buffer.length;
    if (buffer.length === SLAB_BYTES) {
      this.#slabs.push(buffer);
      return;
    }
    const list = this.#large.get(buffer.length);
    if (list === undefined) this.#large.set(buffer.length, [buffer]);
    else list.push(buffer);
  }
}

/** 32 sizes to each power of two: little more than was asked, and few kinds to keep. */
function sizeClass(bytes: number): number {
  const step = Math.max(4096, 2 ** (Math.floor(Math.log2(bytes)) - 5));
  const size = Math.ceil(bytes / step) * step;
  return size === SLAB_BYTES ? size + step : size;
}

export class Memory {
  readonly #account: Account;
  readonly #spares: Spares;
  #current: Store | undefined;

  constructor(account: Account, spares: Spares) {
    this.#account = account;
    this.#spares = spares;
  }

  /** What has to be reserved for a region of `bytes` when no slab has room for it. */
  static reservation(bytes: number): number {
    return bytes <= SLAB_REGION_BYTES_MAX ? SLAB_BYTES : sizeClass(bytes);
  }

  /** The largest multiple of 4096 whose reservation, headers included, is at most `bytes`. */
  static payloadMax(bytes: number): number {
    let payload = Math.floor(bytes / 4096) * 4096;
    while (payload > 4096 && Memory.reservation(payload + HEADERS_BYTES_MAX) > bytes) {
      payload -= 4096;
    }
    return payload;
  }

  /**
   * A region of `bytes`: the last ones in use of the store.
   * @returns undefined when the budget has no room now
   */
  take(bytes: number): Store | undefined {
    const current = this.#current;
    const isSmall = bytes <= SLAB_REGION_BYTES_MAX;
    if (isSmall && current !== undefined && current.used + bytes <= SLAB_BYTES) {
      current.used += bytes;
      current.pins += 1;
      return current;
    }
    if (!this.#account.take(Memory.reservation(bytes))) return undefined;
    return this.takeReserved(bytes);
  }

  /** As `take`, after `Memory.reservation(bytes)` was granted to the account. */
  takeReserved(bytes: number): Store {
    const isSmall = bytes <= SLAB_REGION_BYTES_MAX;
    const buffer = isSmall ? this.#spares.slab() : this.#spares.large(bytes);
    const store = new Store(this, buffer, Memory.reservation(bytes));
    store.used = bytes;
    store.pins = 1;
    if (isSmall) {
      this.idle();
      this.#current = store;
    }
    return store;
  }

  /** Package-private: the last pin of `store` is gone. */
  unpinned(store: Store): void {
    if (store === this.#current) store.used = 0;
    else this.#free(store);
  }

  /** Keeps no slab for later, unless it is in use. */
  idle(): void {
    const current = this.#current;
    if (current === undefined) return;
    // One that is in use frees itself with its last pin.
    this.#current = undefined;
    if (current.pins === 0) this.#free(current);
  }

  #free(store: Store): void {
    this.#spares.keep(store.bytes);
    this.#account.give(store.charge);
  }
}
