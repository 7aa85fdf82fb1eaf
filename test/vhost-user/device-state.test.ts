/** When a device's state may be moved through its front-end; what goes along is test/hosting/device-state.test.ts's. */
import { expect, it } from 'vitest';
import { closeAll, createEventFd } from '../../src/sys/fd.ts';
import { DEVICE_STATE_TRANSFER, PROTOCOL_FEATURE } from '../../src/vhost-user/protocol.ts';
import { type Conversation, conversations } from './conversation.ts';

const converse = conversations();
const SAVE = DEVICE_STATE_TRANSFER.encode({ direction: 0, phase: 0 });

const begin = (talk: Conversation): bigint =>
  talk.ask('SET_DEVICE_STATE_FD', SAVE, { fds: [createEventFd()] });

it('not while a ring runs, and in its pause', () => {
  const talk = converse({ deviceState: { save: () => Uint8Array.of(1, 2, 3), load: () => {} } });
  talk.start();
  expect(begin(talk)).toBe(0x101n);
  expect(talk.repliedFds).toEqual([]);
  expect(talk.ask('CHECK_DEVICE_STATE')).toBe(1n);
  talk.stopRing(0);
  expect(begin(talk)).toBe(0n);
  closeAll(talk.repliedFds);
  expect(talk.ask('CHECK_DEVICE_STATE')).toBe(0n);
  // What was checked is over.
  expect(talk.ask('CHECK_DEVICE_STATE')).toBe(1n);
});

it('never of a device that cannot be saved, which does not offer it', () => {
  const talk = converse();
  talk.negotiate();
  expect(talk.ask('GET_PROTOCOL_FEATURES') & PROTOCOL_FEATURE.DEVICE_STATE).toBe(0n);
  expect(begin(talk)).toBe(0x101n);
  expect(talk.refused.at(-1)?.message).toMatch(/cannot be moved/);
});
