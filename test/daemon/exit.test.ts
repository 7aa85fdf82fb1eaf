/** A process ends although its threads block in poll(2), which Node cannot interrupt. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { build } from '../cli/built.ts';

const daemonModule = fileURLToPath(new URL('../../dist/daemon/daemon.js', import.meta.url));

let directory: string;

beforeAll(build);

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
});

afterEach(() => rmSync(directory, { recursive: true }));

test('a process that exits with a daemon inside ends, although its threads wait again before Node stops them', () => {
  const program = join(directory, 'exit.mjs');
  // The listener runs after the threads were woken; by its end they had time to be back in poll(2).
  writeFileSync(
    program,
    `import { startDaemon } from ${JSON.stringify(daemonModule)};
    const daemon = await startDaemon({ guests: [], log: () => {} });
    await daemon.control.guests();
    process.once('exit', () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 300));
    process.exit(7);`,
  );
  const { status, signal, stderr } = spawnSync(process.execPath, [program], {
    encoding: 'utf8',
    timeout: 60_000,
    killSignal: 'SIGKILL',
  });
  expect({ status, signal, stderr }).toEqual({ status: 7, signal: null, stderr: '' });
});
