/**
 * Final storage's part of a scrub: each sector of the sidecar, and each block against its sum. What
 * the log proves, and still has, is written again.
 *
 * A sum may be stale when its last write was lost, and then older content fits it. So what a block
 * should be is said by its sum only as long as the log does not know better, and content from
 * elsewhere is written only where the log proves that it is the newest.
 *
 * Invariants:
 *   - Home locations and sums are changed while no round runs, after a second look.
 *   - Content goes home and is synced before its sum says so; a crash between leaves a mismatch, which
 *     is an error and never wrong data.
 *   - Nothing is stamped that was not verified. A block of which nothing is known is stamped as lost.
 */
import { isVarveError } from '../base/errors.ts';
import {
  block as blockOf,
  BLOCK_BYTES,
  checksum as checksumOf,
  generation as generationOf,
  type Block,
} from '../base/units.ts';
import { isUnreadable } from '../base/unreadable.ts';
import { readNarrowed } from '../device/read-narrowed.ts';
import { isZero } from '../device/zeros.ts';
import { SUM_DATA, SUM_LOST, SUM_NEVER, SUMS_ENTRIES } from '../format/layouts.ts';
import { markLost, type Sum } from '../format/sums.ts';
import type { SectorState } from './sidecar.ts';
import type { ScrubRun } from './scrub-run.ts';
import { settledTruths, type Truth, type Truths } from './settled-truth.ts';

/** Pages for which the log is asked at a time: half a GiB of blocks. */
const STRETCH_PAGES = 512;
const ZEROS = new Uint8Array(BLOCK_BYTES);
const LOST: Sum = { kind: SUM_LOST, generation: generationOf(0), checksum: checksumOf(0) };

/** A block as it is found. */
interface Look {
  readonly block: Block;
  readonly content: Uint8Array;
  /** Undefined: its sector is damaged. */
  readonly sum: Sum | undefined;
  /** What is wrong with its content. */
  readonly problem: string | undefined;
  /** The device did not read it: its content is not what lies there. */
  readonly isRefused: boolean;
}

export class ScrubFinal {
  readonly #run: ScrubRun;
  data = 0;
  zeros = 0;
  skipped = 0;
  sectors = 0;

  constructor(run: ScrubRun) {
    this.#run = run;
  }

  get bytes(): number {
    const { final } = this.#run.core;
    return (final.blocks + final.sidecar.pages) * BLOCK_BYTES;
  }

  async all(): Promise<void> {
    const { final } = this.#run.core;
    for (let from = 0; from < final.sidecar.pages; from += STRETCH_PAGES) {
      const end = Math.min(final.sidecar.pages, from + STRETCH_PAGES);
      const first = final.sidecar.pageBlocks(from).first;
      const last = final.sidecar.pageBlocks(end - 1);
      // A lower bound: rounds only make it newer.
      const truths = await this.#truthsOf(first, last.first + last.count - first);
      for (let number = from; number < end; number++) {
        const isSuspect = await this.#look(number, truths);
        if (isSuspect) await this.#run.alone(() => this.#mendAnew(number));
      }
    }
    this.#run.checked.push(
      `final storage: ${this.data} blocks of data and ${this.zeros} of zeros against their sums` +
        (this.skipped === 0 ? '' : `; ${this.skipped} that the log still has were left out`),
      `checksums: ${this.sectors} sectors`,
    );
  }

  async #truthsOf(first: Block, count: number): Promise<Truths> {
    const wanted = new Set<Block>();
    for (let i = 0; i < count; i++) wanted.add(blockOf(first + i));
    return await settledTruths(this.#run.core, wanted);
  }

  /** @returns whether something in the page is not as it should be */
  async #look(number: number, truths: Truths): Promise<boolean> {
    const { final } = this.#run.core;
    const { first, count } = final.sidecar.pageBlocks(number);
    const states = await final.sidecar.inspectPage(number);
    const looks = await this.#looks(first, count);
    const { repairs } = this.#run.core;
    let isSuspect =
      repairs.isDoubtfulPage(number) || states.some(({ problem }) => problem !== undefined);
    for (const { block, sum, problem } of looks) {
      if (this.#run.core.isRedone(block)) this.skipped += 1;
      else if (sum === undefined || problem !== undefined) isSuspect = true;
      else {
        if (sum.kind === SUM_DATA) this.data += 1;
        else this.zeros += 1;
        const truth = truths.of(block);
        if (truth !== undefined && truth.generation > sum.generation) isSuspect = true;
        if (this.#isBehindWitness(block, sum) || repairs.isDoubtful(block)) isSuspect = true;
      }
    }
    this.sectors += Math.ceil(count / SUMS_ENTRIES);
    await this.#run.step((count + 1) * BLOCK_BYTES);
    return isSuspect;
  }

  #isBehindWitness(block: Block, sum: Sum): boolean {
    if (sum.kind === SUM_LOST) return false;
    const { witnesses } = this.#run.core.catalogue;
    return witnesses.some((one) => one.block === block && sum.generation < one.generation);
  }

  async #looks(first: Block, count: number): Promise<readonly Look[]> {
    const { final } = this.#run.core;
    const bytes = new Uint8Array(count * BLOCK_BYTES);
    let refused: ReadonlyMap<number, { readonly detail: string }> = new Map();
    try {
      await final.readRaw(first, bytes);
    } catch (error) {
      if (!isVarveError(error, 'DEVICE_IO')) throw error;
      const read = (at: number, part: Uint8Array): Promise<void> =>
        final.readRaw(blockOf(first + at / BLOCK_BYTES), part);
      refused = await readNarrowed(read, bytes);
    }
    const looks: Look[] = [];
    for (let i = 0; i < count; i++) {
      const block = blockOf(first + i);
      const content = bytes.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES);
      const sum = await this.#sumOf(block);
      let problem = refused.get(i)?.detail ?? (sum && final.problem(block, content, sum));
      // Parts of the base that is being copied may lie there, and nothing else.
      const isCopy = problem === undefined && sum?.kind === SUM_NEVER && !isZero(content);
      if (isCopy) problem = await this.#problemBesideBase(block);
      looks.push({ block, content, sum, problem, isRefused: refused.has(i) });
    }
    return looks;
  }

  async #problemBesideBase(block: Block): Promise<string | undefined> {
    try {
      await this.#run.core.final.read(block, new Uint8Array(BLOCK_BYTES));
      return undefined;
    } catch (error) {
      if (!isUnreadable(error)) throw error;
      return error.detail;
    }
  }

  async #sumOf(block: Block): Promise<Sum | undefined> {
    try {
      return await this.#run.core.final.sidecar.sum(block);
    } catch (error) {
      if (isUnreadable(error)) return undefined;
      throw error;
    }
  }

  /** A read beside it is made again, as beside a round. */
  async #mendAnew(number: number): Promise<void> {
    const { core } = this.#run;
    core.roundEpoch += 1;
    try {
      await this.#mend(number);
    } finally {
      core.roundEpoch += 1;
    }
  }

  /** A second look at a page, while nobody changes it; then what can be done. */
  async #mend(number: number): Promise<void> {
    const { core } = this.#run;
    const wasDoubtful = core.repairs.isDoubtfulPage(number);
    const { first, count } = core.final.sidecar.pageBlocks(number);
    const states = await core.final.sidecar.inspectPage(number);
    // At once: what memory knows now it may have given to others after a search of the log.
    await this.#mendKnown(number, states);
    const truths = await this.#truthsOf(first, count);
    const lookedAt = (await this.#looks(first, count)).filter(
      ({ block }) => !this.#run.core.isRedone(block),
    );
    const unknown = lookedAt.filter(({ sum }) => sum === undefined);
    for (const look of lookedAt) {
      if (look.sum !== undefined) await this.#mendBlock(look, look.sum, truths.of(look.block));
    }
    if (unknown.length > 0) await this.#mendSectors(number, states, unknown, truths);
    if (wasDoubtful && core.repairs.isDoubtfulPage(number)) await this.#mendDoubtful(number);
  }

  /** A page that reads right, after a sync that failed. */
  async #mendDoubtful(number: number): Promise<void> {
    const isMended =
      this.#run.repair && (await this.#run.core.repairs.writePage(number, new Map()));
    this.#run.note({
      place: 'checksums',
      what: `page ${number} of the checksums: its repair was not durable`,
      repairedFrom: isMended ? 'memory' : undefined,
    });
  }

  /** Sectors of which memory has a good copy. */
  async #mendKnown(number: number, states: readonly SectorState[]): Promise<void> {
    const bad = states.filter(({ problem, isKnown }) => problem !== undefined && isKnown);
    if (bad.length === 0) return;
    const isMended =
      this.#run.repair && (await this.#run.core.repairs.writePage(number, new Map()));
    states.forEach(({ problem, isKnown }, i) => {
      if (problem === undefined || !isKnown) return;
      const sector = number * states.length + i;
      this.#run.note({
        place: 'checksums',
        what: `sector ${sector} of the checksums, blocks from ${sector * SUMS_ENTRIES}: ${problem}`,
        repairedFrom: isMended ? 'memory' : undefined,
      });
    });
  }

  /** Sectors of which nobody has a copy: made again from what the log proves of their blocks. */
  async #mendSectors(
    number: number,
    states: readonly SectorState[],
    unknown: readonly Look[],
    truths: Truths,
  ): Promise<void> {
    const given = new Map<number, readonly Sum[]>();
    const whole = new Set<number>();
    const gone: Look[] = [];
    const { first } = this.#run.core.final.sidecar.pageBlocks(number);
    for (const [i, { problem, isKnown }] of states.entries()) {
      if (problem === undefined || isKnown) continue;
      const from = first + i * SUMS_ENTRIES;
      // Nobody looked at what a round will write again: nothing vouches for it until then.
      const sums: Sum[] = Array.from({ length: SUMS_ENTRIES }, (_, entry) =>
        from + entry < this.#run.core.final.blocks ? LOST : NEVER,
      );
      whole.add(i);
      for (const look of unknown) {
        if (look.block < from || look.block >= from + SUMS_ENTRIES) continue;
        const sum = await this.#proven(look, truths);
        sums[look.block - from] = sum ?? LOST;
        if (sum !== undefined) continue;
        whole.delete(i);
        gone.push(look);
      }
      given.set(i, sums);
    }
    // What the device refuses today it may read another day: it is given up for nothing less than
    // all of the page.
    const isRefused = states.some((state) => state.isRefused);
    const isWanted = this.#run.repair && (!isRefused || whole.size === states.length);
    const isMended = isWanted && (await this.#run.core.repairs.writePage(number, given));
    for (const i of given.keys()) {
      const sector = number * states.length + i;
      this.#run.note({
        place: 'checksums',
        what: `sector ${sector} of the checksums, blocks from ${sector * SUMS_ENTRIES}: damaged`,
        repairedFrom: isMended && whole.has(i) ? 'the log' : undefined,
      });
    }
    for (const { block } of gone) {
      this.#run.note({
        place: 'final storage',
        what: `block ${block}: its checksum is gone, and the log does not tell what it should be`,
        repairedFrom: undefined,
        block,
        seenBy: this.#run.seenBy(block, this.#run.core.horizon.generation),
      });
    }
  }

  /** The sum that the log proves, once final storage holds what it says. */
  async #proven(look: Look, truths: Truths): Promise<Sum | undefined> {
    const truth = truths.of(look.block);
    // Where there is or was a base, what the log never tells of need not be zeros.
    const isBlank = truths.isWhole && !this.#run.core.final.hadBase;
    const never = isBlank ? NEVER : undefined;
    const sum = truth === undefined ? never : sumOf(truth);
    if (sum === undefined) return undefined;
    if (this.#fits(look, sum)) return (await this.#keepHome(look)) ? sum : undefined;
    const found = await this.#contentOf(look.block, sum, truth);
    if (found === undefined || !this.#run.repair) return undefined;
    return (await this.#run.core.repairs.writeHome(look.block, found.content)) ? sum : undefined;
  }

  #fits({ block, content, isRefused }: Look, sum: Sum): boolean {
    return !isRefused && this.#run.core.final.problem(block, content, sum) === undefined;
  }

  /** A block whose own sum is readable. */
  async #mendBlock(look: Look, sum: Sum, truth: Truth | undefined): Promise<void> {
    const { block } = look;
    const isStale =
      truth !== undefined &&
      (truth.generation > sum.generation ||
        (sum.kind === SUM_LOST && truth.generation === sum.generation));
    if (isStale) await this.#mendStale(look, sum, truth);
    else if (look.problem !== undefined) {
      const found = await this.#contentOf(block, sum, truth);
      const isMended =
        found !== undefined &&
        this.#run.repair &&
        (await this.#run.core.repairs.writeHome(block, found.content));
      this.#note(look, sum, look.problem, isMended ? found.from : undefined);
    } else if (this.#isBehindWitness(block, sum)) {
      const what = `block ${block}: generation ${sum.generation}, older than the last round wrote`;
      await this.#giveUp(look, sum, what);
    } else if (this.#run.core.repairs.isDoubtful(block)) {
      const isMended = await this.#keepHome(look);
      const what = `block ${block}: its repair was not durable`;
      this.#note(look, sum, what, isMended ? 'memory' : undefined);
    }
  }

  /** The log proves that a newer version was settled than the sum says. */
  async #mendStale(look: Look, sum: Sum, truth: Truth): Promise<void> {
    const { block } = look;
    const newer = sumOf(truth);
    const what =
      sum.kind === SUM_LOST
        ? (look.problem ?? `block ${block}: lost`)
        : `block ${block}: its checksum is of generation ${sum.generation}, ` +
          `the log proves ${truth.generation}`;
    const isAtHome = this.#fits(look, newer);
    const found = isAtHome ? undefined : await this.#contentOf(block, newer, truth);
    if (!isAtHome && found === undefined) {
      // What the device refuses today it may read another day.
      if (look.isRefused) this.#note(look, newer, what, undefined);
      else await this.#giveUp(look, newer, what);
      return;
    }
    const { repairs } = this.#run.core;
    const isHome = isAtHome
      ? await this.#keepHome(look)
      : this.#run.repair && found !== undefined && (await repairs.writeHome(block, found.content));
    const isMended =
      this.#run.repair && isHome && (await this.#run.core.repairs.writeSum(block, newer));
    this.#note(look, newer, what, isMended ? (found?.from ?? 'the log') : undefined);
  }

  /** Its content is known to be older than it should be: an error from now on, and no older data. */
  async #giveUp(look: Look, newest: Sum, what: string): Promise<void> {
    if (this.#run.repair) {
      const content = look.content.slice();
      const isBlank = !look.isRefused && markLost(content);
      if (!isBlank || (await this.#run.core.repairs.writeHome(look.block, content)))
        await this.#run.core.repairs.writeSum(look.block, { ...newest, ...NO_SUM, kind: SUM_LOST });
    }
    this.#note(look, newest, what, undefined);
  }

  /** Content that fits a sum, from memory or log, with proof that it is the newest. */
  async #contentOf(
    block: Block,
    sum: Sum,
    truth: Truth | undefined,
  ): Promise<{ content: Uint8Array; from: string } | undefined> {
    const { core, copies } = this.#run;
    const isProven = truth?.generation === sum.generation && truth.checksum === sum.checksum;
    if (sum.kind === SUM_DATA) {
      const version = { block, generation: sum.generation, checksum: sum.checksum };
      const known = core.cache.atHome(block, sum.generation);
      if (!isProven) return undefined;
      if (known !== undefined && copies.fits(version, known)) {
        return { content: known.slice(), from: 'memory' };
      }
      const content = await copies.payloadOf(version, truth);
      return content === undefined ? undefined : { content, from: 'the log' };
    }
    // Zeros that a sum alone names may hide newer data, whose sum was lost.
    const isProvenZero = sum.kind !== SUM_LOST && (isProven || sum === NEVER);
    return isProvenZero ? { content: ZEROS, from: 'the log' } : undefined;
  }

  /** What is right at home, and may not be durable there. */
  async #keepHome({ block, content }: Look): Promise<boolean> {
    const { repairs } = this.#run.core;
    if (!repairs.isDoubtful(block)) return true;
    return this.#run.repair && (await repairs.writeHome(block, content));
  }

  #note(look: Look, sum: Sum, what: string, repairedFrom: string | undefined): void {
    const { horizon } = this.#run.core;
    this.#run.note({
      place: 'final storage',
      what,
      repairedFrom,
      block: look.block,
      generation: sum.generation,
      seenBy: this.#run.seenBy(look.block, horizon.generation),
    });
  }
}

const NO_SUM = { checksum: checksumOf(0) };
const NEVER: Sum = { kind: SUM_NEVER, generation: generationOf(0), checksum: checksumOf(0) };

function sumOf({ kind, generation, checksum }: Truth): Sum {
  return { kind, generation, checksum };
}
