/** Sizes, URIs and volume.json: what people write and read. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { byteCount, micros } from '../../src/base/units.ts';
import { parseSize, sizeText } from '../../src/control/size-text.ts';
import { tcpUri, unixUri } from '../../src/control/uris.ts';
import {
  checkVolumeName,
  parseRecord,
  recordText,
  type VolumeRecord,
} from '../../src/control/volume-record.ts';
import { parseMoment, timeText } from '../../src/volume/moment.ts';
import { NO_RETENTION } from '../../src/volume/retention-policy.ts';

const RECORD: VolumeRecord = {
  uuid: '261b3707-d2e2-49e0-918d-bf4417c86e9b',
  size: byteCount(1024 ** 3),
  logSize: byteCount(1024 ** 3),
  ringSize: byteCount(64 * 1024 ** 2),
  writeMode: 'back',
  createdAt: '2026-11-21T05:45:11.614000Z',
  log: 'log',
  final: '/dev/sdb',
  sums: 'final.sums',
  undo: 'undo',
  undoSize: byteCount(2 ** 30),
  base: undefined,
  hadBase: false,
  retention: { ...NO_RETENTION, everyWriteUs: micros(7.2e9), daily: 7 },
};

describe('moments', () => {
  test('are told by times that a number holds to the microsecond', () => {
    const text = '2255-06-05T23:47:34.740991Z';
    expect(parseMoment(text)).toEqual({ kind: 'time', wallUs: Number.MAX_SAFE_INTEGER });
    expect(timeText(micros(Number.MAX_SAFE_INTEGER))).toBe(text);
  });

  // Found by control-texts: it was a number that counts in twos and fours.
  test.each(['2255-06-05T23:47:34.740992Z', '9999-12-31T23:59:59Z'])(
    '%s is as late as any',
    (text) => {
      expect(parseMoment(text)).toEqual({ kind: 'time', wallUs: Number.MAX_SAFE_INTEGER });
    },
  );

  test('are no times before 1970', () => {
    const parse = (): unknown => parseMoment('1969-12-31T23:59:59Z');
    expect(parse).toThrow(expect.objectContaining({ code: 'MOMENT_BAD' }));
  });
});

describe('sizes', () => {
  test.each([
    ['10G', 10 * 1024 ** 3],
    ['512M', 512 * 1024 ** 2],
    ['64k', 64 * 1024],
    ['64KiB', 64 * 1024],
    ['64KB', 64 * 1024],
    ['1.5T', 1.5 * 1024 ** 4],
    ['4097', 4097],
    ['9007199254740991', Number.MAX_SAFE_INTEGER],
  ])('%s is understood', (text, bytes) => {
    expect(parseSize(text)).toBe(bytes);
  });

  test.each([
    '',
    '0',
    '-1',
    '-10G',
    '1e9',
    '8P',
    '9007199254740992',
    'ten',
    '1.0001K',
    '0x10',
    'G',
  ])('"%s" is refused', (text) => {
    expect(() => parseSize(text)).toThrow(expect.objectContaining({ code: 'SIZE_BAD' }));
  });

  test('are told in the largest unit that fits', () => {
    expect([0, 4096, 1024 ** 3, 1.5 * 1024 ** 4].map(sizeText)).toEqual([
      '0 bytes',
      '4 KiB',
      '1 GiB',
      '1.5 TiB',
    ]);
  });
});

describe('URIs', () => {
  test('keep what people want to read, and escape what a parser needs', () => {
    const socket = '/srv/my data/100%/nbd.sock';
    expect(unixUri('disk@gen=5', '/a/nbd.sock')).toBe('nbd+unix:///disk@gen=5?socket=/a/nbd.sock');
    expect(new URL(unixUri('disk', socket)).searchParams.get('socket')).toBe(socket);
    expect(tcpUri('disk', { host: '::1', port: 10809 })).toBe('nbd://[::1]:10809/disk');
    const name = 'disk@2026-11-21T14:03:27+01:00';
    const { pathname } = new URL(tcpUri(name, { host: 'localhost', port: 1 }));
    expect(decodeURIComponent(pathname.slice(1))).toBe(name);
  });
});

describe('volume.json', () => {
  test('is read as it was written', () => {
    expect(parseRecord(recordText(RECORD), 'volume.json')).toEqual(RECORD);
  });

  test('of another format names both numbers', () => {
    const other = recordText(RECORD).replace('"format": 2', '"format": 7');
    expect(() => parseRecord(other, 'volume.json')).toThrow(/got 7, this build knows 2/);
  });

  test.each(['uuid', 'size', 'logSize', 'ringSize', 'writeMode', 'log', 'final', 'sums'] as const)(
    'without a usable %s is foreign, and says so',
    (field) => {
      for (const bad of [undefined, null, [], {}, -1, 1.5]) {
        const value: unknown = JSON.parse(recordText(RECORD));
        const text = JSON.stringify({ ...Object(value), [field]: bad });
        expect(() => parseRecord(text, 'volume.json')).toThrow(
          expect.objectContaining({
            code: 'VOLUME_FOREIGN',
            detail: expect.stringContaining(field),
          }),
        );
      }
    },
  );

  test('is never anything but a record or an error of ours', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
        expect(() => parseRecord(text, 'volume.json')).toThrow(
          expect.objectContaining({ name: 'VarveError' }),
        );
      }),
    );
  });
});

describe('names of volumes', () => {
  test.each(['disk', 'a', 'db-1.old_2', 'x'.repeat(64)])('%s is fine', (name) => {
    expect(checkVolumeName(name)).toBe(name);
  });

  test.each([
    '',
    '.',
    '..',
    '../x',
    'a/b',
    '.hidden',
    '-x',
    'a@b',
    'x'.repeat(65),
    'lock',
    'nbd.sock',
  ])('"%s" is refused', (name) => {
    expect(() => checkVolumeName(name)).toThrow(
      expect.objectContaining({ code: 'VOLUME_NAME_BAD' }),
    );
  });
});
