/** Numbers on the command line. */
import { VarveError } from '../base/errors.ts';
import { byteOffset, type ByteOffset } from '../base/units.ts';
import { parseSize } from '../control/size-text.ts';

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
  try {
    return parseSize(text);
  } catch {
    return undefined;
  }
}

/**
 * A count from 1 to `max`.
 * @throws VarveError USAGE
 */
export function parseCount(text: string, what: string, max: number): number {
  const count = Number(text);
  if (/^\d+$/.test(text) && count >= 1 && count <= max) return count;
  throw new VarveError('USAGE', `${what}: got "${text}", not 1 to ${max}`);
}
