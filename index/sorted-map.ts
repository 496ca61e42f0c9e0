/**
 * The B+tree of the index: `sorted-btree` keyed by numbers.
 *
 * Invariants:
 *   - Keys are finite numbers, ordered as numbers.
 *   - `clone()` is O(1): both trees share nodes and copy those that they change.
 *
 * The package is CommonJS. Native ESM sees its class in `default` of the imported object; a bundler
 * or test runner that unwraps CommonJS hands the class itself.
 */
import sorted from 'sorted-btree';

export type SortedMap<V> = sorted.default<number, V>;

const SortedTree: typeof sorted.default = 'default' in sorted ? sorted.default : sorted;

/** @param nodeSizeMax - keys in a node; small nodes make the copies behind a clone small */
export function sortedMap<V>(nodeSizeMax = 32): SortedMap<V> {
  return new SortedTree<number, V>([], compareNumbers, nodeSizeMax);
}

function compareNumbers(left: number, right: number): number {
  return left - right;
}
