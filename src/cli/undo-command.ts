/** The command that undoes what was done to a disk. */
import type { SharedFlags } from './context.ts';
import { shellQuoted } from './output.ts';

/** @param moment - what stands behind the `@` of what the disk was */
export function undoCommand(name: string, moment: string, { dir }: SharedFlags): string {
  const where = dir === undefined ? '' : ` --dir ${shellQuoted(dir)}`;
  return `varve rollback ${name} --to ${moment}${where}`;
}
