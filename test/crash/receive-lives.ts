/**
 * Moments sent from one volume to another, in streams that are cut, spoilt and taken up again, while
 * the machine loses power at any operation. Whatever happens, the receiver is the sender at the moment
 * before or at the one that was sent, in what it shows now and at every moment that it opens.
 */
import { assert } from '../../src/base/assert.ts';
import { isVarveError, type VarveError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, byteCount, byteOffset, kibibytes } from '../../src/base/units.ts';
import type { BlockDevice } from '../../src/device/block-device.ts';
import { LocalPast } from '../../src/control/past.ts';
import { Reception } from '../../src/control/receive.ts';
import { withSending, type SendQuery } from '../../src/control/send.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { VolumeModel } from '../model/volume-model.ts';
import { PowerSupply, type Life } from '../sim/power-supply.ts';
import type { SeededRandom } from '../sim/random.ts';
import { SimVolume } from '../sim/sim-volume.ts';
import { SimWorld } from '../sim/sim-world.ts';
import type { OneSeed } from './one-seed.ts';

export interface ReceiveLivesOptions extends OneSeed {
  readonly lives: number;
}

export interface ReceiveCounts {
  received: number;
  resumed: number;
  aborted: number;
  lost: number;
  spoilt: number;
  refused: number;
}

const BLOCKS = 48;
/** The last block is a part of one. */
const SIZE = byteCount(BLOCKS * BLOCK_BYTES - 1536);
/** Of a stream that was changed on its way. */
const STREAM_CODES = ['STREAM_BAD', 'STREAM_CUT', 'STREAM_MISFIT', 'VERSION_UNKNOWN'] as const;

/** What is being sent, and what came of it as far as was answered. */
interface Attempt {
  readonly to: number;
  /** Its end was pushed: it may count. */
  isEnding: boolean;
}

class ReceiveLives {
  readonly counts: ReceiveCounts = {
    received: 0,
    resumed: 0,
    aborted: 0,
    lost: 0,
    spoilt: 0,
    refused: 0,
  };
  readonly #options: ReceiveLivesOptions;
  readonly #world: SimWorld;
  readonly #power: PowerSupply;
  readonly #random: SeededRandom;
  readonly #origin: SimVolume;
  readonly #copy: SimVolume;
  readonly #model = new VolumeModel(SIZE);
  /** Generations of the sender that the receiver has been whole at, by the receiver's own. */
  readonly #states = new Map<number, number>([[0, 0]]);
  /** What the receiver is; undefined: nothing was received. */
  #at: number | undefined;
  #attempt: Attempt | undefined;
  #lives = 0;

  constructor(options: ReceiveLivesOptions) {
    this.#options = options;
    this.#world = new SimWorld(options.seed);
    this.#power = new PowerSupply(this.#world);
    this.#random = this.#world.fork('receive-lives');
    const shape = { size: SIZE, requestBytesMax: kibibytes(64), ringBytes: kibibytes(192) };
    const slots = this.#random.pick([12, 20, 40]);
    this.#origin = new SimVolume(this.#power, { ...shape, slots: 40, segmentBytes: kibibytes(64) });
    this.#copy = new SimVolume(this.#power, { ...shape, slots });
  }

  async run(): Promise<ReceiveCounts> {
    await this.#world.run(() => this.#origin.format(this.#power.life));
    await this.#world.run(() => this.#copy.format(this.#power.life));
    while (this.#lives < this.#options.lives) {
      this.#lives += 1;
      const end = await this.#power.runLife((life) => this.#live(life));
      if (end.kind === 'lost') this.counts.lost += 1;
      if (this.#power.alive) this.#power.cut();
      this.#power.restore();
    }
    return this.counts;
  }

  async #live(life: Life): Promise<void> {
    const origin = await this.#origin.open(life);
    assert(origin.core.head <= this.#model.head, 'the sender has no more than was written');
    this.#model.cut(origin.core.head);
    const copy = await this.#copy.open(life);
    await this.#checkAll(copy);
    if (this.#random.chance(0.8)) {
      const loss = this.#random.pick(['cut', 'cut', 'kill'] as const);
      this.#power.plan({ loss, afterOperations: 1 + this.#random.below(250) });
    }
    for (let turn = 0; turn < 4 && this.#power.alive; turn++) {
      this.#options.onStep?.();
      await this.#turn(origin, copy);
      await this.#checkAll(copy);
    }
    this.#power.cancelPlan();
    await copy.close();
    await origin.close();
  }

  async #turn(origin: Volume, copy: Volume): Promise<void> {
    const { unfinished } = copy.receiver.info();
    if (unfinished === undefined) {
      this.#attempt = undefined;
      await this.#forgetOld(origin, copy);
      await this.#write(origin);
      await this.#receive(origin, copy, { to: undefined, from: this.#from, token: undefined });
      return;
    }
    if (unfinished.isAborted || this.#random.chance(0.2)) {
      await copy.receiver.abort(() => undefined);
      this.counts.aborted += 1;
      this.#attempt = undefined;
      this.#states.set(copy.core.head, this.#at ?? 0);
      return;
    }
    const to = `gen=${unfinished.generation}`;
    const isAgain = this.#random.chance(0.2);
    const query: SendQuery = isAgain
      ? { to, from: this.#from, token: undefined }
      : { to: undefined, from: undefined, token: unfinished.token };
    if (!isAgain) this.counts.resumed += 1;
    await this.#receive(origin, copy, query);
  }

  get #from(): string | undefined {
    return this.#at === undefined ? undefined : `gen=${this.#at}`;
  }

  /** Snapshots stop recycling, so only those that are needed stay. */
  async #forgetOld(origin: Volume, copy: Volume): Promise<void> {
    for (const { label, generation } of origin.snapshots()) {
      if (generation !== this.#at) await origin.deleteSnapshot(label);
    }
    for (const { label, generation } of copy.snapshots()) {
      const isOld = generation !== copy.core.head;
      if (isOld || this.#random.chance(0.1)) await copy.deleteSnapshot(label);
    }
  }

  async #write(origin: Volume): Promise<void> {
    const random = this.#random;
    const live = origin.live();
    for (let left = random.below(25); left > 0; left--) {
      const length = byteCount(1 + random.below(random.pick([5000, 40_000])));
      const offset = byteOffset(random.below(SIZE - length));
      const way = random.below(10);
      if (way < 6) {
        const bytes = random.chance(0.2) ? new Uint8Array(length) : random.bytes(length);
        await live.write(offset, bytes, { fua: false });
        this.#model.write(offset, bytes);
      } else if (way < 8) {
        const before = origin.core.head;
        await live.trim(offset, length, { fua: false });
        if (origin.core.head > before) this.#model.trim(offset, length);
      } else {
        await live.zero(offset, length, { fua: false, allocate: random.chance(0.5) });
        this.#model.zero(offset, length);
      }
    }
    await live.flush();
    await origin.createSnapshot(`life-${this.#lives}-${this.#random.next32()}`);
  }

  async #receive(origin: Volume, copy: Volume, query: SendQuery): Promise<void> {
    const sealBytes = this.#random.pick([1, 8192, 40_000, 1e9]);
    const chunks: Uint8Array[] = [];
    const to = await withSending(
      new LocalPast(origin),
      { ...query, sealBytes },
      async (sending) => {
        for await (const bytes of sending.bytes(() => undefined)) chunks.push(bytes);
        return sending.to.generation;
      },
    );
    const attempt: Attempt = { to, isEnding: false };
    this.#attempt = attempt;
    const whole = Buffer.concat(chunks);
    const isSpoilt = this.#random.chance(0.3);
    const stream = isSpoilt ? spoilt(this.#random, chunks) : whole;
    const isSame = Buffer.compare(stream, whole) === 0;
    const reception = new Reception(copy, () => undefined);
    const watch = { isOver: false };
    const watching = this.#watch(copy, watch);
    const deleting = this.#deleteBase(copy);
    try {
      for (let at = 0; at < stream.length;) {
        const length = 1 + this.#random.below(this.#random.pick([2000, 20_000, 400_000]));
        if (at + length >= whole.length) attempt.isEnding = true;
        await reception.push(stream.subarray(at, at + length));
        at += length;
      }
      const { generation, here } = reception.finish();
      assert(isSame || generation === to, 'only what was sent is taken for it');
      this.#at = generation;
      this.#states.set(here, generation);
      this.counts.received += 1;
    } catch (error) {
      if (!isVarveError(error)) throw error;
      this.#takeRefusal(error, isSame);
    } finally {
      await reception.close();
      watch.isOver = true;
      await watching;
      await deleting;
    }
  }

  /** The snapshot that a receive is about to go on from: it goes just before, or stays. */
  async #deleteBase(copy: Volume): Promise<void> {
    const random = this.#random.fork(`delete ${this.#lives} ${this.counts.received}`);
    const base = copy.snapshots().find(({ generation }) => generation === copy.core.shown);
    if (base === undefined || !random.chance(0.3)) return;
    try {
      await copy.deleteSnapshot(base.label);
    } catch (error) {
      if (!isVarveError(error, 'RECEIVE_UNFINISHED')) throw error;
    }
  }

  #takeRefusal(error: VarveError, isSame: boolean): void {
    if (error.code === 'LOG_FULL' || error.code === 'UNDO_FULL') {
      this.counts.refused += 1;
      return;
    }
    const isStream = STREAM_CODES.some((code) => code === error.code);
    if (isSame || !isStream) throw error;
    this.counts.spoilt += 1;
  }

  /** Clients, meanwhile: they read the one state or the other, and write nothing. */
  async #watch(copy: Volume, watch: { readonly isOver: boolean }): Promise<void> {
    const random = this.#random.fork(`watch ${this.#lives} ${this.counts.received}`);
    while (!watch.isOver && this.#power.alive) {
      const isReceiving = copy.core.receiving !== undefined;
      if (isReceiving) await this.#needRefused(copy);
      await this.#checkShown(copy);
      await new Promise<void>((done) => {
        this.#power.life.timers.after(1 + random.below(30), done);
      });
    }
  }

  async #needRefused(copy: Volume): Promise<void> {
    const head = copy.core.head;
    try {
      await copy.live().write(byteOffset(0), new Uint8Array(BLOCK_BYTES), { fua: false });
    } catch (error) {
      if (isVarveError(error, 'RECEIVE_UNFINISHED')) return;
      throw error;
    }
    throw new Error(`a client wrote at generation ${head} while a stream was being received`);
  }

  #isState(content: Uint8Array, generation: number): boolean {
    return Buffer.compare(content, this.#model.bytesAt(0, SIZE, generation)) === 0;
  }

  /** The live disk is the moment before, or the one that is sent when its end is on its way. */
  async #checkShown(copy: Volume): Promise<void> {
    let content: Uint8Array;
    // The receive may end while this is read.
    const before = this.#at ?? 0;
    try {
      content = await all(copy.live());
    } catch (error) {
      if (isVarveError(error, 'RECEIVE_UNFINISHED') && this.#at === undefined) return;
      throw error;
    }
    if ([before, this.#at ?? 0].some((at) => this.#isState(content, at))) return;
    const attempt = this.#attempt;
    const isNext = attempt !== undefined && attempt.isEnding && this.#isState(content, attempt.to);
    assert(isNext, 'the disk is the moment before or the one that was sent');
  }

  async #checkAll(copy: Volume): Promise<void> {
    copy.core.check();
    await this.#checkShown(copy);
    const { received, unfinished } = copy.receiver.info();
    const attempt = this.#attempt;
    if (received !== undefined && received.generation !== this.#at) {
      assert(
        attempt?.isEnding === true && attempt.to === received.generation,
        'it says what it is',
      );
      this.#at = received.generation;
    }
    // A giving up may have come to its end and had no answer: the same state at another generation.
    if (unfinished === undefined) this.#states.set(copy.core.head, received?.generation ?? 0);
    assert((received?.generation ?? undefined) === this.#at, 'what was received is not forgotten');
    if (this.#at !== undefined) {
      const content = await all(copy.live());
      assert(this.#isState(content, this.#at), 'it is what it says');
      const base = copy.core.shown;
      const kept = copy.snapshots().some(({ generation }) => generation === base);
      assert(unfinished === undefined || kept, 'what it goes on from is kept as a snapshot');
    }
    await this.#checkMoments(copy);
  }

  /** Whatever opens is whole. */
  async #checkMoments(copy: Volume): Promise<void> {
    const { horizon, head } = copy.core;
    const names = copy.snapshots().map(({ label }) => label);
    for (let i = 0; i < 4; i++) {
      const at = this.#random.between(horizon.generation, head);
      names.push(`gen=${at}`, `-${this.#random.below(5)}s`);
    }
    for (const name of names) {
      try {
        const moment = await copy.resolve(name);
        const state = this.#states.get(moment.generation);
        const where = `${name} is generation ${moment.generation}`;
        assert(state !== undefined, `a moment that opens is a state of the sender: ${where}`);
        const device = copy.openMoment(moment);
        const isWhole = this.#isState(await all(device), state);
        await device.close();
        assert(isWhole, `a moment that opens is whole: ${where}`);
      } catch (error) {
        const isMixed = isVarveError(error, 'MOMENT_MIXED') && name.startsWith('gen=');
        if (!isMixed && !isVarveError(error, 'MOMENT_OUTSIDE')) throw error;
      }
    }
  }
}

async function all(device: BlockDevice): Promise<Uint8Array> {
  const content = new Uint8Array(device.size);
  await device.read(byteOffset(0), content);
  return content;
}

/** The stream as a bad line or a mistaken person would hand it on. */
function spoilt(random: SeededRandom, parts: readonly Uint8Array[]): Uint8Array {
  const list = [...parts];
  const at = random.below(list.length);
  const other = random.below(list.length);
  const [one, two] = [list[at], list[other]];
  if (one === undefined || two === undefined) return Buffer.concat(list);
  switch (random.below(5)) {
    case 0: {
      const changed = Uint8Array.from(one);
      const byte = random.below(changed.length);
      changed[byte] = (changed[byte] ?? 0) ^ (1 << random.below(8));
      list[at] = changed;
      return Buffer.concat(list);
    }
    case 1:
      list.splice(at, 1);
      return Buffer.concat(list);
    case 2:
      list.splice(at, 0, one);
      return Buffer.concat(list);
    case 3:
      list[at] = two;
      list[other] = one;
      return Buffer.concat(list);
    default: {
      const whole = Buffer.concat(list);
      return whole.subarray(0, random.below(whole.length));
    }
  }
}

export async function runReceiveLives(options: ReceiveLivesOptions): Promise<ReceiveCounts> {
  return await new ReceiveLives(options).run();
}
