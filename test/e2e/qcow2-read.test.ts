/** Images that qemu-img made, in many shapes: what Varve reads of them is what qemu-img reads. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { byteCount, byteOffset } from '../../src/base/units.ts';
import { STATE_HOLE, STATE_ZERO } from '../../src/device/block-device.ts';
import { FileDevice } from '../../src/device/file-device.ts';
import type { BaseImage } from '../../src/image/base-image.ts';
import { openImage } from '../../src/image/open-image.ts';
import { describeWith } from '../support/clients.ts';
import { temporaryDirectory } from '../support/files.ts';
import { run, varve, varveToEnd } from '../support/run.ts';

const MIB = 2 ** 20;
const SIZE = 24 * MIB;

const open = (path: string): Promise<BaseImage> =>
  openImage((at, options) => FileDevice.open(at, options), path, 'qcow2');

/** A disk with text that packs well, noise that does not, and holes. */
function source(): Buffer {
  const bytes = Buffer.alloc(SIZE);
  bytes.fill('varve ', MIB, 3 * MIB);
  let state = 1;
  for (let at = 5 * MIB; at < 6 * MIB; at += 4) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    bytes.writeUInt32LE(state, at);
  }
  bytes.fill('x', 9 * MIB + 12_345, 9 * MIB + 12_400);
  bytes.fill('end', SIZE - 700);
  return bytes;
}

/** Reads all of it in pieces that begin anywhere, and looks at what is said of zeros. */
async function compare(path: string, directory: string): Promise<void> {
  const raw = join(directory, 'as-qemu-reads.raw');
  await run('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', path, raw]);
  const expected = readFileSync(raw);
  const image = await open(path);
  expect(image.size).toBe(expected.length);
  const found = Buffer.alloc(image.size, 0xaa);
  for (let at = 0; at < found.length;) {
    const length = Math.min(found.length - at, 1_234_567);
    await image.read(byteOffset(at), found.subarray(at, at + length));
    at += length;
  }
  expect(found.equals(expected)).toBe(true);
  for (let at = 0; at < image.size;) {
    for (const { length, flags } of await image.extents(
      byteOffset(at),
      byteCount(image.size - at),
      64,
    )) {
      if ((flags & STATE_ZERO) !== 0) {
        const part = expected.subarray(at, at + length);
        expect(part.equals(Buffer.alloc(length)), `zeros at ${at}`).toBe(true);
      }
      expect([0, STATE_ZERO, STATE_ZERO | STATE_HOLE]).toContain(flags);
      at += length;
    }
  }
  await image.close();
}

/** In the header of an image: how it is encrypted. */
const CRYPT_METHOD_AT = 32;
const LUKS = 2;

describeWith(['qemu-img', 'qemu-io'], 'an image of qemu-img', () => {
  it.each([
    ['512', '2M'],
    ['4k', '64k'],
  ])('with clusters of %s and %s, plain and compressed, in both versions', async (...sizes) => {
    using directory = temporaryDirectory();
    const { path } = directory;
    const raw = join(path, 'source.raw');
    writeFileSync(raw, source());
    for (const size of sizes) {
      for (const [n, more] of [[], ['-c'], ['-c', '-o', 'compat=0.10'], ['-S', '0']].entries()) {
        const image = join(path, `${size}-${n}.qcow2`);
        const words = ['-f', 'raw', '-O', 'qcow2', '-o', `cluster_size=${size}`, ...more];
        await run('qemu-img', ['convert', ...words, raw, image]);
        await compare(image, path);
      }
    }
  });

  it('with what was written, zeroed and trimmed later, snapshots, and another size', async () => {
    using directory = temporaryDirectory();
    const { path } = directory;
    const raw = join(path, 'source.raw');
    const image = join(path, 'lived.qcow2');
    writeFileSync(raw, source());
    await run('qemu-img', ['convert', '-c', '-f', 'raw', '-O', 'qcow2', raw, image]);
    const io = (...commands: readonly string[]): Promise<string> =>
      run('qemu-io', ['-f', 'qcow2', ...commands.flatMap((one) => ['-c', one]), image]);
    await run('qemu-img', ['snapshot', '-c', 'first', image]);
    await io('write -P 1 1M 300k', 'write -z 2M 1M', 'write -zu 5M 128k', 'discard 9M 64k');
    await compare(image, path);
    await run('qemu-img', ['snapshot', '-c', 'second', image]);
    await io('write -P 2 1100k 5000', 'write -P 3 20M 64k', 'write -z 20M 4k');
    await run('qemu-img', ['resize', '-f', 'qcow2', image, '31M']);
    await io('write -P 4 30M 1M');
    await compare(image, path);
    await run('qemu-img', ['snapshot', '-d', 'first', image]);
    await run('qemu-img', ['snapshot', '-a', 'second', image]);
    await compare(image, path);
    await run('qemu-img', ['resize', '-f', 'qcow2', '--shrink', image, '7M']);
    await compare(image, path);
    await run('qemu-img', ['amend', '-f', 'qcow2', '-o', 'lazy_refcounts=on', image]);
    await compare(image, path);
  });

  it('with space set aside beforehand', async () => {
    using directory = temporaryDirectory();
    for (const how of ['metadata', 'falloc', 'full']) {
      const image = join(directory.path, `${how}.qcow2`);
      await run('qemu-img', ['create', '-f', 'qcow2', '-o', `preallocation=${how}`, image, '5M']);
      await compare(image, directory.path);
    }
  });

  it('based on others, raw and qcow2, shorter and longer', async () => {
    using directory = temporaryDirectory();
    const { path } = directory;
    writeFileSync(join(path, 'base.raw'), source().subarray(0, 10 * MIB - 1024));
    const over = async (name: string, base: string, more: readonly string[]): Promise<void> => {
      const format = base.endsWith('raw') ? 'raw' : 'qcow2';
      const words = ['create', '-q', '-f', 'qcow2', '-b', base, '-F', format];
      await run('qemu-img', [...words, join(path, name), ...more]);
    };
    const io = (name: string, ...commands: readonly string[]): Promise<string> =>
      run('qemu-io', ['-f', 'qcow2', ...commands.flatMap((one) => ['-c', one]), join(path, name)]);
    await over('one.qcow2', 'base.raw', ['20M']);
    await io('one.qcow2', 'write -P 1 1M 100k', 'write -z 2M 64k', 'write -P 2 15M 64k');
    await over('two.qcow2', join(path, 'one.qcow2'), ['12M']);
    await io('two.qcow2', 'write -P 3 1040k 8k', 'discard 9M 64k', 'write -z 1100k 200k');
    await over('three.qcow2', 'two.qcow2', ['24M']);
    await compare(join(path, 'three.qcow2'), path);
    const image = await open(join(path, 'three.qcow2'));
    expect(image.files).toEqual(
      ['three.qcow2', 'two.qcow2', 'one.qcow2', 'base.raw'].map((name) => join(path, name)),
    );
    await image.close();
  });

  it('that needs what Varve lacks is refused by name', async () => {
    using directory = temporaryDirectory();
    const { path } = directory;
    const make = async (name: string, ...options: readonly string[]): Promise<string> => {
      const image = join(path, name);
      await run('qemu-img', ['create', '-q', '-f', 'qcow2', ...options, image, '1M']);
      return image;
    };
    const refused = async (image: string): Promise<string> => {
      const error: unknown = await open(image).catch((reason: unknown) => reason);
      return String(error);
    };
    expect(await refused(await make('zstd', '-o', 'compression_type=zstd'))).toContain('zstd');
    expect(await refused(await make('wide', '-o', 'extended_l2=on'))).toContain('subclusters');
    const outside = await make('outside', '-o', `data_file=${join(path, 'data.raw')}`);
    expect(await refused(outside)).toContain('external data file');
    // Not made by qemu-img: it times the processor for its key, and gives up on a busy machine.
    const secret = await make('luks');
    const bytes = readFileSync(secret);
    bytes.writeUInt32BE(LUKS, CRYPT_METHOD_AT);
    writeFileSync(secret, bytes);
    expect(await refused(secret)).toContain('LUKS');
  });
});

describeWith(['qemu-img', 'qemu-io'], 'varve import', () => {
  it('takes the disk of a qcow2 image, and gives it back', async () => {
    using directory = temporaryDirectory();
    const { path } = directory;
    const data = join(path, 'data');
    const raw = join(path, 'source.raw');
    const base = join(path, 'base.qcow2');
    const image = join(path, 'top.qcow2');
    writeFileSync(raw, source());
    await run('qemu-img', ['convert', '-c', '-f', 'raw', '-O', 'qcow2', raw, base]);
    const words = ['create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', image];
    await run('qemu-img', words);
    await run('qemu-io', ['-f', 'qcow2', '-c', 'write -P 1 4M 100k', image]);
    await varve(data, ['create', 'disk', '--size', '24M', '--log-size', '96M']);

    const unsaid = await varveToEnd(data, ['import', image, 'disk']);
    expect(unsaid.code).toBe(2);
    expect(unsaid.stderr).toMatch(/IMAGE_FORMAT_UNSAID.*--format qcow2/s);
    const told = await varve(data, ['import', image, 'disk', '--format', 'qcow2', '--json']);
    expect(JSON.parse(told)).toMatchObject({
      format: 'qcow2',
      bytes: SIZE,
      files: [image, base],
    });
    const out = join(path, 'out.qcow2');
    await varve(data, ['export', 'disk', out, '--format', 'qcow2']);
    await run('qemu-img', ['compare', '-f', 'qcow2', '-F', 'qcow2', image, out]);
    expect(await run('qemu-img', ['check', out])).toContain('No errors were found');

    const auto = await varve(data, ['import', base, 'disk', '--format', 'auto', '--json']);
    expect(JSON.parse(auto)).toMatchObject({ format: 'qcow2', files: [base] });
    await varve(data, ['import', raw, 'disk']);
    await varve(data, ['import', image, 'disk', '--format', 'raw']);
    await varve(data, ['export', 'disk', join(path, 'out.raw')]);
    const expected = source();
    readFileSync(image).copy(expected);
    expect(readFileSync(join(path, 'out.raw')).equals(expected)).toBe(true);
  });
});
