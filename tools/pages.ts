/** Every printed page of docs/, by its path in the checkout, laid out as prettier would. */
import { format } from 'prettier';
import { errorPage } from './error-page.ts';
import { formatPage } from './format-page.ts';

export async function printedPages(): Promise<Readonly<Record<string, string>>> {
  const pages = { 'docs/ERRORS.md': errorPage(), 'docs/FORMAT.md': formatPage() };
  const laidOut = Object.entries(pages).map(
    async ([name, text]) => [name, await format(text, { parser: 'markdown' })] as const,
  );
  return Object.fromEntries(await Promise.all(laidOut));
}
