/** import: an image file over the beginning of a disk. */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { VarveError } from '../base/errors.ts';
import { sizeText } from '../control/size-text.ts';
import { contextOf, shared, type Context, type Setup } from './context.ts';
import { say, sayJson } from './output.ts';

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

export function addImport(program: Command, setup: Setup): void {
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
