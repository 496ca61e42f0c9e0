/** The bytes of an NBD session as a client sends them, written down by hand: good ones and bad. */
import type { SeededRandom } from '../sim/random.ts';

const OPT_GO = 7;
const OPT_STRUCTURED_REPLY = 8;
const OPT_SET_META_CONTEXT = 10;
const OPTIONS = [1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 0xffff];
const COMMANDS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 0xffff];
const CMD_WRITE = 1;

export const CMD_READ = 0;

function option(number: number, data: Buffer): Buffer {
  const head = Buffer.alloc(16);
  head.write('IHAVEOPT', 'latin1');
  head.writeUInt32BE(number, 8);
  head.writeUInt32BE(data.length, 12);
  return Buffer.concat([head, data]);
}

function named(name: string): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(Buffer.byteLength(name));
  return Buffer.concat([length, Buffer.from(name)]);
}

/** Client flags, structured replies, a context, GO. */
export function handshake(exportName: string): Buffer {
  const one = Buffer.from([0, 0, 0, 1]);
  return Buffer.concat([
    Buffer.from([0, 0, 0, 3]),
    option(OPT_STRUCTURED_REPLY, Buffer.alloc(0)),
    option(OPT_SET_META_CONTEXT, Buffer.concat([named(exportName), one, named('base:allocation')])),
    option(OPT_GO, Buffer.concat([named(exportName), Buffer.from([0, 0])])),
  ]);
}

export interface Command {
  readonly type: number;
  readonly flags?: number;
  readonly offset: number;
  readonly length: number;
}

/** A request without its payload. */
export function command({ type, flags = 0, offset, length }: Command): Buffer {
  const head = Buffer.alloc(28);
  head.writeUInt32BE(0x25609513, 0);
  head.writeUInt16BE(flags, 4);
  head.writeUInt16BE(type, 6);
  head.writeBigUInt64BE(BigInt(offset), 16);
  head.writeUInt32BE(length, 24);
  return head;
}

export function writeHeader(offset: number, length: number): Buffer {
  return command({ type: CMD_WRITE, offset, length });
}

function anyCommands(random: SeededRandom, size: number): Buffer[] {
  return Array.from({ length: random.between(1, 12) }, () => {
    const type = random.pick(COMMANDS);
    const length = random.pick([0, 1, 512, 4096, 65_536, 1 << 20, 0xffff_ffff]);
    const offset = random.chance(0.9) ? random.below(size) : Number.MAX_SAFE_INTEGER;
    const flags = random.chance(0.7) ? 0 : random.below(65_536);
    const head = command({ type, flags, offset, length });
    const payload = type === CMD_WRITE ? random.bytes(Math.min(length, 65_536)) : Buffer.alloc(0);
    return Buffer.concat([head, payload]);
  });
}

function anyHandshake(random: SeededRandom, exportName: string): Buffer {
  const options = Array.from({ length: random.between(0, 4) }, () => {
    return option(random.pick(OPTIONS), Buffer.from(random.bytes(random.below(64))));
  });
  const whole = handshake(exportName);
  return Buffer.concat([whole.subarray(0, 4), ...options, whole.subarray(4)]);
}

/** A session with things in it that no client means. */
export function mutatedSession(random: SeededRandom, exportName: string, size: number): Buffer {
  const begin = random.chance(0.5) ? handshake(exportName) : anyHandshake(random, exportName);
  const bytes = Buffer.concat([begin, ...anyCommands(random, size)]);
  const isHandshakeSpared = random.chance(0.6);
  const from = isHandshakeSpared ? begin.length : 0;
  for (let i = random.below(8); i > 0 && bytes.length > from; i--) {
    const at = random.between(from, bytes.length - 1);
    if (random.chance(0.5)) bytes[at] = random.below(256);
    else bytes.copyWithin(at, random.below(bytes.length), Math.min(bytes.length, at + 64));
  }
  return random.chance(0.3) ? bytes.subarray(0, random.below(bytes.length)) : bytes;
}
