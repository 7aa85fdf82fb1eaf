/** Where a device's ids begin: somewhere else than those of the daemon before, whose guest may still answer to its ids. */
import { randomInt } from 'node:crypto';
import { HINT_ID_MIN } from '../balloon/hint-session.ts';
import type { BalloonDevice } from '../device/balloon-device.ts';

/** Hint sessions begin at one of so many ids: enough that a daemon that is started anew meets none of its predecessor's. */
const FIRST_HINT_IDS = 2 ** 30;
/** The same of requests, whose ids have 16 bits. */
const FIRST_REQUEST_IDS = 2 ** 16;

export function beginIdsAnywhere({ hints, requests }: BalloonDevice): void {
  hints.beginAt(randomInt(HINT_ID_MIN, HINT_ID_MIN + FIRST_HINT_IDS));
  requests.beginAt(randomInt(FIRST_REQUEST_IDS));
}
