/**
 * The data plane allocates nothing per buffer: a sampling heap profiler, which also sees what was collected already,
 * counts what the sources allocate while the device serves a great many of them.
 */
import { Session } from 'node:inspector/promises';
import { expect, test } from 'vitest';
import { type DeviceRig, FIRST_PAGE, openRig, packed, pfns } from '../support/device-rig.ts';
import type { RigQueue } from '../support/rig-queue.ts';

const P = FIRST_PAGE;
const SAMPLE_BYTES = 4096;
/**
 * Room for what is allocated once in a while (closures of the discarding loop, growth of tables) and for the profiler's
 * error. An object, a closure or a boxed number per buffer is 16 bytes and more.
 */
const BYTES_PER_BUFFER_MAX = 8;

interface ProfileNode {
  readonly callFrame: { readonly url: string };
  readonly selfSize: number;
  readonly children: readonly ProfileNode[];
}

/** Bytes allocated by functions of src/. */
const allocatedBySources = (node: ProfileNode): number =>
  (node.callFrame.url.includes('/src/') ? node.selfSize : 0) +
  node.children.reduce((total, child) => total + allocatedBySources(child), 0);

async function allocationOf(act: () => void): Promise<number> {
  const session = new Session();
  session.connect();
  try {
    await session.post('HeapProfiler.startSampling', {
      samplingInterval: SAMPLE_BYTES,
      includeObjectsCollectedByMajorGC: true,
      includeObjectsCollectedByMinorGC: true,
    } as object);
    act();
    const { profile } = await session.post('HeapProfiler.stopSampling');
    return allocatedBySources(profile.head as ProfileNode);
  } finally {
    session.disconnect();
  }
}

/** Sends the same buffers over and over, one kick each, the way Linux does. */
function play(rig: DeviceRig, buffers: number): void {
  const inflate = rig.queue('inflate');
  const deflate = rig.queue('deflate');
  const list = pfns(...Array.from({ length: 64 }, (_, index) => P + 2 * index));
  const used = { token: 0, written: 0 };
  const send = (queue: RigQueue): void => {
    queue.add({ outAt: [[address, list.length]] });
    queue.kick();
    if (!queue.driver.popUsed(rig.memory, used)) throw new Error('a buffer did not come back');
  };
  rig.forgetLists();
  const address = rig.place(list);
  for (let sent = 0; sent < buffers; sent += 2) {
    send(inflate);
    send(deflate);
  }
}

test.each([
  ['split', {}],
  ['packed', packed],
])('serving a buffer allocates nothing (%s rings)', async (_, rings) => {
  const rig = openRig(rings);
  play(rig, 20_000);
  const buffers = 100_000;
  const bytes = await allocationOf(() => play(rig, buffers));
  expect(rig.device.counters.badBuffers).toBe(0);
  expect(bytes / buffers).toBeLessThan(BYTES_PER_BUFFER_MAX);
});
