/** Asking a guest for something: what its driver answers, and what of it is told, without a daemon. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { PROFILE_NAMES, profile } from '../../src/balloon/profiles.ts';
import type { RequestAnswer } from '../../src/control/contract.ts';
import { GuestStateError } from '../../src/control/errors.ts';
import { GuestRequests } from '../../src/hosting/guest-requests.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { FIRST_PAGE, openRig, type Run } from '../support/device-rig.ts';
import { TestLoop } from '../support/loop.ts';

const WHERE = FIRST_PAGE * PAGE_SIZE;
const NAMES = PROFILE_NAMES.filter(name => profile(name).freePages.kind === 'request');

let loop: TestLoop;
beforeEach(() => {
  loop = new TestLoop();
});
afterEach(() => loop.close());

/** A guest whose driver's hand is the test's. */
function guestOf(name: string) {
  const rig = openRig({ profile: name });
  const { freePages } = rig.profile;
  if (freePages.kind !== 'request') throw new Error('no requests');
  const { protocol, format } = freePages;
  const queue = rig.queue('request');
  const requests = new GuestRequests('vm1', rig.device, loop.reactor, {
    unusedPages: rig.unusedPages,
    obstacle: () => undefined,
  });
  rig.host.requestAnswered = () => requests.answered();
  const post = () => queue.exchange({ in: [[WHERE, protocol.requestBytes]] });
  const answer = (runs: readonly Run[], done: boolean) => {
    const bytes = new Uint8Array(protocol.requestBytes);
    rig.memory.read(WHERE, bytes, 0, bytes.length);
    const request = protocol.readRequest(new DataView(bytes.buffer), bytes.length);
    for (const buffer of rig.encode(format, runs, {
      start: protocol.prefixBytes,
      edit: list => protocol.writeAnswer(list, { ...request, done }),
    })) {
      queue.exchange(buffer);
    }
  };
  post();
  return { requests, post, answer, collect: () => queue.collect() };
}

describe.each(NAMES)('a guest that speaks %s', name => {
  test('is told of at once when its driver posts its buffer again without an answer', async () => {
    const { requests, post, collect } = guestOf(name);
    const asked = requests.ask('drop-cache', 30_000);
    collect();
    post();
    await expect(asked).rejects.toThrow(GuestStateError);
    await expect(asked).rejects.toThrow(
      'vm1 gave no answer to drop-cache: its driver does not know the request',
    );
    // The next may be answered.
    const again = requests.ask('unused-pages', 30_000);
    collect();
    expect(() => requests.ask('shrink', 1)).toThrow('vm1 is still at unused-pages');
    post();
    await expect(again).rejects.toThrow('does not know');
  });

  test('has answered when its last list came and its buffer is back, however many lists say that they are the last', async () => {
    const { requests, post, answer, collect } = guestOf(name);
    const asked = requests.ask('unused-pages', 30_000);
    collect();
    answer([[FIRST_PAGE, 4]], false);
    answer([[FIRST_PAGE + 8, 4]], true);
    answer([[FIRST_PAGE + 16, 4]], true);
    post();
    const expected: Partial<RequestAnswer> = { unusedBytes: 12 * PAGE_SIZE, lists: 3 };
    await expect(asked).resolves.toMatchObject(expected);
  });

  test('has answered too when its buffer does not come back in time', async () => {
    const { requests, answer, collect } = guestOf(name);
    const asked = requests.ask('unused-pages', 1);
    collect();
    answer([[FIRST_PAGE, 4]], true);
    await expect(loop.until(asked)).resolves.toMatchObject({ unusedBytes: 4 * PAGE_SIZE, lists: 1 });
  });

  test("is not called busy when its driver keeps the buffer, as v3's does after a request that it does not know", async () => {
    const { requests, collect } = guestOf(name);
    const unknown = requests.ask('drop-cache', 1);
    collect();
    await expect(loop.until(unknown)).rejects.toThrow('vm1 did not answer within 1 ms; it may be busy');
    const next = requests.ask('unused-pages', 1);
    await expect(loop.until(next)).rejects.toThrow('the posted drivers of v3 to v6 keep it after a request');
  });

  test("is answered when the buffer comes back after lists of which none says that it is the last, as v5's driver has it", async () => {
    const { requests, answer, collect, post } = guestOf(name);
    const asked = requests.ask('unused-pages', 30_000);
    collect();
    answer([[FIRST_PAGE, 4]], false);
    answer([[FIRST_PAGE + 8, 4]], false);
    post();
    await expect(loop.until(asked)).resolves.toMatchObject({ unusedBytes: 8 * PAGE_SIZE, lists: 2 });
  });
});
