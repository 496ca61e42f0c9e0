/**
 * What is due in a simulated world: a binary heap by time, ties broken by a number drawn when the
 * event was made, so that events of one instant come in a seeded order.
 */
export interface SimEvent {
  readonly atUs: number;
  readonly tie: number;
  /** Undefined once it ran or was cancelled. */
  call: (() => void) | undefined;
}

function isBefore(left: SimEvent, right: SimEvent): boolean {
  return left.atUs < right.atUs || (left.atUs === right.atUs && left.tie < right.tie);
}

export class EventQueue {
  readonly #heap: SimEvent[] = [];

  /** The earliest event that was not cancelled; stays in the queue. */
  peek(): SimEvent | undefined {
    for (;;) {
      const first = this.#heap[0];
      if (first === undefined || first.call !== undefined) return first;
      this.#removeFirst();
    }
  }

  pop(): SimEvent | undefined {
    const first = this.peek();
    if (first !== undefined) this.#removeFirst();
    return first;
  }

  push(event: SimEvent): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(event);
    while (at > 0) {
      const parentAt = (at - 1) >> 1;
      const parent = heap[parentAt];
      if (parent === undefined || !isBefore(event, parent)) break;
      heap[at] = parent;
      at = parentAt;
    }
    heap[at] = event;
  }

  #removeFirst(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    let at = 0;
    for (;;) {
      let childAt = 2 * at + 1;
      let child = heap[childAt];
      if (child === undefined) break;
      const right = heap[childAt + 1];
      if (right !== undefined && isBefore(right, child)) {
        childAt += 1;
        child = right;
      }
      if (!isBefore(child, last)) break;
      heap[at] = child;
      at = childAt;
    }
    heap[at] = last;
  }
}
