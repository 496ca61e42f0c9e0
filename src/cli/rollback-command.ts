/** rollback: a disk becomes again, in place, what it was at a moment. */
import type { Command } from 'commander';
import { VarveError, isVarveError } from '../base/errors.ts';
import { parseExportName } from '../control/export-directory.ts';
import { sizeText } from '../control/size-text.ts';
import { parseMoment, timeText } from '../volume/moment.ts';
import type { PointInTime, RollbackReport } from '../volume/report.ts';
import { contextOf, shared, type SharedFlags, type Setup } from './context.ts';
import { say, sayJson } from './output.ts';
import { undoCommand } from './undo-command.ts';

interface RollbackFlags extends SharedFlags {
  readonly to: string;
  readonly force?: boolean;
  readonly dryRun?: boolean;
}

const ABOUT = `
What differs between the moment and now is written again, as history like all other: nothing is lost,
and rolling back to the moment before the rollback undoes it. That moment is marked (before-rollback,
before-rollback-2, ...); a mark lasts as long as the window, so \`varve snapshot create\` it to keep it.

Clients that have the live disk open keep what they have read, and would write it back: so it is refused
while there are any, unless --force ends their sessions. Unmount first. Nobody can open the live disk
until the rollback has ended; its earlier moments can be opened all the time.

It is refused before anything is changed when the moment can't be read whole, or when what has to be
written does not fit into the free part of the log (--dry-run tells). Once it has begun it goes on to
its end: Ctrl-C, kill -9 or a power cut do not stop it half way, the next opening goes on with it
before anybody is served.
`;

function pointText(name: string, { generation, wallUs }: PointInTime): string {
  return `${name}@gen=${generation}  ${timeText(wallUs)}`;
}

function amounts({ dataBytes, zeroBytes }: RollbackReport): string {
  return `${sizeText(dataBytes)} written again, ${sizeText(zeroBytes)} made zeros`;
}

function dryText(name: string, report: RollbackReport): string {
  const { target, logBytes, freeBytes } = report;
  const fits = logBytes <= freeBytes ? 'it fits' : 'it does NOT fit';
  return [
    `to      ${pointText(name, target)}`,
    `would be ${amounts(report)}`,
    `takes at most ${sizeText(logBytes)} of the log, ${sizeText(freeBytes)} are free: ${fits}`,
  ].join('\n');
}

function doneText(name: string, report: RollbackReport, flags: RollbackFlags): string {
  const { target, before, after, undo, sessionsEnded, tookMs } = report;
  if (undo === undefined)
    return `${name} is as it was at ${pointText(name, target)}: nothing to do`;
  const ended = sessionsEnded === 0 ? '' : `; ${sessionsEnded} sessions of clients ended`;
  return [
    `rolled back ${name}: ${amounts(report)}, in ${(tookMs / 1000).toFixed(1)} s${ended}`,
    `to      ${pointText(name, target)}`,
    `before  ${pointText(name, before)}  (${name}@${undo})`,
    `now     ${pointText(name, after)}`,
    `undo    ${undoCommand(name, undo, flags)}`,
  ].join('\n');
}

/** What an interruption of the asker leaves is not known to it. */
function told(error: unknown, name: string): unknown {
  if (!isVarveError(error, 'INTERRUPTED')) return error;
  const what = `${error.detail}; what had begun goes on to its end`;
  const next = `\`varve info ${name}\` shows whether it had`;
  return new VarveError('INTERRUPTED', what, { cause: error, next });
}

async function act(
  setup: Setup,
  command: Command,
  { name, flags }: { readonly name: string; readonly flags: RollbackFlags },
): Promise<void> {
  const { volume, moment } = parseExportName(name);
  if (moment !== undefined) {
    const example = `varve rollback ${volume} --to ${moment}`;
    throw new VarveError('USAGE', `"${name}" is a moment, which stays as it is; write: ${example}`);
  }
  parseMoment(flags.to);
  const asked = { to: flags.to, force: flags.force === true, dryRun: flags.dryRun === true };
  const context = await contextOf(command, setup);
  let report: RollbackReport;
  try {
    report = await context.withOperator((operator) =>
      context.withProgress(`rolling back ${name}`, (progress) =>
        operator.rollback(name, asked, progress),
      ),
    );
  } catch (error) {
    throw told(error, name);
  }
  const fits = report.logBytes <= report.freeBytes;
  if (asked.dryRun && !fits) setup.setStatus(1);
  if (context.isJson) {
    const undo =
      report.undo === undefined ? {} : { undoCommand: undoCommand(name, report.undo, flags) };
    sayJson({ name, dryRun: asked.dryRun, fits, ...report, ...undo });
  } else say(asked.dryRun ? dryText(name, report) : doneText(name, report, flags));
}

export function addRollback(program: Command, setup: Setup): void {
  const command = program
    .command('rollback <name>')
    .description('make a disk again, in place, what it was at a moment; can be undone')
    .requiredOption('--to <moment>', 'a snapshot, mark or time, -10m, flush-3 or gen=184467')
    .option('--force', 'end the sessions of clients that have the live disk open')
    .option('--dry-run', 'only say how much would be written, and whether it fits into the log')
    .addHelpText('after', ABOUT);
  shared(command, [
    'varve rollback disk --to before-upgrade',
    'varve rollback disk --to 2026-11-21T14:03:27Z --dry-run',
    'varve rollback disk --to -10m --force',
    'varve rollback disk --to before-rollback           undoes the first one',
  ]).action((name: string) => act(setup, command, { name, flags: command.optsWithGlobals() }));
}
