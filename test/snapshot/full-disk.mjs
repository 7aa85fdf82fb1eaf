// Writes a snapshot onto a disk that is too small for it; says how that ends, and what is left there.
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { SnapshotFile } from '../../dist/snapshot/snapshot-file.js';

const [, , directory] = process.argv;
const file = await SnapshotFile.create(join(directory, 'vm.aero'), new Uint8Array(128));
let message;
try {
  for (;;) await file.write(new Uint8Array(300_000));
} catch (error) {
  message = error.message;
}
file.abandon();
console.log(JSON.stringify({ message, left: readdirSync(directory) }));
