/** The command line: which commands there are, and what becomes of their errors. */
import { Command, CommanderError } from 'commander';
import { VarveError } from '../base/errors.ts';
import type { Setup } from './context.ts';
import { addExport } from './export-command.ts';
import { addExplore } from './explore-command.ts';
import { addChangesCommands } from './changes-commands.ts';
import { addCloneCommands } from './clone-commands.ts';
import { addHistoryCommands } from './history-commands.ts';
import { sayError } from './output.ts';
import { addImport } from './import-command.ts';
import { addSendCommands } from './send-commands.ts';
import { addRetention } from './retention-command.ts';
import { addRollback } from './rollback-command.ts';
import { addServe } from './serve-command.ts';
import type { LoadTools } from './tools.ts';
import { addTop } from './top-command.ts';
import { addVolumeCommands } from './volume-commands.ts';

const KEEP_ALIVE_MS = 2 ** 30;

const MOMENTS = `
Moments, behind an @ in the name of an export:
  disk                        live, writable
  disk@before-upgrade         a snapshot or mark
  disk@auto-2026-11-21T14:00:00Z  an automatic snapshot, of the last moment up to then
  disk@2026-11-21T14:03:27Z   a time, also with fraction or offset
  disk@-10m, disk@-90s        so long ago
  disk@flush-3                the third last flush of a client
  disk@gen=184467             exactly after that request

Exit status: 0 done, 1 failed, 2 asked wrongly; 3 of explore: a state fails.`;

function makeProgram(version: string, setup: Setup): Command {
  const program = new Command('varve')
    .description('a block device that remembers: any past moment of a disk opens after the fact')
    .version(version)
    .addHelpText('after', MOMENTS)
    .configureOutput({ outputError: () => undefined })
    .exitOverride();
  // Subcommands take over what is set before they are made.
  addServe(program, setup);
  addVolumeCommands(program, setup);
  addCloneCommands(program, setup);
  addHistoryCommands(program, setup);
  addChangesCommands(program, setup);
  addRetention(program, setup);
  addRollback(program, setup);
  addTop(program, setup);
  addExport(program, setup);
  addImport(program, setup);
  addSendCommands(program, setup);
  addExplore(program, setup);
  return program;
}

/** What commander throws, in our words; undefined for help and version, which are no errors. */
function usageError(error: CommanderError): VarveError | undefined {
  if (error.exitCode === 0) return undefined;
  const isHelp = error.code === 'commander.help';
  const detail = isHelp ? 'a command is missing' : error.message.replace(/^error: /, '');
  return new VarveError('USAGE', detail);
}

/** `help snapshot create` as `snapshot create --help`: commander's own knows one word. */
function helpAsked(argv: readonly string[]): string[] {
  const [first, ...rest] = argv;
  return first === 'help' && rest.length > 1 ? [...rest, '--help'] : [...argv];
}

/**
 * @param argv - what stands behind the program's name
 * @returns the exit status
 */
export async function main(
  argv: readonly string[],
  { load, version }: { readonly load: LoadTools; readonly version: string },
): Promise<number> {
  let status = 0;
  const setup: Setup = {
    load,
    setStatus: (value) => {
      status = value;
    },
  };
  // The world's timers keep no process: while a command runs, this one does.
  const alive = setInterval(() => undefined, KEEP_ALIVE_MS);
  try {
    await makeProgram(version, setup).parseAsync(helpAsked(argv), { from: 'user' });
    return status;
  } catch (error) {
    const isJson = argv.includes('--json');
    if (!(error instanceof CommanderError)) return sayError(error, isJson);
    const usage = usageError(error);
    return usage === undefined ? 0 : sayError(usage, isJson);
  } finally {
    clearInterval(alive);
  }
}
