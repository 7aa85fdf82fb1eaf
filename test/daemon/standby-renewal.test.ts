/**
 * A daemon that stands by while another program is installed in its place: it becomes that, and one that does not run, or that
 * could not go on with the guests, leaves it as it is.
 */
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { GUEST_VERSION } from '../../src/keeping/guest-file.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { build, program } from '../cli/built.ts';
import type { DaemonProcess } from '../support/daemon.ts';
import { KeptDaemon } from '../support/kept-daemon.ts';
import { TestLoop } from '../support/loop.ts';
import { FIRST_PAGE, HandGuest } from './hand-guest.ts';

/** Far above what a start takes. */
const PATIENCE_MS = 60_000;

let directory: string;
let script: string;
let kept: KeptDaemon;
let standby: DaemonProcess;
let loop: TestLoop;
let guest: HandGuest;

/** Puts another file at the script's place, as packages do. */
function install(before: string): void {
  const next = join(directory, 'next');
  writeFileSync(next, `${before}\nawait import(${JSON.stringify(program)});\n`);
  renameSync(next, script);
}

const logged = (what: string | RegExp, times = 1) =>
  expect
    .poll(() => standby.log.split('\n').filter(line => line.match(what)).length, { timeout: PATIENCE_MS })
    .toBe(times);

beforeAll(async () => {
  build();
  directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
  script = join(directory, 'aerostat.mjs');
  install('');
  kept = await KeptDaemon.start(['g']);
  loop = new TestLoop();
  guest = await HandGuest.connect(kept.daemon.socketOf('g'), { loop, answerMsMax: PATIENCE_MS });
  standby = await kept.standBy(script);
}, 120_000);

afterAll(async () => {
  guest.close();
  loop.close();
  await kept.end();
  rmSync(directory, { recursive: true, force: true });
});

test(
  'becomes what is installed, which goes on with the guests when its turn comes (failed before: it stayed what it was)',
  async () => {
    install('process.exit(3);');
    await logged(/cannot stand by, and this program still does: Command failed/);
    install(
      `if (process.argv.includes('--print-capabilities')) { console.log('{"stateVersion":${GUEST_VERSION - 1}}'); process.exit(); }`,
    );
    await logged(`it reads kept guests up to state version ${GUEST_VERSION - 1}`);
    expect(standby.log).not.toContain('in place of this one');
    install("process.stderr.write('of another version\\n');");
    await logged('in place of this one');
    await logged('of another version');
    await logged('standing by for the daemon', 2);
    expect(standby.ended).toBe(false);
    await kept.restart('SIGKILL', standby);
    const { pid } = await standby.control.daemon();
    expect(pid).toBe(standby.child.pid);
    guest.touch(FIRST_PAGE, 8);
    await guest.inflate(FIRST_PAGE, 8);
    expect((await standby.control.guest('g')).balloonedBytes).toBe(8 * PAGE_SIZE);
  },
  4 * PATIENCE_MS,
);
