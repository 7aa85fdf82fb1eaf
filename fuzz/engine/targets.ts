/** Every target by its name: a module with more of them is one line here, and a directory in the corpus. */
import { targets as balloon } from '../balloon.ts';
import { targets as device } from '../device.ts';
import { targets as hostile } from '../hostile.ts';
import { targets as migration } from '../migration.ts';
import { targets as news } from '../news.ts';
import { targets as vhostUser } from '../vhost-user.ts';
import { targets as virtio } from '../virtio.ts';
import type { Target } from './campaign.ts';

/**
 * What a ring, a conversation or a session does costs by the step, so a long history takes long without anything
 * being wrong. What can go wrong between one step and the next does so in a short one.
 */
const HISTORY_BYTES_MAX = 16 * 1024;

const short =
  (target: Target): Target =>
  bytes =>
    target(bytes.subarray(0, HISTORY_BYTES_MAX));

const { 'hint-session': hintSession, ...decoders } = balloon;
const histories = {
  ...virtio,
  ...device,
  ...hostile,
  ...vhostUser,
  ...migration,
  ...news,
  'hint-session': hintSession,
};

export const TARGETS: ReadonlyMap<string, Target> = new Map([
  ...Object.entries(histories).map(([name, target]): [string, Target] => [name, short(target)]),
  ...Object.entries(decoders),
]);
