/**
 * Lists that may be long: rows are said as they come, for people in columns, or as one JSON object
 * whose list has a row a line. Whoever reads slowly is waited for, so nothing piles up.
 */
import { once } from 'node:events';
import type { Column } from './output.ts';

export interface ListColumn extends Column {
  /** Characters; a longer value is said in full. */
  readonly width: number;
}

export interface ListHead {
  /** Members of the JSON object before the list. */
  readonly json: object;
  /** Lines for people before it. */
  readonly lines: readonly string[];
}

/** One list, said row by row. */
export class ListOutput {
  readonly #isJson: boolean;
  readonly #name: string;
  readonly #columns: readonly ListColumn[];
  #head: ListHead;
  #rows = 0;

  /** @param name - of the list, in JSON */
  constructor(
    name: string,
    columns: readonly ListColumn[],
    { isJson, head }: { readonly isJson: boolean; readonly head: ListHead },
  ) {
    this.#name = name;
    this.#columns = columns;
    this.#isJson = isJson;
    this.#head = head;
  }

  get rows(): number {
    return this.#rows;
  }

  /** One row: as a value for JSON, and as cells for people. */
  async row(value: object, cells: readonly string[]): Promise<void> {
    if (this.#rows === 0) await this.#begin();
    const first = this.#rows === 0;
    this.#rows += 1;
    if (this.#isJson) await write(`${first ? '' : ','}\n${JSON.stringify(value)}`);
    else await write(this.#line(cells));
  }

  /** @param json - members of the JSON object behind the list */
  async end(json: object, lines: readonly string[]): Promise<void> {
    if (this.#isJson) {
      if (this.#rows === 0) await this.#begin();
      const rest = JSON.stringify(json).slice(1);
      await write(`\n]${rest === '}' ? '' : ','}${rest}\n`);
      return;
    }
    for (const line of lines) await write(`${line}\n`);
  }

  async #begin(): Promise<void> {
    if (this.#isJson) {
      const members = JSON.stringify(this.#head.json).slice(0, -1);
      const comma = members === '{' ? '' : ',';
      await write(`${members}${comma}${JSON.stringify(this.#name)}:[`);
      return;
    }
    for (const line of this.#head.lines) await write(`${line}\n`);
    await write(this.#line(this.#columns.map(({ head }) => head)));
  }

  #line(cells: readonly string[]): string {
    const padded = this.#columns.map(({ width, align }, i) => {
      const cell = cells[i] ?? '';
      return align === 'right' ? cell.padStart(width) : cell.padEnd(width);
    });
    // A bar of progress that stands on this line of the terminal is drawn again below.
    const clear = process.stdout.isTTY ? '\r\u001b[K' : '';
    return `${clear}${padded.join('  ').trimEnd()}\n`;
  }
}

async function write(text: string): Promise<void> {
  if (!process.stdout.write(text)) await once(process.stdout, 'drain');
}
