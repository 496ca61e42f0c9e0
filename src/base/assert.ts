/** Assertions: a bug stops the process; the message says what holds, not what broke. */
import { AssertionError } from 'node:assert';

export function assert(holds: boolean, invariant: string): asserts holds {
  if (!holds) throw new AssertionError({ message: `broken invariant: ${invariant}` });
}

/** The `default` of a total switch: a new member of the union is a compile error here. */
export function unreachable(value: never): never {
  throw new AssertionError({ message: `unreachable case: ${JSON.stringify(value)}` });
}
