/** A host without a memory policy says so, and refuses what only a policy can do. */
import { expect, test } from 'vitest';
import { combinedControl } from '../../src/control/combined-control.ts';
import { hostedControl } from '../../src/control/hosted-control.ts';
import { POLICY_OFF } from '../../src/control/policy.ts';
import { FakeControl, guestStatus } from '../server/fake-control.ts';
import { policyStatus } from '../server/fake-policy.ts';

const hosted = (remote: FakeControl) =>
  hostedControl(combinedControl([{ name: 'web', control: remote, remoteName: 'vm1' }]), '1');

test('a process without a policy says that it is off, also where a daemon of its guests has one', async () => {
  const remote = new FakeControl(guestStatus('vm1'));
  remote.memoryPolicy.status = policyStatus(['vm1']);
  expect(await hosted(remote).policy()).toEqual(POLICY_OFF);
  await expect(hosted(remote).reserve({ name: 'vm2', bytes: 4096 })).rejects.toMatchObject({
    code: 'AEROSTAT_POLICY_OFF',
  });
});

test('what is asked of a guest’s policy goes to the daemon of the guest', async () => {
  const remote = new FakeControl(guestStatus('vm1'));
  await expect(hosted(remote).guestPolicy('web')).rejects.toMatchObject({ code: 'AEROSTAT_POLICY_OFF' });
  remote.memoryPolicy.status = policyStatus(['vm1']);
  expect(await hosted(remote).guestPolicy('web')).toMatchObject({ mode: 'auto' });
  await expect(hosted(remote).guestPolicy('vm1')).rejects.toMatchObject({ code: 'AEROSTAT_UNKNOWN_GUEST' });
});
