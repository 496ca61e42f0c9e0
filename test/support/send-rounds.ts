/**
 * Moments of a served disk, sent one after the other to a copy by real processes, some of which are
 * killed in the middle: the sender, the receiver, or the server that has the copy. What broke off is
 * taken up again by its token. After each step the copy is compared with the disk.
 */
import { createHash } from 'node:crypto';
import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { assert } from '../../src/base/assert.ts';
import { byteCount, byteOffset } from '../../src/base/units.ts';
import { openNbdExport } from '../../src/control/nbd-export.ts';
import type { BlockDevice } from '../../src/device/block-device.ts';
import { connectUnix } from '../../src/nbd/node-socket.ts';
import type { ReceiveInfo } from '../../src/volume/report.ts';
import { SeededRandom } from '../sim/random.ts';
import { temporaryDirectory } from './files.ts';
import { VARVE, varve, varveToEnd } from './run.ts';
import { Server } from './server.ts';

export interface SendRoundsOptions {
  readonly moments: number;
  readonly seed: number;
}

export interface SendRoundsReport {
  readonly sent: number;
  readonly killed: number;
  readonly resumed: number;
  /** Snapshots of the copy that were compared at the end. */
  readonly compared: number;
}

const SIZE = 8 * 1024 ** 2;
const KILLS_MAX = 3;

type Program = ChildProcessByStdio<Writable, Readable, Readable>;
type Victim = 'send' | 'receive' | 'server';

class SendRounds {
  readonly #random: SeededRandom;
  readonly #from: string;
  readonly #to: string;
  /** The disk now. */
  readonly #content = Buffer.alloc(SIZE);
  #generation = 0;
  /** What the copy is. */
  #before = Buffer.alloc(SIZE);
  #beforeGeneration: number | undefined;
  /** Digests of what was sent, by generation. */
  readonly #digests = new Map<number, string>();
  #server: Server | undefined;
  #killed = 0;
  #resumed = 0;

  constructor(root: string, seed: number) {
    this.#random = new SeededRandom(seed).fork('send-rounds');
    this.#from = join(root, 'from');
    this.#to = join(root, 'to');
  }

  async run(moments: number): Promise<SendRoundsReport> {
    await varve(this.#from, ['create', 'disk', '--size', String(SIZE), '--log-size', '80M']);
    await using origin = await Server.start(this.#from);
    const { device } = await openNbdExport(() => connectUnix(origin.socket), 'disk');
    for (let moment = 1; moment <= moments; moment++) {
      await this.#write(device, moment === 1 ? 60 : 12);
      const target = Buffer.from(this.#content);
      const { generation } = this.#mark(target);
      // A client goes on while the moment before is sent.
      const writing = this.#write(device, 4);
      const isServed = moment > 1 && moment % 4 === 0;
      if (isServed) this.#server = await Server.start(this.#to);
      await this.#send(generation);
      await this.#server?.stop();
      this.#server = undefined;
      await writing;
      await this.#needCopy(target);
      this.#before = target;
      this.#beforeGeneration = generation;
    }
    await device.close();
    const compared = await this.#compareSnapshots();
    return { sent: moments, killed: this.#killed, resumed: this.#resumed, compared };
  }

  async #write(device: BlockDevice, count: number): Promise<void> {
    const random = this.#random;
    for (let i = 0; i < count; i++) {
      const length = 1 + random.below(random.pick([5000, 90_000]));
      const at = random.below(SIZE - length);
      const isZero = random.chance(0.2);
      const bytes = isZero ? new Uint8Array(length) : random.bytes(length);
      const offset = byteOffset(at);
      if (isZero) await device.zero(offset, byteCount(length), { fua: false, allocate: false });
      else await device.write(offset, bytes, { fua: i % 4 === 0 });
      this.#content.set(bytes, at);
      this.#generation += 1;
    }
    await device.flush();
  }

  #mark(content: Uint8Array): { readonly generation: number } {
    this.#digests.set(this.#generation, digestOf(content));
    return { generation: this.#generation };
  }

  /** Sends until it is there, through up to KILLS_MAX interruptions. */
  async #send(generation: number): Promise<void> {
    for (let tries = 0; ; tries++) {
      const info = await this.#info();
      if (info?.received?.generation === generation && info.unfinished === undefined) return;
      const token = info?.unfinished?.token;
      if (token !== undefined) this.#resumed += 1;
      const since =
        this.#beforeGeneration === undefined ? [] : ['--from', `gen=${this.#beforeGeneration}`];
      const words =
        token === undefined ? [`disk@gen=${generation}`, ...since] : ['disk', '--resume', token];
      const isKilled = tries < KILLS_MAX && this.#random.chance(0.5);
      const told = await this.#pump(words, isKilled ? this.#victim() : undefined);
      assert(isKilled || told === '', `a stream that nobody ended is received: ${told}`);
      if (isKilled) await this.#needBefore();
    }
  }

  #victim(): Victim {
    if (this.#server !== undefined) return this.#random.pick(['server', 'receive'] as const);
    return this.#random.pick(['receive', 'receive', 'send'] as const);
  }

  /** @returns what went wrong, in words; empty: nothing */
  async #pump(words: readonly string[], victim: Victim | undefined): Promise<string> {
    const send = start(this.#from, ['send', ...words]);
    const receive = start(this.#to, ['receive', 'copy', '--log-size', '80M']);
    const afterBytes = this.#random.below(this.#random.pick([2000, 300_000, 1_500_000]));
    let passed = 0;
    let isStruck = victim === undefined;
    const strike = async (): Promise<void> => {
      isStruck = true;
      this.#killed += 1;
      if (victim === 'send') send.child.kill('SIGKILL');
      else if (victim === 'receive') receive.child.kill('SIGKILL');
      else await this.#server?.kill();
    };
    receive.child.stdin.on('error', () => send.child.kill());
    for await (const chunk of send.child.stdout) {
      const bytes = Buffer.from(chunk);
      passed += bytes.length;
      const isNow = !isStruck && passed >= afterBytes;
      await Promise.race([taken(receive, bytes), receive.ended]);
      if (isNow) await strike();
    }
    if (!isStruck) await strike();
    receive.child.stdin.end();
    const codes = [await send.ended, await receive.ended];
    if (victim === 'server') this.#server = await Server.start(this.#to);
    return codes.every((code) => code === 0) ? '' : `${send.said()}\n${receive.said()}`;
  }

  /** @returns undefined while there is no copy */
  async #info(): Promise<ReceiveInfo | undefined> {
    const ended = await varveToEnd(this.#to, ['info', 'copy', '--json']);
    if (ended.code !== 0) {
      assert(ended.stderr.includes('VOLUME_UNKNOWN'), `the copy opens: ${ended.stderr}`);
      return undefined;
    }
    const { receive }: { receive: ReceiveInfo } = JSON.parse(ended.stdout);
    return receive;
  }

  /** What a client sees after an interruption: the moment before, or all of the next one. */
  async #needBefore(): Promise<void> {
    const info = await this.#info();
    if (info?.received === undefined) return;
    const { generation } = info.received;
    const digest = digestOf(await this.#export());
    assert(digest === this.#digests.get(generation), 'the copy is what it says that it is');
    const isBefore = generation === this.#beforeGeneration;
    assert(info.unfinished === undefined || isBefore, 'what is unfinished is not seen');
  }

  async #needCopy(target: Uint8Array): Promise<void> {
    assert(Buffer.compare(await this.#export(), target) === 0, 'the copy equals the disk');
    assert(Buffer.compare(this.#before, target) !== 0, 'and is another one than before');
  }

  async #export(): Promise<Uint8Array> {
    const file = join(this.#to, 'copy.raw');
    await varve(this.#to, ['export', 'copy', file, '--force']);
    return readFileSync(file);
  }

  /** Every moment that was sent is kept, and is what it was. */
  async #compareSnapshots(): Promise<number> {
    await using server = await Server.start(this.#to);
    const list: readonly { readonly label: string }[] = JSON.parse(
      await varve(this.#to, ['snapshot', 'list', 'copy', '--json']),
    );
    let compared = 0;
    for (const [generation, digest] of this.#digests) {
      const label = `received-gen-${generation}`;
      assert(
        list.some((one) => one.label === label),
        `there is a snapshot ${label}`,
      );
      const open = await openNbdExport(() => connectUnix(server.socket), `copy@${label}`);
      const content = new Uint8Array(SIZE);
      await open.device.read(byteOffset(0), content);
      await open.device.close();
      assert(digestOf(content) === digest, `snapshot ${label} equals what was sent`);
      compared += 1;
    }
    return compared;
  }
}

interface Running {
  readonly child: Program;
  readonly ended: Promise<number | null>;
  said(): string;
}

function start(directory: string, words: readonly string[]): Running {
  const parameters = [VARVE, ...words, '--dir', directory];
  const child = spawn(process.execPath, parameters, { stdio: ['pipe', 'pipe', 'pipe'] });
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()));
  const ended = once(child, 'close').then(() => child.exitCode);
  return { child, ended, said: () => said };
}

/** Whether or not it was: who reads may have been killed. */
async function taken({ child }: Running, bytes: Uint8Array): Promise<void> {
  await new Promise<void>((done) => {
    child.stdin.write(bytes, () => done());
  });
}

function digestOf(content: Uint8Array): string {
  return createHash('sha256').update(content).digest('hex');
}

export async function sendRounds({ moments, seed }: SendRoundsOptions): Promise<SendRoundsReport> {
  using root = temporaryDirectory();
  return await new SendRounds(root.path, seed).run(moments);
}
