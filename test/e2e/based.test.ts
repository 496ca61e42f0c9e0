/** Volumes on images that qemu made, and clones of them, as real clients see them. */
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { describeWith } from '../support/clients.ts';
import { temporaryDirectory } from '../support/files.ts';
import { run, varve } from '../support/run.ts';
import { Server } from '../support/server.ts';

async function image(path: string, words: readonly string[], size: string): Promise<void> {
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', ...words, path, size]);
}

async function write(target: readonly string[], commands: readonly string[]): Promise<void> {
  await run('qemu-io', [
    ...target.slice(0, -1),
    ...commands.flatMap((one) => ['-c', one]),
    target.at(-1) ?? '',
  ]);
}

describeWith(['qemu-img', 'qemu-io', 'nbdcopy', 'nbdinfo'], 'a disk based on an image', () => {
  it('is the chain that qemu made, is written beside it, and is cloned and flattened', async () => {
    using directory = temporaryDirectory();
    const at = (name: string): string => join(directory.path, name);
    await image(at('first.qcow2'), [], '300M');
    await write(['-f', 'qcow2', at('first.qcow2')], ['write -P 1 0 1M', 'write -P 2 100M 300k']);
    await run('qemu-img', ['convert', '-c', '-O', 'qcow2', at('first.qcow2'), at('packed.qcow2')]);
    await image(at('second.qcow2'), ['-F', 'qcow2', '-b', at('packed.qcow2')], '300M');
    await write(['-f', 'qcow2', at('second.qcow2')], ['write -P 3 512k 1M', 'write -z 100M 64k']);

    const data = at('data');
    const words = ['--base', at('second.qcow2'), '--base-format', 'qcow2', '--log-size', '100M'];
    await varve(data, ['create', 'disk', ...words]);
    await using server = await Server.start(data);
    const same = async (name: string, format: string, file: string): Promise<void> => {
      await run('qemu-img', ['compare', '-f', 'raw', '-F', format, server.uri(name), file]);
    };
    await same('disk', 'qcow2', at('second.qcow2'));
    const map = await run('nbdinfo', ['--map', '--json', server.uri('disk')]);
    expect(map).toContain('"hole');

    // The same writes to the volume and to an overlay of qemu's.
    const overlay = at('overlay.qcow2');
    await image(overlay, ['-F', 'qcow2', '-b', at('second.qcow2')], '300M');
    const changes = [
      'write -P 7 1000 5000',
      'discard 100M 2M',
      'write -z 600k 100k',
      'write -P 8 299M 1M',
      'flush',
    ];
    await write(['-f', 'raw', server.uri('disk')], changes);
    await write(
      ['-f', 'qcow2', overlay],
      changes.map((one) => one.replace('discard', 'write -z')),
    );
    await same('disk', 'qcow2', overlay);

    await varve(data, ['clone', 'disk', 'other']);
    await same('other', 'qcow2', overlay);
    const more = ['write -P 9 2M 3M', 'write -z 0 4k', 'flush'];
    await write(['-f', 'raw', server.uri('other')], more);
    await same('disk', 'qcow2', overlay);
    await varve(data, ['flatten', 'other']);
    await write(['-f', 'raw', server.uri('disk')], ['write -P 5 0 10M', 'flush']);
    await write(['-f', 'qcow2', overlay], more);
    await same('other', 'qcow2', overlay);
    await run('nbdcopy', [server.uri('other'), at('copy.raw')]);
    await run('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', at('copy.raw'), overlay]);
    await same('disk@gen=0', 'qcow2', at('second.qcow2'));
  });
});
