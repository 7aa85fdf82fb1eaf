/**
 * A domain that runs at its destination before its memory is there, between two real libvirtds whose QEMUs may watch their
 * page faults: its contents hold. Where the destination's QEMU may not, libvirt refuses, and what to do is said.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { EXIT } from '../../../src/cli/usage.ts';
import { build } from '../../cli/built.ts';
import { run } from '../../cli/terminal.ts';
import { describePeer } from '../../support/peers.ts';
import { Libvirtd, mayWatchFaults } from './libvirtd.ts';
import { domain, linux, missingForLinux, WHOLE_BALLOON } from './linux-domain.ts';

// A machine under TCG boots, beside whatever else runs.
vi.setConfig({ testTimeout: 180_000, hookTimeout: 180_000 });

const WATCHING = { faults: 'allowed' } as const;
/** Says again and again whether 48 MiB are what they were, and writes to others meanwhile. */
const CHECK = `mount -t devtmpfs d /dev
mkdir -p /t && mount -t tmpfs t /t
(while :; do head -c 24m /dev/urandom > /t/busy; done) &
head -c 48m /dev/urandom > /t/kept
sum=$(md5sum < /t/kept)
(while :; do [ "$(md5sum < /t/kept)" = "$sum" ] && echo intact || echo broken; done) &`;

describePeer('post-copy of libvirt', await missingForLinux(), () => {
  if (!mayWatchFaults()) {
    test.skip('moves a domain (it takes root with CAP_SYS_PTRACE, for userfaultfd)', () => {});
    return;
  }
  const [here, there] = [new Libvirtd(WATCHING), new Libvirtd(WATCHING)];
  const without = new Libvirtd({ faults: 'denied' });
  const aerostat = (words: string) => run([...words.split(' '), '--libvirt', here.uri], { env: {} });
  const consoleFile = join(here.directory, 'console');
  const said = () => (existsSync(consoleFile) ? readFileSync(consoleFile, 'latin1') : '');
  const times = (word: string) => said().split(word).length - 1;

  beforeAll(async () => {
    build();
    const boot = (await linux(here.directory, CHECK)).replace('rdinit', 'console=ttyS0 rdinit');
    await Promise.all([here.start(), there.start(), without.start()]);
    const serial = `<serial type='file'><source path='${consoleFile}' append='on'/></serial>`;
    here.create(domain('linux', `${WHOLE_BALLOON}${serial}`, boot));
  });

  afterAll(async () => {
    for (const libvirtd of [here, there, without]) await libvirtd.end();
  });

  test('begins with a domain that looks after its memory', async () => {
    await expect.poll(() => times('intact'), { timeout: 120_000, interval: 500 }).toBeGreaterThan(0);
  });

  test('is refused by a destination whose QEMU may not watch faults, and the message says what to do', async () => {
    const { code, err } = await aerostat(`migrate linux ${without.uriForOthers} --postcopy`);
    expect(err).toMatch(/linux runs on where it was; .*vm\.unprivileged_userfaultfd=1.*without --postcopy/);
    expect(code).not.toBe(EXIT.ok);
  });

  test('has the domain run there first, and its memory come after, whole', async () => {
    const { code, out, err } = await aerostat(
      `migrate linux ${there.uriForOthers} --postcopy --bandwidth 20M --json`,
    );
    expect({ code, err }).toEqual({ code: EXIT.ok, err: '' });
    const { summary } = JSON.parse(out);
    expect(summary.postcopy.missingBytes).toBeGreaterThan(0);
    expect(here.virsh('list', '--name').trim()).toBe('');
    const before = times('intact');
    await expect.poll(() => times('intact'), { timeout: 60_000, interval: 200 }).toBeGreaterThan(before + 1);
    expect(said()).not.toMatch(/broken/);
  });
});
