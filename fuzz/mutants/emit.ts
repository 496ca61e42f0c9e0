/**
 * From patched TypeScript to what Node runs, as `npm run build:tools` would have made it; and
 * whether the patch is a program at all, because a bug that no compiler lets through is not one
 * that anybody would ship.
 */
import { readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import ts from 'typescript';
import { REPOSITORY } from '../../tools/repository.ts';
import type { Mutant } from './mutant.ts';
import { patched } from './mutant.ts';

/** One file alone is of no package, so what is a module has to be said. */
const TRANSPILED: ts.CompilerOptions = {
  target: ts.ScriptTarget.ES2023,
  module: ts.ModuleKind.ESNext,
  rewriteRelativeImportExtensions: true,
  verbatimModuleSyntax: true,
};

export function sourceOf(file: string): string {
  return readFileSync(join(REPOSITORY, file), 'utf8');
}

function messageOf({ messageText }: ts.Diagnostic): string {
  return ts.flattenDiagnosticMessageText(messageText, ' ');
}

/** @throws Error when the patch does not apply, or what it makes can't be parsed */
export function emitted(mutant: Mutant): string {
  const { outputText, diagnostics = [] } = ts.transpileModule(
    patched(sourceOf(mutant.file), mutant),
    { compilerOptions: TRANSPILED, fileName: mutant.file, reportDiagnostics: true },
  );
  const [first] = diagnostics;
  if (first !== undefined) throw new Error(`${mutant.name}: ${messageOf(first)}`);
  return outputText;
}

/** The whole program, kept in memory, with one file at a time replaced by its patched text. */
export class TypeCheck {
  readonly #service: ts.LanguageService;
  readonly #texts = new Map<string, string>();
  #version = 0;

  constructor() {
    const path = join(REPOSITORY, 'tsconfig.build.json');
    const read = ts.readConfigFile(path, (name) => ts.sys.readFile(name));
    const { options, fileNames } = ts.parseJsonConfigFileContent(
      read.config,
      ts.sys,
      dirname(path),
    );
    this.#service = ts.createLanguageService({
      getCompilationSettings: () => options,
      getScriptFileNames: () => fileNames,
      getScriptVersion: (name) => (this.#texts.has(name) ? `p${this.#version}` : '0'),
      getScriptSnapshot: (name) => {
        const text = this.#texts.get(name) ?? ts.sys.readFile(name);
        return text === undefined ? undefined : ts.ScriptSnapshot.fromString(text);
      },
      getCurrentDirectory: () => REPOSITORY,
      getDefaultLibFileName: (settings) => ts.getDefaultLibFilePath(settings),
      fileExists: (name) => ts.sys.fileExists(name),
      readFile: (name) => ts.sys.readFile(name),
      directoryExists: (name) => ts.sys.directoryExists(name),
      getDirectories: (name) => ts.sys.getDirectories(name),
    });
  }

  /** @returns the first complaint about the patched file; undefined: it compiles */
  problem(mutant: Mutant): string | undefined {
    const path = join(REPOSITORY, mutant.file);
    this.#version += 1;
    this.#texts.set(path, patched(sourceOf(mutant.file), mutant));
    try {
      const [first] = [
        ...this.#service.getSyntacticDiagnostics(path),
        ...this.#service.getSemanticDiagnostics(path),
      ];
      if (first === undefined) return undefined;
      const line = first.file?.getLineAndCharacterOfPosition(first.start ?? 0).line ?? 0;
      return `${relative(REPOSITORY, path)}:${line + 1}: ${messageOf(first)}`;
    } finally {
      this.#texts.delete(path);
    }
  }
}
