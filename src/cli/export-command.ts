/** export: a disk, or any moment of it, to an image file. */
import { stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { Option, type Command } from 'commander';
import { VarveError } from '../base/errors.ts';
import { parseExportName } from '../control/export-directory.ts';
import type { Exported } from '../control/exporter.ts';
import type { ExportFormat, MomentIdentity, PartNote } from '../control/export-part.ts';
import type { Operator } from '../control/operations.ts';
import { sizeText } from '../control/size-text.ts';
import { fromSystemError, systemCode } from '../device/system-error.ts';
import type { OpenExport } from '../device/block-device.ts';
import { contextOf, shared, type Context, type Setup } from './context.ts';
import { say, sayJson } from './output.ts';

interface ExportFlags {
  readonly format: ExportFormat;
  readonly resume?: boolean;
  readonly force?: boolean;
  readonly keepGoing?: boolean;
}

interface Done extends Exported {
  readonly export: string;
  readonly file: string;
  readonly format: ExportFormat;
  readonly size: number;
  /** Where an interrupted export was gone on with; 0: at the beginning. */
  readonly resumedAt: number;
}

const ABOUT = `
Until it is whole and durable the image is called FILE.part, with a note beside it, FILE.part.json.
An export that was interrupted, by Ctrl-C, kill -9 or a power cut, is continued by the same command
with --resume: the same moment, as long as the window or a snapshot has it, from the last note on.
With --resume one that was not begun is begun. Where FILE itself is there it is refused, with
--resume too: an export has ended, and FILE is whole.`;

/** Also of the live disk one moment is copied: writes may go on meanwhile. */
function momentOf(name: string): string {
  return name.includes('@') ? name : `${name}@-0s`;
}

/** Whether a file stands there that is to be replaced. */
async function needTarget(path: string, { force, resume }: ExportFlags): Promise<void> {
  try {
    const found = await stat(path);
    if (!found.isFile()) {
      throw new VarveError('FILE_BAD', `${path} is not a file; nbdcopy writes to devices`);
    }
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return;
    throw fromSystemError(error, `looking at ${path}`);
  }
  if (force === true) return;
  const ended = 'nothing has to be done if it is what was exported; --force exports it again';
  throw new VarveError('FILE_EXISTS', path, { next: resume === true ? ended : undefined });
}

async function identityOf(
  operator: Operator,
  asked: string,
  { device, description }: OpenExport,
): Promise<MomentIdentity> {
  const { toldMoment } = await import('../control/moment-text.ts');
  const volumes = await operator.list();
  const { volume } = parseExportName(asked);
  const found = volume === '' ? volumes[0] : volumes.find(({ name }) => name === volume);
  const moment = toldMoment(description);
  if (found === undefined || moment === undefined) {
    throw new VarveError('PROTOCOL', `"${description}" does not tell the moment of ${asked}`);
  }
  return { uuid: found.uuid, ...moment, size: device.size };
}

/** What is gone on with; undefined to begin at the beginning. */
async function unfinished(
  context: Context,
  path: string,
  { resume, force }: ExportFlags,
): Promise<PartNote | undefined> {
  const { findPart, partPaths } = await import('../control/export-part.ts');
  const paths = partPaths(path);
  const note = await findPart(context.tools.files, paths);
  if (note === undefined || resume === true) return note;
  if (force === true) return undefined;
  const of = `${paths.part}, ${note.done} of ${note.size} bytes of ${note.canonicalName}`;
  throw new VarveError('PART_EXISTS', of);
}

async function exportTo(
  context: Context,
  name: string,
  { path, flags }: { readonly path: string; readonly flags: ExportFlags },
): Promise<Done> {
  const { exportImage, firstNote } = await import('../control/exporter.ts');
  const { needSame, partPaths } = await import('../control/export-part.ts');
  const { format, keepGoing } = flags;
  const part = await unfinished(context, path, flags);
  const asked = momentOf(name);
  // What "ten minutes ago" was when it was begun; another moment by now.
  const wanted = part !== undefined && part.asked === asked ? part.canonicalName : asked;
  const { files, openDevice } = context.tools;
  return context.withOperator((operator) =>
    operator.withExport(wanted, 'read', async (open) => {
      const { device, canonicalName } = open;
      const identity = await identityOf(operator, asked, open);
      if (part !== undefined) needSame(part, { ...identity, format }, partPaths(path).part);
      const note = part ?? firstNote(identity, { asked, canonicalName, format });
      const done = await context.withProgress(`exporting ${name}`, (progress) =>
        exportImage(
          { files, openDevice },
          {
            device,
            file: path,
            note,
            keepGoing: keepGoing === true,
            replaces: flags.force === true,
            progress,
          },
        ),
      );
      const of = { export: note.canonicalName, file: path, format };
      return { ...of, size: device.size, resumedAt: note.done, ...done };
    }),
  );
}

function sayDone(done: Done, file: string): void {
  const held = `${sizeText(done.size)}, ${sizeText(done.dataBytes)} of it data`;
  say(`exported ${done.export} to ${file}: ${held}`);
  if (done.resumedAt > 0) say(`went on at ${sizeText(done.resumedAt)}`);
  for (const { offset, length, why } of done.unreadable) {
    say(`UNREADABLE  byte ${offset}, ${length} bytes: ${why}`);
  }
  if (done.unreadable.length > 0) {
    const bytes = done.unreadable.reduce((sum, { length }) => sum + length, 0);
    say(`${sizeText(bytes)} could not be read; the file has zeros there`);
  }
}

export function addExport(program: Command, setup: Setup): void {
  const command = program
    .command('export <name> <file>')
    .description('copy a disk, or any moment of it, to a sparse image file')
    .addOption(
      new Option('--format <format>', 'of the image').choices(['raw', 'qcow2']).default('raw'),
    )
    .option('--resume', 'go on with an export that was interrupted')
    .option('--force', 'replace an existing file, and forget an interrupted export to it')
    .option('--keep-going', 'leave zeros where a block can not be read, name it, and exit 1');
  shared(command, [
    'varve export disk@-10m rescued.raw',
    'varve export disk@before-upgrade old.qcow2 --format qcow2',
    'varve export disk@before-upgrade old.qcow2 --format qcow2 --resume',
    'varve export disk@2026-11-21T14:03:27Z rescued.raw --force',
    'varve export disk rest.raw --keep-going',
  ])
    .addHelpText('after', ABOUT)
    .action(async (name: string, file: string, flags: ExportFlags) => {
      const path = resolve(file);
      const context = await contextOf(command, setup);
      await needTarget(path, flags);
      const done = await exportTo(context, name, { path, flags });
      if (done.unreadable.length > 0) setup.setStatus(1);
      if (context.isJson) sayJson(done);
      else sayDone(done, file);
    });
}
