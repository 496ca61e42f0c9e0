/** `npm ci` works on every machine: the lock is whole, and names no host. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { completed, missingBuilds, platformOf, type Lock } from '../../tools/lock.ts';
import { REPOSITORY } from '../../tools/repository.ts';

const text = readFileSync(join(REPOSITORY, 'package-lock.json'), 'utf8');

describe('the lock of the dependencies', () => {
  it('holds every build for every platform (else run `npm run lock`)', () => {
    const lock: Lock = JSON.parse(text);
    expect(Object.keys(missingBuilds(lock))).toEqual([]);
  });

  it('names no host', () => {
    expect(text).not.toContain('"resolved"');
  });

  it('learns the platform of a missing build from its name', () => {
    expect(platformOf('@oxlint/binding-linux-arm-musleabihf')).toEqual({
      cpu: ['arm'],
      os: ['linux'],
      libc: ['musl'],
    });
    expect(platformOf('@oxlint/binding-win32-x64-msvc')).toEqual({ cpu: ['x64'], os: ['win32'] });
    expect(platformOf('@oxlint-tsgolint/darwin-arm64')).toEqual({ cpu: ['arm64'], os: ['darwin'] });
  });

  it('gets a missing build once, where the package looks for it', () => {
    const optionalDependencies = { 'build-linux-x64-gnu': '2.0.0', 'build-darwin-x64': '2.0.0' };
    const lock: Lock = {
      packages: {
        'node_modules/tool': { version: '2.0.0', dev: true, optionalDependencies },
        'node_modules/build-linux-x64-gnu': { version: '2.0.0' },
      },
    };
    const whole = completed(lock);
    expect(whole.packages['node_modules/build-darwin-x64']).toEqual({
      version: '2.0.0',
      cpu: ['x64'],
      os: ['darwin'],
      dev: true,
      optional: true,
    });
    expect(completed(whole)).toEqual(whole);
  });
});
