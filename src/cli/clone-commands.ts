/** clone, flatten: volumes that begin as others were. */
import type { Command } from 'commander';
import { parseSize, sizeText } from '../control/size-text.ts';
import { contextOf, shared, type Setup } from './context.ts';
import { say, sayJson } from './output.ts';

const CLONE_HELP = `
The clone is there at once, whatever the size, and shares everything with its origin: what it never
wrote is read from there. It has a history of its own, which begins now, and can be cloned itself. The
moment is kept by a snapshot of the origin: the one that is named, or one that is made, clone-NEW. That
can't be deleted while a clone needs it; \`varve flatten\` makes a clone independent.

A clone that has written nothing takes its log, 16M, and some kilobytes. What clients may write in one
request is a quarter of the log, 32M at most; --log-size gives it more, and a longer window.
To remove a clone, stop the server and remove its folder; then delete the snapshot.`;

const FLATTEN_HELP = `
What the volume never wrote is copied into its final storage, zeros left out; clients go on meanwhile,
and no moment changes. After an interruption of any kind, run it again: it goes on where it was. Then
the origin's snapshot can be deleted, or the file of a --base removed.`;

function addClone(program: Command, setup: Setup): void {
  const command = program
    .command('clone <origin> <new>')
    .description('make a writable volume that begins as a disk was at a moment; no copy')
    .option('--log-size <size>', 'size of its log (default: 16M)');
  shared(command, [
    'varve clone debian@golden web-1',
    'varve clone disk@-10m rescue --log-size 1G',
    'varve clone disk try                               as it is now',
  ])
    .addHelpText('after', CLONE_HELP)
    .action(async (of: string, name: string, flags: { readonly logSize?: string }) => {
      const logSize = flags.logSize === undefined ? undefined : parseSize(flags.logSize);
      const context = await contextOf(command, setup);
      const made = await context.withOperator((operator) =>
        context.withProgress(`making ${name}`, (progress) =>
          operator.clone(name, { of, logSize }, progress),
        ),
      );
      if (context.isJson) return sayJson(made);
      say(`made ${name}: ${sizeText(made.size)}, a clone of ${made.base ?? of}`);
    });
}

function addFlatten(program: Command, setup: Setup): void {
  const command = program
    .command('flatten <name>')
    .description('make a volume independent of what it is based on, while it is used');
  shared(command, ['varve flatten web-1', 'varve flatten web-1 --json'])
    .addHelpText('after', FLATTEN_HELP)
    .action(async (name: string) => {
      const context = await contextOf(command, setup);
      const report = await context.withOperator((operator) =>
        context.withProgress(`flattening ${name}`, (progress) => operator.flatten(name, progress)),
      );
      if (context.isJson) return sayJson({ name, ...report });
      say(`${name} no longer needs ${report.base}: ${sizeText(report.copiedBytes)} copied`);
    });
}

export function addCloneCommands(program: Command, setup: Setup): void {
  addClone(program, setup);
  addFlatten(program, setup);
}
