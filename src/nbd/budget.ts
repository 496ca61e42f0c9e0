/**
 * One byte budget for the payloads and replies of all connections.
 *
 * Invariants:
 *   - used is the sum of what the accounts hold, and never above total.
 *   - An account takes only what, with all that it holds, is at most half of what is free: who
 *     holds much is held back before others are. An eighth is kept for the first small
 *     reservation of an account, so that those who ask little go on among those who ask much.
 *   - Who waits is served in order of arrival, and one that fits overtakes one that does not. But
 *     an account that waits and holds nothing is overtaken by two budgets at most: then all wait
 *     for it. One that holds something has only itself to wait for, or its turn comes when it is
 *     done with that.
 */
import { assert } from '../base/assert.ts';
import type { ByteCount } from '../base/units.ts';
import {
  BUDGET_BYTES_MIN,
  FIRST_BYTES_MAX,
  KEPT_PART,
  OVERTAKEN_BUDGETS_MAX,
  SLAB_BYTES,
  WAITERS_SCANNED_MAX,
} from './limits.ts';

interface Waiter {
  readonly account: Account;
  readonly bytes: number;
  readonly granted: () => void;
}

export class Budget {
  readonly total: number;
  /** For the first small reservations of accounts; and how small they are. */
  readonly #kept: number;
  readonly #firstMax: number;
  #used = 0;
  #waiters: Waiter[] = [];
  /** The first in the queue that holds nothing, and the bytes given to others since it was. */
  #first: Waiter | undefined;
  #overtaken = 0;
  #serving = false;
  #usedMax = 0;

  private constructor(total: ByteCount) {
    this.total = total;
    this.#kept = total / KEPT_PART;
    this.#firstMax = Math.max(SLAB_BYTES, Math.min(FIRST_BYTES_MAX, this.#kept / KEPT_PART));
  }

  static create(total: ByteCount): Budget {
    assert(total >= BUDGET_BYTES_MIN, 'the budget holds a few slabs');
    return new Budget(total);
  }

  get used(): number {
    return this.#used;
  }

  /** The most that was ever in use: a test of the bound. */
  get usedMax(): number {
    return this.#usedMax;
  }

  get waiting(): number {
    return this.#waiters.length;
  }

  /** Somebody waits who holds nothing: others hold too much. */
  get isShort(): boolean {
    return this.#waiters.some(({ account }) => account.held === 0);
  }

  /** The largest reservation that can ever be granted: half of an unused budget. */
  get reservationMax(): number {
    return Math.floor(this.total / 2);
  }

  account(): Account {
    return new Account(this);
  }

  /** Package-private: see Account. */
  take(account: Account, bytes: number): boolean {
    if (!this.#fits(account, bytes)) return false;
    if (this.#waiters.length > 0) {
      this.#findFirst();
      if (!this.#isPatient) return false;
      this.#overtaken += bytes;
    }
    this.#grant(bytes);
    return true;
  }

  give(bytes: number): void {
    this.#used -= bytes;
    assert(this.#used >= 0, 'what is given back was taken');
    if (this.#waiters.length > 0) this.#serve();
  }

  enqueue(waiter: Waiter): void {
    assert(waiter.bytes <= this.reservationMax, 'a reservation fits the empty budget');
    this.#waiters.push(waiter);
  }

  cancel(account: Account): void {
    this.#waiters = this.#waiters.filter((waiter) => waiter.account !== account);
    if (this.#waiters.length > 0) this.#serve();
  }

  #fits(account: Account, bytes: number): boolean {
    const free = this.total - this.#used;
    if (account.held + bytes > free / 2) return false;
    return (account.held === 0 && bytes <= this.#firstMax) || bytes <= free - this.#kept;
  }

  #grant(bytes: number): void {
    this.#used += bytes;
    if (this.#used > this.#usedMax) this.#usedMax = this.#used;
  }

  /** Grants what fits; what the granted do may give back more, so it loops instead of recursing. */
  #serve(): void {
    if (this.#serving) return;
    this.#serving = true;
    try {
      while (this.#serveOne());
    } finally {
      this.#serving = false;
    }
  }

  get #isPatient(): boolean {
    return this.#first === undefined || this.#overtaken < OVERTAKEN_BUDGETS_MAX * this.total;
  }

  #findFirst(): void {
    const first = this.#waiters.find(({ account }) => account.held === 0);
    if (first !== this.#first) this.#overtaken = 0;
    this.#first = first;
  }

  #serveOne(): boolean {
    this.#findFirst();
    const waiters = this.#waiters.slice(0, WAITERS_SCANNED_MAX);
    const served =
      this.#first !== undefined && !this.#isPatient
        ? this.#serveIfFits(this.#first)
        : waiters.find((waiter) => this.#serveIfFits(waiter)) !== undefined;
    return served;
  }

  #serveIfFits(waiter: Waiter): boolean {
    const { account, bytes, granted } = waiter;
    if (!this.#fits(account, bytes)) return false;
    this.#waiters.splice(this.#waiters.indexOf(waiter), 1);
    if (waiter !== this.#first) this.#overtaken += bytes;
    this.#grant(bytes);
    account.granted(bytes);
    granted();
    return true;
  }
}

/** What one connection holds of the budget. */
export class Account {
  readonly #budget: Budget;
  #held = 0;
  #waits = false;

  /** Package-private: `Budget.account` makes them. */
  constructor(budget: Budget) {
    this.#budget = budget;
  }

  get held(): number {
    return this.#held;
  }

  /** @returns false: there is no room now; ask `wait` */
  take(bytes: number): boolean {
    if (!this.#budget.take(this, bytes)) return false;
    this.#held += bytes;
    return true;
  }

  give(bytes: number): void {
    this.#held -= bytes;
    assert(this.#held >= 0, 'an account gives back what it took');
    this.#budget.give(bytes);
  }

  /** Calls back when `bytes` have been taken for this account; one wait at a time. */
  wait(bytes: number, granted: () => void): void {
    assert(!this.#waits, 'an account waits for one reservation at a time');
    this.#waits = true;
    this.#budget.enqueue({ account: this, bytes, granted });
  }

  /** Package-private: the budget says so. */
  granted(bytes: number): void {
    this.#waits = false;
    this.#held += bytes;
  }

  /** Waits no longer; what is held stays held. */
  cancel(): void {
    if (!this.#waits) return;
    this.#waits = false;
    this.#budget.cancel(this);
  }
}
