/** Sizes as people write and read them: powers of 1024. */
import { VarveError } from '../base/errors.ts';
import { byteCount, type ByteCount } from '../base/units.ts';

const UNITS = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const;
const SIZE = /^(\d+(?:\.\d+)?)(?:([KMGTP])(?:i?B)?)?$/i;

/**
 * `10G`, `512M`, `64K`, `1.5T`, or bytes.
 * @throws VarveError SIZE_BAD
 */
export function parseSize(text: string): ByteCount {
  const parts = SIZE.exec(text.trim());
  if (parts === null) throw new VarveError('SIZE_BAD', `got "${text}"`);
  const power = ' KMGTP'.indexOf((parts[2] ?? ' ').toUpperCase());
  const bytes = Number(parts[1]) * 1024 ** power;
  if (!Number.isSafeInteger(bytes) || bytes <= 0) throw new VarveError('SIZE_BAD', `got "${text}"`);
  return byteCount(bytes);
}

/** The next larger size as a command line takes it: `300M`, `10G`. */
export function sizeArgument(bytes: number): string {
  const [kib, mib, gib] = [1, 2, 3].map((power) => Math.ceil(bytes / 1024 ** power));
  if (kib !== undefined && kib < 1024) return `${kib}K`;
  return mib !== undefined && mib < 1024 ? `${mib}M` : `${gib}G`;
}

export function sizeText(bytes: number): string {
  let value = bytes;
  let at = 0;
  for (; value >= 1024 && at < UNITS.length - 1; at++) value /= 1024;
  return `${Number(value.toFixed(at === 0 ? 0 : 2))} ${UNITS[at]}`;
}
