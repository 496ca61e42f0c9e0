/** Numbers on the command line. */
import { isVarveError, VarveError } from '../base/errors.ts';
import {
  BLOCK_BYTES,
  byteCount,
  byteOffset,
  type ByteCount,
  type ByteOffset,
} from '../base/units.ts';
import { parseSize } from '../control/size-text.ts';
import { parseMoment } from '../volume/moment.ts';

const HEX = /^0x[0-9a-f]+$/i;

/**
 * A byte of a disk: `1048576`, `1M`, `0x100000` or `0`.
 * @param what - the parameter's name, for the error
 * @throws VarveError USAGE
 */
export function parseOffset(text: string, what: string): ByteOffset {
  if (text === '0') return byteOffset(0);
  const value = HEX.test(text) ? Number(text) : sizeOf(text);
  if (value !== undefined && Number.isSafeInteger(value)) return byteOffset(value);
  throw new VarveError(
    'USAGE',
    `${what}: got "${text}", not a byte such as 1048576, 1M or 0x100000`,
  );
}

function sizeOf(text: string): number | undefined {
  return known(() => parseSize(text));
}

/**
 * The size of a disk. A number without a unit is bytes, which is hardly ever meant.
 * @throws VarveError SIZE_BAD
 */
export function parseDiskSize(text: string): ByteCount {
  const size = parseSize(text);
  if (size >= BLOCK_BYTES) return size;
  const next = `did you mean ${text}G? A disk has at least ${BLOCK_BYTES} bytes`;
  throw new VarveError('SIZE_BAD', `${text} is bytes`, { next });
}

/**
 * Bytes a second; 0: no limit.
 * @throws VarveError SIZE_BAD
 */
export function parseRate(text: string): ByteCount {
  if (text === '0') return byteCount(0);
  const rate = sizeOf(text);
  if (rate !== undefined) return byteCount(rate);
  const next = 'give bytes a second, such as 64M, or 0 for no limit';
  throw new VarveError('SIZE_BAD', `--rate: got "${text}"`, { next });
}

/** What was not understood is told by the caller, in its own words. */
function known<T>(parse: () => T): T | undefined {
  try {
    return parse();
  } catch (error) {
    if (!isVarveError(error)) throw error;
    return undefined;
  }
}

/**
 * A whole number from `min` to `max`.
 * @throws VarveError USAGE
 */
export function parseWhole(
  text: string,
  what: string,
  { min = 1, max }: { readonly min?: number; readonly max: number },
): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= min && value <= max) return value;
  throw new VarveError('USAGE', `${what}: got "${text}", not ${min} to ${max}`);
}

/** A duration such as `90s`, as in a moment that is so long ago; undefined: it is none. */
export function durationUs(text: string): number | undefined {
  const moment = known(() => parseMoment(`-${text}`));
  return moment?.kind === 'ago' ? moment.agoUs : undefined;
}

const UNITS = [
  ['d', 86_400e6],
  ['h', 3600e6],
  ['m', 60e6],
  ['s', 1e6],
] as const;

/** A length of time in its two largest units: `2h`, `1d 4h`, `1m 30s`. */
export function spanText(us: number): string {
  if (us > 0 && us < 1e6) return `${Math.round(us / 1000)}ms`;
  const at = UNITS.findIndex(([, unitUs]) => us >= unitUs);
  if (at < 0) return '0s';
  const parts: string[] = [];
  let rest = us;
  for (const [name, unitUs] of UNITS.slice(at, at + 2)) {
    const count = Math.floor(rest / unitUs);
    rest -= count * unitUs;
    if (count > 0) parts.push(`${count}${name}`);
  }
  return parts.join(' ');
}
