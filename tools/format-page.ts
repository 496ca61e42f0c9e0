/** docs/FORMAT.md, printed from the tables of fields. */
import { FORMAT_VERSION, FORMATS as DISK_FORMATS } from '../src/format/layouts.ts';
import type { RecordLayout } from '../src/format/record.ts';
import { SEND_FORMATS, SEND_VERSION } from '../src/format/send-layouts.ts';
import { row } from './markdown.ts';

const OPENING = `# Bytes on disk

Printed from \`src/format/layouts.ts\` and \`send-layouts.ts\` by \`npm run docs\`; a test fails when it is stale. The code
reads and writes through the same tables. This is format version ${FORMAT_VERSION}.
What \`varve send\` writes has tables and a version of its own, ${SEND_VERSION}: a stream is one
\`send_header\`, then records.

- Numbers are little-endian and unsigned. 64-bit numbers stay below 2^53.
- Checksums are CRC32C. A structure with a wrong checksum, magic or padding is reported, never
  believed.
- A field of type \`zero\` is padding: written as zero, checked to be zero.
- \`text\` is UTF-8, padded with zeros; \`magic\` is ASCII; a \`uuid\` is 16 bytes in the order of its
  text.
- A block is 4096 bytes; a \`hash\` is SHA-256.
`;

const FORMATS = [...DISK_FORMATS, ...SEND_FORMATS];

function section({ name, size, note, fields }: RecordLayout): string {
  const head = ['offset', 'size', 'field', 'type', 'unit', 'what it holds'];
  const rows = fields.map(({ name: field, offset, size: bytes, type, unit, note: text }) =>
    row([String(offset), String(bytes), `\`${field}\``, type, unit, text]),
  );
  return [
    `## ${name}`,
    `${size} bytes. ${note}`,
    [row(head), row(head.map(() => '---')), ...rows].join('\n'),
  ].join('\n\n');
}

export function formatPage(): string {
  const contents = FORMATS.map(({ name, size }) => `- [${name}](#${name}), ${size} bytes`);
  return [OPENING, contents.join('\n'), ...FORMATS.map(section)].join('\n\n') + '\n';
}
