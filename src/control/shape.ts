/**
 * Shapes: what comes from outside (volume.json, control requests and answers) is looked at field
 * by field, and becomes a typed value or an error that names the field.
 *
 * Invariant: a shape takes nothing on trust, and gives back only what it has looked at.
 */
import { isUuid, type Uuid } from '../base/identity.ts';

export type Shape<T> = (value: unknown, place: string) => T;

type ValueOf<S> = S extends Shape<infer T> ? T : never;
type Values<S extends Readonly<Record<string, Shape<unknown>>>> = {
  readonly [K in keyof S]: ValueOf<S[K]>;
};

/** What does not fit: the caller gives it the code that fits the source. */
export class ShapeError extends Error {
  constructor(place: string, expected: string) {
    super(`${place} is not ${expected}`);
    this.name = 'ShapeError';
  }
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export const text: Shape<string> = (value, place) => {
  if (typeof value === 'string') return value;
  throw new ShapeError(place, 'a text');
};

export const flag: Shape<boolean> = (value, place) => {
  if (typeof value === 'boolean') return value;
  throw new ShapeError(place, 'true or false');
};

export const amount: Shape<number> = (value, place) => {
  if (typeof value === 'number' && Number.isFinite(value)) return value;
  throw new ShapeError(place, 'a number');
};

/** A safe integer from 0 on, made into a unit. */
export function unit<T>(make: (value: number) => T): Shape<T> {
  return (value, place) => {
    if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return make(value);
    throw new ShapeError(place, 'a whole number from 0 to 2^53 - 1');
  };
}

export function oneOf<T extends string>(members: readonly T[]): Shape<T> {
  return (value, place) => {
    const found = members.find((member) => member === value);
    if (found !== undefined) return found;
    throw new ShapeError(place, `one of ${members.join(', ')}`);
  };
}

/** Missing and null are undefined. */
export function optional<T>(shape: Shape<T>): Shape<T | undefined> {
  return (value, place) =>
    value === undefined || value === null ? undefined : shape(value, place);
}

export function list<T>(shape: Shape<T>): Shape<readonly T[]> {
  return (value, place) => {
    if (!Array.isArray(value)) throw new ShapeError(place, 'a list');
    const members: readonly unknown[] = value;
    return members.map((member, at) => shape(member, `${place}[${at}]`));
  };
}

export const uuid: Shape<Uuid> = (value, place) => {
  const found = text(value, place);
  if (isUuid(found)) return found;
  throw new ShapeError(place, 'a UUID');
};

/** The named fields; what else there is is left out. */
export function fields<S extends Readonly<Record<string, Shape<unknown>>>>(
  shapes: S,
): Shape<Values<S>>;
export function fields(shapes: Readonly<Record<string, Shape<unknown>>>): Shape<unknown> {
  return (value, place) => {
    if (!isRecord(value)) throw new ShapeError(place, 'an object');
    const found: Record<string, unknown> = {};
    for (const [name, shape] of Object.entries(shapes)) {
      found[name] = shape(value[name], place === '' ? name : `${place}.${name}`);
    }
    return found;
  };
}

/** @throws ShapeError for text that is no JSON */
export function parseJson(source: string, place: string): unknown {
  try {
    return JSON.parse(source);
  } catch {
    throw new ShapeError(place, 'JSON');
  }
}
