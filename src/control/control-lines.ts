/**
 * Lines of the control protocol: bytes in, texts out. No socket here.
 *
 * Invariants:
 *   - At most one line is kept, and at most as much of it as its reader allows.
 *   - A line that is too long is said to be so once, and skipped to its end.
 */
/** What a server keeps of a peer's request, of each of its peers. */
export const REQUEST_LINE_BYTES_MAX = 1024 ** 2;
/** What a client keeps of the answer of its own server, which tells of all volumes in one line. */
export const ANSWER_LINE_BYTES_MAX = 64 * 1024 ** 2;

const NEWLINE = 0x0a;

export type Line =
  { readonly kind: 'text'; readonly text: string } | { readonly kind: 'bad'; readonly why: string };

export class LineSplitter {
  #parts: Uint8Array[] = [];
  #length = 0;
  #skipping = false;
  readonly #decoder = new TextDecoder('utf-8', { fatal: true });
  readonly #bytesMax: number;

  /** @param bytesMax - of a line */
  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** @param bytes - kept until the line ends */
  push(bytes: Uint8Array): readonly Line[] {
    const lines: Line[] = [];
    let from = 0;
    for (let at = bytes.indexOf(NEWLINE); at >= 0; at = bytes.indexOf(NEWLINE, from)) {
      this.#add(bytes.subarray(from, at), lines);
      if (!this.#skipping) lines.push(this.#line());
      this.#skipping = false;
      from = at + 1;
    }
    this.#add(bytes.subarray(from), lines);
    return lines;
  }

  #add(part: Uint8Array, lines: Line[]): void {
    if (this.#skipping || part.length === 0) return;
    if (this.#length + part.length > this.#bytesMax) {
      this.#clear();
      this.#skipping = true;
      lines.push({ kind: 'bad', why: `a line is longer than ${this.#bytesMax} bytes` });
      return;
    }
    this.#parts.push(part);
    this.#length += part.length;
  }

  #line(): Line {
    const bytes = Buffer.concat(this.#parts);
    this.#clear();
    try {
      return { kind: 'text', text: this.#decoder.decode(bytes) };
    } catch {
      return { kind: 'bad', why: 'a line is not UTF-8' };
    }
  }

  #clear(): void {
    this.#parts = [];
    this.#length = 0;
  }
}

/** A value as one line. */
export function encodeLine(value: unknown): Uint8Array {
  return Buffer.from(`${JSON.stringify(value)}\n`);
}
