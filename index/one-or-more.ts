/** A map that holds one entry most of the time, and is small then: a Map of one takes 200 bytes. */
export class OneOrMore<Key, Value> {
  #key: Key | undefined;
  #value: Value | undefined;
  #more: Map<Key, Value> | undefined;

  get size(): number {
    return this.#more?.size ?? (this.#value === undefined ? 0 : 1);
  }

  get(key: Key): Value | undefined {
    if (this.#more !== undefined) return this.#more.get(key);
    return this.#key === key ? this.#value : undefined;
  }

  set(key: Key, value: Value): void {
    if (this.#more === undefined && this.#value !== undefined && this.#key !== key) {
      this.#more = new Map(this);
    }
    if (this.#more !== undefined) this.#more.set(key, value);
    else [this.#key, this.#value] = [key, value];
  }

  delete(key: Key): void {
    if (this.#more !== undefined) this.#more.delete(key);
    else if (this.#key === key) [this.#key, this.#value] = [undefined, undefined];
  }

  *[Symbol.iterator](): Generator<[Key, Value]> {
    if (this.#more !== undefined) yield* this.#more;
    else if (this.#key !== undefined && this.#value !== undefined) yield [this.#key, this.#value];
  }
}
