/**
 * Who has the live disk open: clients that may write, now or later, and that keep what they have
 * read in caches of their own. So the disk is not taken back under them.
 *
 * Invariant: a session counts from its opening until it is closed, whatever ends it.
 */
import type { BlockDevice } from '../device/block-device.ts';

export interface LiveSession {
  readonly device: BlockDevice;
  /** `end` is called when the disk is taken from the client; it has to lead to a `close`. */
  readonly onRevoke: (end: (why: string) => void) => void;
}

export class LiveSessions {
  readonly #ends = new Map<object, ((why: string) => void) | undefined>();
  #onEmpty: () => void = () => undefined;
  /** Why those that are there have to end. */
  #ending: string | undefined;

  get count(): number {
    return this.#ends.size;
  }

  /** @param make - the device of the session; `onClose` has to be called when it is closed */
  open(make: (onClose: () => void) => BlockDevice): LiveSession {
    const key = {};
    this.#ends.set(key, undefined);
    const device = make(() => {
      this.#ends.delete(key);
      if (this.#ends.size === 0) this.#onEmpty();
    });
    return {
      device,
      onRevoke: (end) => {
        if (!this.#ends.has(key)) return;
        this.#ends.set(key, end);
        // It was still shaking hands when the others were told.
        if (this.#ending !== undefined) end(this.#ending);
      },
    };
  }

  /** Ends all of them, and settles when the last one is closed. No further one may come meanwhile. */
  async end(why: string): Promise<void> {
    if (this.#ends.size === 0) return;
    this.#ending = why;
    const empty = new Promise<void>((resume) => {
      this.#onEmpty = resume;
    });
    for (const end of this.#ends.values()) end?.(why);
    await empty;
    this.#ending = undefined;
  }
}
