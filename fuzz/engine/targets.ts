/** Every target by its name: a module with more of them is one line here, and a directory in the corpus. */
import { targets as balloon } from '../balloon.ts';
import { targets as vhostUser } from '../vhost-user.ts';
import { targets as virtio } from '../virtio.ts';
import type { Target } from './campaign.ts';

/**
 * A conversation costs by the message, so a long one takes long without anything being wrong. What can go wrong
 * between messages does so within some hundreds of them.
 */
const CONVERSATION_BYTES_MAX = 16 * 1024;

const short =
  (target: Target): Target =>
  bytes =>
    target(bytes.subarray(0, CONVERSATION_BYTES_MAX));

export const TARGETS: ReadonlyMap<string, Target> = new Map([
  ...Object.entries(virtio),
  ...Object.entries(balloon),
  ...Object.entries(vhostUser).map(([name, target]): [string, Target] => [name, short(target)]),
]);
