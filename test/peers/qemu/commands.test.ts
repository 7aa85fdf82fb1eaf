/** The commands on a real QEMU, and what they say when it is killed under them. */
import { describe, expect, it } from 'vitest';
import { EXIT } from '../../../src/cli/usage.ts';
import { QtestMachine } from '../../../src/peers/qemu/qtest-machine.ts';
import { run, start } from '../../cli/terminal.ts';
import { DaemonProcess } from '../../support/daemon.ts';
import { cleanUp, describeWithQemu } from './peer.ts';

const MIB = 2 ** 20;

describeWithQemu('a real QEMU under the commands', () => {
  const finally_ = cleanUp();

  /** Memory that no migration at 1 MiB a second gets through while a test looks. */
  async function machine(): Promise<QtestMachine> {
    const started = await QtestMachine.start({ memoryBytes: 64 * MIB, running: true });
    finally_(() => started.close());
    for (let at = 0; at < 32 * MIB; at += 8) started.memory.setU32(at + 16 * MIB, Math.random() * 2 ** 32);
    return started;
  }

  it('has the fields that a guest on our own device has', async () => {
    const { qemu } = await machine();
    const daemon = await DaemonProcess.start(['vm']);
    finally_(() => daemon.stop());
    const ofQemu = await run(['status', '--json', '--qmp', `vm=${qemu.qmpPath}`]);
    const ofOurs = await run(['status', '--json', '--api', `${daemon.directory}/api.sock`]);
    const [theirs] = JSON.parse(ofQemu.out).guests;
    const [ours] = JSON.parse(ofOurs.out).guests;
    expect(Object.keys(theirs).sort()).toEqual(Object.keys(ours).sort());
    expect(theirs).toMatchObject({ name: 'vm', state: 'no-driver', memoryBytes: 64 * MIB });
  });

  describe('and killed', () => {
    it.each([
      ['watch --json --interval 50ms', /"guests"/],
      ['watch --interval 50ms', /GUEST/],
      // No driver is there, so the target is never reached.
      ['set --balloon 8M --wait --json', undefined],
      ['stats --fresh --timeout 30s', undefined],
      ['migrate exec:cat>/dev/null --bandwidth 1M', undefined],
    ])('in the middle of %s', async (words, sign) => {
      const { qemu } = await machine();
      const session = start([...words.split(' '), '--qmp', qemu.qmpPath]);
      if (sign === undefined) await new Promise(resolve => setTimeout(resolve, 200));
      else await expect.poll(() => session.stdout.text, { timeout: 60_000 }).toMatch(sign);
      await qemu.kill();
      // A guest that answers nothing may be given up in the moment before the kill; both are said in words.
      expect([EXIT.unreachable, EXIT.guestState]).toContain(await session.ended);
      expect(session.stderr.text).toMatch(/QEMU|statistics/);
    });
  });
});
