/** Comments that name what is not there are wrong, and the checker of comments says so. */
import { spawnSync } from 'node:child_process';
import { copyFileSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { REPOSITORY } from '../../tools/repository.ts';
import { temporaryDirectory, writeTree } from '../support/files.ts';

function typedoc(files: Readonly<Record<string, string>>): { status: number | null; said: string } {
  using tree = temporaryDirectory();
  writeTree(tree.path, {
    'src/sound.ts': '/** Is 1. */\nexport const one = 1;\n',
    'index/sound.ts': '/** Is 1. */\nexport const one = 1;\n',
    'log/sound.ts': '/** Is 1. */\nexport const one = 1;\n',
    ...files,
  });
  for (const name of ['typedoc.json', 'tsconfig.json', 'tsconfig.build.json', 'package.json']) {
    copyFileSync(join(REPOSITORY, name), join(tree.path, name));
  }
  symlinkSync(join(REPOSITORY, 'node_modules'), join(tree.path, 'node_modules'));
  const program = join(REPOSITORY, 'node_modules/.bin/typedoc');
  const run = spawnSync(program, [], { cwd: tree.path, encoding: 'utf8' });
  return { status: run.status, said: run.stdout + run.stderr };
}

describe('the checker of comments', () => {
  it('lets sound comments pass', () => {
    expect(typedoc({})).toMatchObject({ status: 0 });
  });

  it('reports a parameter that does not exist', () => {
    const { status, said } = typedoc({
      'log/parameter.ts':
        '/** @param wrong - is called right */\nexport function f(right: number): number {\n  return right;\n}\n',
    });
    expect(status).not.toBe(0);
    expect(said).toContain('@param with name "wrong"');
  });

  it('reports a link that leads nowhere', () => {
    const { status, said } = typedoc({
      'index/link.ts': '/** As {@link nowhere} says. */\nexport const two = 2;\n',
    });
    expect(status).not.toBe(0);
    expect(said).toContain('Failed to resolve link to "nowhere"');
  });
});
