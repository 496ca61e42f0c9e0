/**
 * What clients are refused, told to whoever runs the server: most NBD clients show only that there is
 * no such export, and not what the server says of it.
 *
 * Invariant: a client that asks all the time makes few lines, and none that a terminal takes for more
 * than text.
 */
import { isVarveError, type VarveError } from '../base/errors.ts';
import type { Clock } from '../base/world.ts';
import type { ExportDirectory, ExportListing, OpenExport } from '../device/block-device.ts';

const SPAN_US = 10_000_000;
const LINES_MAX = 8;
const LINE_CHARACTERS_MAX = 400;

interface Told {
  readonly line: string;
  readonly atUs: number;
}

export class ToldRefusals implements ExportDirectory {
  readonly #exports: ExportDirectory;
  readonly #clock: Clock;
  readonly #tell: (line: string) => void;
  /** Of the last ten seconds. */
  #recent: readonly Told[] = [];

  /** @param tell - one line, without its end */
  constructor(exports: ExportDirectory, clock: Clock, tell: (line: string) => void) {
    this.#exports = exports;
    this.#clock = clock;
    this.#tell = tell;
  }

  list(): Promise<readonly ExportListing[]> {
    return this.#exports.list();
  }

  async open(name: string): Promise<OpenExport> {
    try {
      return await this.#exports.open(name);
    } catch (error) {
      if (isVarveError(error)) this.#refused(name, error);
      throw error;
    }
  }

  #refused(name: string, { code, message }: VarveError): void {
    const atUs = this.#clock.monotonicUs();
    this.#recent = this.#recent.filter((one) => atUs - one.atUs < SPAN_US);
    const line = `refused a client "${name}": ${code}: ${message}`
      .replaceAll(/[^\u0020-\u007e]/g, '?')
      .slice(0, LINE_CHARACTERS_MAX);
    if (this.#recent.length >= LINES_MAX || this.#recent.some((one) => one.line === line)) return;
    this.#recent = [...this.#recent, { line, atUs }];
    this.#tell(line);
  }
}
