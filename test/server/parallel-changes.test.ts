/** Many clients that change one guest of a real daemon at once: all are answered, and each change is whole. */
import { request } from 'node:http';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { DISCARD_MODES } from '../../src/control/contract.ts';
import { build } from '../cli/built.ts';
import { DaemonProcess } from '../support/daemon.ts';

const MIB = 2 ** 20;
const CLIENTS = 100;

interface Change {
  readonly targetBytes: number;
  readonly discard: string;
}

let daemon: DaemonProcess;

beforeAll(async () => {
  build();
  daemon = await DaemonProcess.start(['a', 'b']);
}, 120_000);

afterAll(() => daemon.stop());

/** What client `index` wants; the target names the mode that came with it. */
const changeOf = (index: number): Change => ({
  targetBytes: (index + 1) * MIB,
  discard: DISCARD_MODES[index % DISCARD_MODES.length],
});

/** One request on a connection of its own. */
function patch(guest: string, change: Change): Promise<{ status: number; body: Change }> {
  return new Promise((resolve, reject) => {
    const asked = request(
      {
        socketPath: join(daemon.directory, 'api.sock'),
        agent: false,
        method: 'PATCH',
        path: `/v1/guests/${guest}`,
        headers: { 'Content-Type': 'application/json' },
      },
      response => {
        let text = '';
        response.setEncoding('utf8').on('data', (piece: string) => {
          text += piece;
        });
        response.once('end', () => resolve({ status: response.statusCode ?? 0, body: JSON.parse(text) }));
      },
    );
    asked.once('error', reject).end(JSON.stringify(change));
  });
}

const wholeOf = ({ targetBytes, discard }: Change): Change => ({ targetBytes, discard });

// A change whose mode and target are set in two steps with anything awaited between them fails it.
test('100 parallel PATCHes: all answered, none torn, and the last state is one of them', async () => {
  const wished = Array.from({ length: CLIENTS }, (_, index) => changeOf(index));
  const answers = await Promise.all(wished.map(change => patch('a', change)));
  expect(answers.map(({ status }) => status)).toEqual(wished.map(() => 200));
  // Each answer shows what its own request made of the guest.
  expect(answers.map(({ body }) => wholeOf(body))).toEqual(wished);
  const last = wholeOf(await daemon.control.guest('a'));
  expect(wished).toContainEqual(last);
  // The guest next door was not asked anything.
  expect(await daemon.control.guest('b')).toMatchObject({ targetBytes: 0, discard: 'auto' });
});

test('100 parallel PATCHes of which every second one makes no sense: those are refused, and change nothing', async () => {
  const wished = Array.from({ length: CLIENTS }, (_, index) => changeOf(index));
  const sent = wished.map((change, index) =>
    index % 2 === 0 ? change : { ...change, targetBytes: change.targetBytes + 1 },
  );
  const answers = await Promise.all(sent.map(change => patch('b', change)));
  expect(answers.map(({ status }) => status)).toEqual(sent.map((_, index) => (index % 2 === 0 ? 200 : 400)));
  const last = wholeOf(await daemon.control.guest('b'));
  expect(wished.filter((_, index) => index % 2 === 0)).toContainEqual(last);
});
