/** The little Markdown that printed pages need. */

/** One row of a table; a bar in a cell is escaped, and a line break becomes a space. */
export function row(cells: readonly string[]): string {
  const safe = cells.map((cell) => cell.replaceAll('|', '\\|').replaceAll(/\s*\n\s*/g, ' '));
  return `| ${safe.join(' | ')} |`;
}
