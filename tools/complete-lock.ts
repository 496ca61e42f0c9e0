/** Completes package-lock.json: `npm run lock`, after any change of a dependency. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { completed, missingBuilds, type Lock } from './lock.ts';
import { REPOSITORY } from './repository.ts';

const path = join(REPOSITORY, 'package-lock.json');
const lock: Lock = JSON.parse(readFileSync(path, 'utf8'));
for (const name of Object.keys(missingBuilds(lock))) console.log(`added ${name}`);
writeFileSync(path, `${JSON.stringify(completed(lock), undefined, 2)}\n`);
