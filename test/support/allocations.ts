/**
 * A count of what is allocated as bytes: while `measured` runs, every typed array and Buffer that
 * our code asks for by its length goes through here.
 */
import { Buffer as NodeBuffer } from 'node:buffer';

export interface Allocations {
  /** Bytes of the largest single one. */
  largest: number;
  total: number;
}

/** What memory that nobody has written yet holds while it is counted. */
export const POISON = 0xa5;

const BUFFER_MAKERS = ['alloc', 'allocUnsafe', 'allocUnsafeSlow'] as const;

/** Runs `work`; one at a time in a process. What others do meanwhile is counted too. */
export async function measured<T>(
  work: () => T | Promise<T>,
): Promise<{ readonly value: T; readonly allocations: Allocations }> {
  const allocations: Allocations = { largest: 0, total: 0 };
  const count = (bytes: number): void => {
    allocations.total += bytes;
    if (bytes > allocations.largest) allocations.largest = bytes;
  };
  const restore: (() => void)[] = [];
  const replace = (object: object, name: string, value: unknown): void => {
    const before: unknown = Reflect.get(object, name);
    Reflect.set(object, name, value);
    restore.push(() => {
      Reflect.set(object, name, before);
    });
  };
  for (const type of [Uint8Array, Uint16Array, Uint32Array, Float64Array]) {
    const counted = new Proxy(type, {
      construct(target, args: readonly unknown[]): object {
        const [first] = args;
        if (typeof first === 'number') count(first * type.BYTES_PER_ELEMENT);
        const made: unknown = Reflect.construct(target, [...args]);
        return Object(made);
      },
    });
    replace(globalThis, type.name, counted);
  }
  for (const name of BUFFER_MAKERS) {
    const make = NodeBuffer[name].bind(NodeBuffer);
    replace(NodeBuffer, name, (bytes: number) => {
      count(bytes);
      const made = make(bytes);
      return name === 'alloc' ? made : made.fill(POISON);
    });
  }
  const concat = NodeBuffer.concat.bind(NodeBuffer);
  replace(NodeBuffer, 'concat', (list: readonly Uint8Array[], length?: number) => {
    const joined = concat(list, length);
    count(joined.length);
    return joined;
  });
  try {
    return { value: await work(), allocations };
  } finally {
    for (const undo of restore.toReversed()) undo();
  }
}
