/**
 * Moments, as people write them: text in, value out. No clock, no volume.
 *
 *   before-upgrade             a snapshot's or mark's name
 *   auto-2026-11-21T14:00:00Z  the name of an automatic snapshot
 *   2026-11-21T14:03:27Z       a time, also with fraction or offset
 *   -10m  -90s                 ago
 *   flush-3                    the third last client flush
 *   gen=184467                 exactly after that generation
 */
import { VarveError } from '../base/errors.ts';
import { generation, micros, type Generation, type Micros } from '../base/units.ts';

export type Moment =
  | { readonly kind: 'label'; readonly label: string }
  | { readonly kind: 'time'; readonly wallUs: Micros }
  | { readonly kind: 'ago'; readonly agoUs: Micros }
  | { readonly kind: 'flush'; readonly fromEnd: number }
  | { readonly kind: 'generation'; readonly generation: Generation };

export const LABEL_LENGTH_MAX = 64;
const LABEL = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
/** Of a full hour; with a number where the clock was set back over one. */
const AUTOMATIC = /^auto-\d{4}-\d{2}-\d{2}T\d{2}:00:00Z(?:-\d{1,9})?$/;
const TIME = /^(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}:\d{2})(?:\.(\d{1,9}))?([Zz]|[+-]\d{2}:\d{2})$/;
const AGO = /^-(\d+(?:\.\d+)?)(us|ms|s|m|h|d|w)$/;
const FLUSH = /^flush-(\d+)$/;
const GENERATION = /^gen=(\d+)$/;

const UNIT_US: Readonly<Record<string, number>> = {
  us: 1,
  ms: 1e3,
  s: 1e6,
  m: 60e6,
  h: 3600e6,
  d: 86_400e6,
  w: 604_800e6,
};

/** @throws VarveError MOMENT_BAD */
export function parseMoment(text: string): Moment {
  const bad = (why: string): VarveError => new VarveError('MOMENT_BAD', `"${text}": ${why}`);
  const ago = AGO.exec(text);
  if (ago !== null) {
    const agoUs = Math.round(Number(ago[1]) * (UNIT_US[ago[2] ?? ''] ?? NaN));
    if (!Number.isSafeInteger(agoUs)) throw bad('too long ago');
    return { kind: 'ago', agoUs: micros(agoUs) };
  }
  const flush = FLUSH.exec(text);
  if (flush !== null) {
    const fromEnd = Number(flush[1]);
    if (!Number.isSafeInteger(fromEnd) || fromEnd < 1) throw bad('flushes count from 1');
    return { kind: 'flush', fromEnd };
  }
  const exact = GENERATION.exec(text);
  if (exact !== null) {
    const value = Number(exact[1]);
    if (!Number.isSafeInteger(value)) throw bad('beyond 2^53 - 1');
    return { kind: 'generation', generation: generation(value) };
  }
  const time = TIME.exec(text);
  if (time !== null) return { kind: 'time', wallUs: parseTime(time, bad) };
  if (LABEL.test(text) || AUTOMATIC.test(text)) return { kind: 'label', label: text };
  throw bad('not a name, time, duration, flush or generation');
}

function parseTime(parts: RegExpExecArray, bad: (why: string) => VarveError): Micros {
  const [, day = '', clock = '', fraction = '', zone = ''] = parts;
  const ms = Date.parse(`${day}T${clock}${zone.toUpperCase()}`);
  if (Number.isNaN(ms)) throw bad('no such time');
  // Date.parse rolls 30 February over into March; a person who wrote that made a mistake.
  const local = new Date(Date.parse(`${day}T${clock}Z`)).toISOString().slice(0, 19);
  if (local !== `${day}T${clock}`) throw bad('no such day or time');
  const us = ms * 1000 + Number(fraction.padEnd(6, '0').slice(0, 6));
  if (us < 0) throw bad('before 1970');
  // From 2255 on no number holds it to the microsecond; it is future then, whichever it is.
  return micros(Math.min(us, Number.MAX_SAFE_INTEGER));
}

/** @throws VarveError LABEL_BAD when the text is no label, or would read as another moment */
export function checkLabel(text: string): string {
  if (!LABEL.test(text) || FLUSH.test(text)) {
    throw new VarveError('LABEL_BAD', `got "${text}"`);
  }
  return text;
}

/** What the automatic snapshot of an hour is called. @param endUs - a full hour */
export function automaticLabel(endUs: Micros): string {
  return `auto-${new Date(endUs / 1000).toISOString().slice(0, 19)}Z`;
}

/** A time as people read it: UTC, microseconds. */
export function timeText(wallUs: Micros): string {
  const ms = Math.floor(wallUs / 1000);
  const rest = String(wallUs - ms * 1000).padStart(3, '0');
  return new Date(ms).toISOString().replace('Z', `${rest}Z`);
}
