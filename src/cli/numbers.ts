/** Numbers on the command line. */
import { isVarveError, VarveError } from '../base/errors.ts';
import { byteOffset, type ByteOffset } from '../base/units.ts';
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
