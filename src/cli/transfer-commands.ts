/** export and import: whole disks, out to files and in. */
import { rename, stat, unlink } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import type { Command } from 'commander';
import { assert } from '../base/assert.ts';
import { VarveError } from '../base/errors.ts';
import type { ByteCount } from '../base/units.ts';
import { sizeText } from '../control/size-text.ts';
import type { Copied } from '../control/transfer.ts';
import { fromSystemError, systemCode } from '../device/system-error.ts';
import type { LowerDevice, OpenDevice } from '../device/lower-device.ts';
import { contextOf, shared, type Context, type Setup } from './context.ts';
import { say, sayJson } from './output.ts';

interface ExportFlags {
  readonly force?: boolean;
  readonly keepGoing?: boolean;
}

/** Also of the live disk one moment is copied: writes may go on meanwhile. */
function momentOf(name: string): string {
  return name.includes('@') ? name : `${name}@-0s`;
}

/** Whether a file stands there that is to be replaced. */
async function needTarget(path: string, { force }: ExportFlags): Promise<void> {
  try {
    const found = await stat(path);
    if (!found.isFile()) {
      throw new VarveError('FILE_BAD', `${path} is not a file; nbdcopy writes to devices`);
    }
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return;
    throw fromSystemError(error, `looking at ${path}`);
  }
  if (force !== true) throw new VarveError('FILE_EXISTS', path);
}

/** Gives `fill` a new sparse file beside `path`, which takes its place when it is whole. */
async function replaceFile(
  path: string,
  openDevice: OpenDevice,
  { size, fill }: { size: ByteCount; fill: (device: LowerDevice) => Promise<void> },
): Promise<void> {
  const temporary = join(dirname(path), `.${basename(path)}.${process.pid}.part`);
  const device = await openDevice(temporary, { create: true, size });
  try {
    try {
      await fill(device);
      await device.sync('close');
    } finally {
      await device.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await unlink(temporary);
    throw fromSystemError(error, `writing ${path}`);
  }
}

function addExport(program: Command, setup: Setup): void {
  const command = program
    .command('export <name> <file>')
    .description('copy a disk, or any moment of it, to a raw sparse file')
    .option('--force', 'replace an existing file')
    .option('--keep-going', 'leave zeros where a block can not be read, name it, and exit 1');
  shared(command, [
    'varve export disk@-10m rescued.raw',
    'varve export disk@2026-11-21T14:03:27Z rescued.raw --force',
    'varve export disk rest.raw --keep-going',
  ]).action(async (name: string, file: string, flags: ExportFlags) => {
    const path = resolve(file);
    const context = await contextOf(command, setup);
    await needTarget(path, flags);
    const { copyOut } = await import('../control/transfer.ts');
    const done = await context.withOperator((operator) =>
      operator.withExport(momentOf(name), 'read', async ({ device, canonicalName }) => {
        let copied: Copied | undefined;
        const { openDevice } = context.tools;
        await replaceFile(path, openDevice, {
          size: device.size,
          fill: async (target) => {
            copied = await context.withProgress(`exporting ${name}`, (progress) =>
              copyOut(device, target, progress, { keepGoing: flags.keepGoing === true }),
            );
          },
        });
        return { export: canonicalName, file: path, size: device.size, ...needed(copied) };
      }),
    );
    if (done.unreadable.length > 0) setup.setStatus(1);
    if (context.isJson) return sayJson(done);
    const held = `${sizeText(done.size)}, ${sizeText(done.dataBytes)} of it data`;
    say(`exported ${done.export} to ${file}: ${held}`);
    for (const { offset, length, why } of done.unreadable) {
      say(`UNREADABLE  byte ${offset}, ${length} bytes: ${why}`);
    }
    if (done.unreadable.length > 0) {
      const bytes = done.unreadable.reduce((sum, { length }) => sum + length, 0);
      say(`${sizeText(bytes)} could not be read; the file has zeros there`);
    }
  });
}

function needed<T>(value: T | undefined): T {
  assert(value !== undefined, 'a file that was replaced was filled');
  return value;
}

async function importFile(context: Context, file: string, name: string): Promise<number> {
  if (name.includes('@')) throw new VarveError('READ_ONLY', `"${name}"`);
  const { copyIn } = await import('../control/transfer.ts');
  const path = resolve(file);
  const options = { readOnly: true, exclusiveBlockDevice: false };
  const source = await context.tools.openDevice(path, options);
  try {
    await context.withOperator((operator) =>
      operator.withExport(name, 'write', async ({ device }) => {
        if (source.size > device.size) {
          const both = `${path} has ${source.size} bytes, ${name} has ${device.size}`;
          throw new VarveError('FILE_BAD', `it does not fit: ${both}`);
        }
        await context.withProgress(`importing ${file}`, (progress) =>
          copyIn(source, device, progress),
        );
      }),
    );
    return source.size;
  } finally {
    await source.close();
  }
}

function addImport(program: Command, setup: Setup): void {
  const command = program
    .command('import <file> <name>')
    .description(
      'write a raw file over the beginning of a disk; what it held stays in the history',
    );
  shared(command, ['varve import debian-12.raw disk']).action(
    async (file: string, name: string) => {
      const context = await contextOf(command, setup);
      const bytes = await importFile(context, file, name);
      if (context.isJson) return sayJson({ name, file: resolve(file), bytes });
      say(`imported ${sizeText(bytes)} from ${file} into ${name}`);
    },
  );
}

export function addTransferCommands(program: Command, setup: Setup): void {
  addExport(program, setup);
  addImport(program, setup);
}
