/** What all commands share: the options that every one of them has, and how they are run. */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { VarveError } from '../base/errors.ts';
import type { Operator } from '../control/operations.ts';
import type { VolumeDirectory } from '../control/volume-directory.ts';
import { WRITE_MODES, type Progress, type WriteMode } from '../volume/report.ts';
import { ProgressDisplay } from './output.ts';
import type { LoadTools, Tools } from './tools.ts';

export const DIRECTORY_DEFAULT = './varve-data';

export interface SharedFlags {
  readonly dir?: string;
  readonly json?: boolean;
}

/** A command being run. */
export class Context {
  readonly tools: Tools;
  readonly directory: VolumeDirectory;
  readonly isJson: boolean;

  constructor(tools: Tools, directory: VolumeDirectory, isJson: boolean) {
    this.tools = tools;
    this.directory = directory;
    this.isJson = isJson;
  }

  async withOperator<T>(work: (operator: Operator) => Promise<T>): Promise<T> {
    const operator = await this.tools.operator(this.directory);
    try {
      return await work(operator);
    } finally {
      await operator.close();
    }
  }

  async withProgress<T>(task: string, work: (progress: Progress) => Promise<T>): Promise<T> {
    const display = new ProgressDisplay(task, { isJson: this.isJson });
    try {
      return await work(display.report);
    } finally {
      display.end();
    }
  }
}

export interface Setup {
  readonly load: LoadTools;
  /** The exit status of what succeeded with something to tell (a check that found damage). */
  setStatus(status: number): void;
}

/** Gives a command the options of all, and its examples. */
export function shared(command: Command, examples: readonly string[]): Command {
  return command
    .option(
      '--dir <dir>',
      `directory of the volumes (default: $VARVE_DIR, else ${DIRECTORY_DEFAULT})`,
    )
    .option('--json', 'print JSON')
    .addHelpText('after', `\nExamples:\n${examples.map((line) => `  $ ${line}`).join('\n')}`);
}

export function directoryPath(command: Command): string {
  const { dir } = command.optsWithGlobals<SharedFlags>();
  return resolve(dir ?? process.env['VARVE_DIR'] ?? DIRECTORY_DEFAULT);
}

export async function contextOf(command: Command, { load }: Setup): Promise<Context> {
  const path = directoryPath(command);
  const { json } = command.optsWithGlobals<SharedFlags>();
  const tools = await load();
  return new Context(tools, tools.directory(path), json === true);
}

/** @throws VarveError USAGE */
export function parseMode(text: string): WriteMode {
  const mode = WRITE_MODES.find((known) => known === text);
  if (mode !== undefined) return mode;
  throw new VarveError('USAGE', `got the mode "${text}", not one of ${WRITE_MODES.join(', ')}`);
}
