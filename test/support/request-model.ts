/**
 * Random requests of a real client, and the disk that they leave, in memory: the model of what is
 * read back at any generation.
 */
import type { SeededRandom } from '../sim/random.ts';
import type { Connection } from './libnbd.ts';

const BLOCK = 4096;
const SECTOR = 512;
const REQUEST_BYTES_MAX = 128 * 1024;

export interface Request {
  readonly kind: 'write' | 'zero' | 'trim';
  readonly offset: number;
  readonly length: number;
  readonly value: number;
}

/** The disk after a number of requests. */
export class RequestModel {
  readonly size: number;
  /** In the order in which they were accepted. */
  readonly requests: Request[] = [];
  readonly content: Buffer;
  #applied = 0;

  constructor(size: number) {
    this.size = size;
    this.content = Buffer.alloc(size);
  }

  /** Mostly writes; zeroes at any sector, and trims of whole blocks. */
  any(random: SeededRandom): Request {
    const kind = random.chance(0.95) ? 'write' : random.pick(['zero', 'trim'] as const);
    const step = kind === 'trim' ? BLOCK : SECTOR;
    const length = random.between(1, REQUEST_BYTES_MAX / step) * step;
    const offset = random.below((this.size - length) / step + 1) * step;
    return { kind, offset, length, value: this.requests.length + 1 };
  }

  /** The content after the first `count` requests; only forwards. */
  advance(count = this.requests.length): Buffer {
    for (; this.#applied < count; this.#applied++) {
      const request = this.requests[this.#applied];
      if (request === undefined) throw new Error('the model knows that request');
      const { kind, offset, length, value } = request;
      if (kind === 'write') this.content.fill(eightOf(value), offset, offset + length);
      else this.content.fill(0, offset, offset + length);
    }
    return this.content;
  }
}

function eightOf(value: number): Buffer {
  const eight = Buffer.alloc(8, 0xa5);
  eight.writeUInt32LE(value);
  return eight;
}

/** @throws NbdError */
export async function send(disk: Connection, request: Request): Promise<void> {
  const { kind, offset, length, value } = request;
  if (kind === 'write') await disk.fill({ offset, length }, eightOf(value));
  else if (kind === 'zero') await disk.zero({ offset, length });
  else await disk.trim({ offset, length });
}

/** @throws Error that names the blocks that differ */
export function expectSame(found: Buffer, wanted: Buffer, what: string): void {
  if (found.equals(wanted)) return;
  const at = found.findIndex((byte, index) => byte !== wanted[index]);
  const got = `got ${found.subarray(at, at + 8).toString('hex')}`;
  const expected = `expected ${wanted.subarray(at, at + 8).toString('hex')}`;
  const wrong = new Set<number>();
  for (let byte = at; byte < found.length; byte += SECTOR) {
    if (!found.subarray(byte, byte + SECTOR).equals(wanted.subarray(byte, byte + SECTOR)))
      wrong.add(Math.floor(byte / BLOCK));
  }
  throw new Error(
    `${what}: byte ${at}: ${got}, ${expected}; in ${wrong.size} blocks: ` +
      [...wrong].slice(0, 20).join(', '),
  );
}
