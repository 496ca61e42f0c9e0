/**
 * What a command says: results on standard output, for people or as JSON; errors and progress on
 * standard error.
 */
import { VarveError } from '../base/errors.ts';
import type { Progress } from '../volume/report.ts';
import type { SingleBar } from 'cli-progress';

const BAR_AFTER_MS = 1000;

export function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

export function sayJson(value: unknown): void {
  say(JSON.stringify(value, null, 2));
}

/** @returns the exit status */
export function sayError(error: unknown, isJson: boolean): number {
  // A bug is told with its stack, by Node itself.
  if (!(error instanceof VarveError)) throw error;
  const { code, message, next } = error;
  const text = isJson
    ? JSON.stringify({ error: { code, message, next } })
    : `varve: ${code}: ${message}\n  ${next}`;
  process.stderr.write(`${text}\n`);
  return error.exit;
}

/**
 * Progress on a terminal, for what takes more than a second; and the place where a person's Ctrl-C
 * is noticed, so that what was begun is cleared away.
 */
export class ProgressDisplay {
  readonly #task: string;
  readonly #isShown: boolean;
  readonly #startMs = performance.now();
  #bar: SingleBar | undefined;
  #loading = false;
  #interrupted = false;
  #ended = false;
  readonly #onSignal = (): void => {
    this.#interrupted = true;
  };

  constructor(task: string, { isJson }: { readonly isJson: boolean }) {
    this.#task = task;
    this.#isShown = process.stderr.isTTY && !isJson;
    process.once('SIGINT', this.#onSignal);
    process.once('SIGTERM', this.#onSignal);
    // A terminal that is closed sends more than one: that is no hurry.
    process.on('SIGHUP', this.#onSignal);
  }

  /** @throws VarveError INTERRUPTED */
  readonly report: Progress = (done, total) => {
    if (this.#interrupted) throw new VarveError('INTERRUPTED', this.#task);
    if (!this.#isShown) return;
    if (this.#bar !== undefined) {
      this.#bar.setTotal(total);
      this.#bar.update(done);
    } else if (!this.#loading && performance.now() - this.#startMs > BAR_AFTER_MS) {
      this.#loading = true;
      void this.#show(done, total);
    }
  };

  end(): void {
    this.#ended = true;
    process.off('SIGINT', this.#onSignal);
    process.off('SIGTERM', this.#onSignal);
    process.off('SIGHUP', this.#onSignal);
    this.#bar?.stop();
  }

  async #show(done: number, total: number): Promise<void> {
    const { SingleBar: Bar } = await import('cli-progress');
    if (this.#ended) return;
    const format = `${this.#task} {bar} {percentage} %  {eta_formatted} left`;
    this.#bar = new Bar({
      format,
      stream: process.stderr,
      hideCursor: true,
      clearOnComplete: true,
    });
    this.#bar.start(total, done);
  }
}

export interface Column {
  readonly head: string;
  readonly align?: 'left' | 'right';
}

/** A plain table; nothing but a line when there are no rows. */
export async function tableText(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
): Promise<string> {
  const { default: Table } = await import('cli-table3');
  const none = { top: '', 'top-mid': '', 'top-left': '', 'top-right': '' };
  const noBottom = { bottom: '', 'bottom-mid': '', 'bottom-left': '', 'bottom-right': '' };
  const noMiddle = { left: '', 'left-mid': '', mid: '', 'mid-mid': '', right: '' };
  const table = new Table({
    head: columns.map(({ head }) => head),
    colAligns: columns.map(({ align }) => align ?? 'left'),
    chars: { ...none, ...noBottom, ...noMiddle, 'right-mid': '', middle: '  ' },
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
  });
  for (const row of rows) table.push([...row]);
  return table
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n');
}

/** A word as a shell takes it. */
export function shellQuoted(word: string): string {
  return /^[A-Za-z0-9@%+=:,./_-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
