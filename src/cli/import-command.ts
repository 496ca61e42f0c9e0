/** import: an image file over the beginning of a disk. */
import { resolve } from 'node:path';
import { Option, type Command } from 'commander';
import { isVarveError, VarveError } from '../base/errors.ts';
import { sizeText } from '../control/size-text.ts';
import type { BaseImage, ImageFormat } from '../image/base-image.ts';
import type { Vacated } from '../volume/report.ts';
import { contextOf, shared, type Context, type SharedFlags, type Setup } from './context.ts';
import { imageFormatOf } from './image-format.ts';
import { say, sayJson } from './output.ts';
import { undoCommand } from './undo-command.ts';

interface ImportFlags extends SharedFlags {
  readonly format?: ImageFormat | 'auto';
  readonly force?: boolean;
}

interface Imported extends Vacated {
  readonly name: string;
  readonly file: string;
  readonly format: ImageFormat;
  /** The image, then what it is based on. */
  readonly files: readonly string[];
  readonly bytes: number;
}

const ABOUT = `
Without --format the file is taken byte for byte, as by --format raw; one that begins as a qcow2
image is refused, since it can be either. For a guest that has a raw disk can write the header of a
qcow2 image into it, and name any file of this machine there as what it is based on. So give
--format qcow2 for images that you know to be some, and --format auto only for files that no guest
has ever written as a raw disk.

A qcow2 image (version 2 or 3, also compressed by zlib) is read with the files that it is based on,
which are told; they are raw or qcow2, and named with their format, as qemu-img has it by now. What
its internal snapshots kept is left out.

Clients that have the disk open keep what they have read, and would write it back: so it is refused
while there are any, unless --force ends their sessions. Unmount first. Nothing keeps a client from
coming while it is copied. What the disk held before can be opened, and comes back by the command that
is printed, for as long as the window holds it and the log has room to write it again. An import that
fails or is interrupted leaves a part of the image on the disk, and prints that command too.`;

interface Copied {
  readonly name: string;
  readonly file: string;
  readonly flags: ImportFlags;
}

/** A disk that is part of each is told with the way back, which nothing else would name. */
function halfDone(error: unknown, { name, flags }: Copied, { before }: Vacated): unknown {
  if (!isVarveError(error)) return error;
  const what = `${error.detail}; ${name} was gen=${before}, and may be in part what the image is`;
  const undo = undoCommand(name, `gen=${before}`, flags);
  const next = `run it again, or make the disk what it was: ${undo}`;
  return new VarveError(error.code, what, { cause: error, next });
}

/** @returns what it was before */
async function copy(context: Context, image: BaseImage, copied: Copied): Promise<Vacated> {
  const { name, file, flags } = copied;
  const { copyIn } = await import('../control/transfer.ts');
  return await context.withOperator(async (operator) => {
    const { size } = await operator.info(name);
    if (image.size > size) {
      const both = `${file} holds ${image.size} bytes, ${name} has ${size}`;
      throw new VarveError('FILE_BAD', `it does not fit: ${both}`);
    }
    const vacated = await operator.vacate(name, flags.force === true);
    try {
      await operator.withExport(name, 'write', ({ device }) =>
        context.withProgress(`importing ${file}`, (progress) => copyIn(image, device, progress)),
      );
    } catch (error) {
      throw halfDone(error, copied, vacated);
    }
    return vacated;
  });
}

async function importFile(
  context: Context,
  name: string,
  { file, flags }: { readonly file: string; readonly flags: ImportFlags },
): Promise<Imported> {
  if (name.includes('@')) throw new VarveError('READ_ONLY', `"${name}"`);
  const { openImage } = await import('../image/open-image.ts');
  const path = resolve(file);
  const format = await imageFormatOf(context, path, { format: flags.format, option: '--format' });
  const image = await openImage(context.tools.openDevice, path, format);
  try {
    const vacated = await copy(context, image, { name, file: path, flags });
    const of = { name, file: path, format, files: image.files, bytes: image.size };
    return { ...of, ...vacated };
  } finally {
    await image.close();
  }
}

export function addImport(program: Command, setup: Setup): void {
  const command = program
    .command('import <file> <name>')
    .description(
      'write the disk of an image over the beginning of a disk; what it held stays in the history',
    )
    .addOption(
      new Option('--format <format>', 'of the file; see below').choices(['raw', 'qcow2', 'auto']),
    )
    .option('--force', 'end the sessions of clients that have the disk open');
  shared(command, [
    'varve import debian-12.raw disk                    into a volume that is large enough',
    'varve import debian-12.qcow2 disk --format qcow2',
  ])
    .addHelpText('after', ABOUT)
    .action(async (file: string, name: string) => {
      const flags: ImportFlags = command.optsWithGlobals();
      const context = await contextOf(command, setup);
      const imported = await importFile(context, name, { file, flags });
      const undo = undoCommand(name, `gen=${imported.before}`, flags);
      if (context.isJson) return sayJson({ ...imported, undoCommand: undo });
      say(`imported ${sizeText(imported.bytes)} from ${file} (${imported.format}) into ${name}`);
      for (const below of imported.files.slice(1)) say(`  based on ${below}`);
      if (imported.sessionsEnded > 0) say(`  ${imported.sessionsEnded} sessions of clients ended`);
      say(`undo    ${undo}`);
    });
}
