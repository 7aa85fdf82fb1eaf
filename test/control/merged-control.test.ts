/** Guests of several sources that come and go under one contract. */
import { describe, expect, test } from 'vitest';
import type { GuestEvent } from '../../src/control/contract.ts';
import { mergedControl } from '../../src/control/merged-control.ts';
import { UnreachableError } from '../../src/server/client.ts';
import { FakeControl, guestStatus } from '../server/fake-control.ts';

const host = (...names: string[]) => new FakeControl(...names.map(name => guestStatus(name)));
const namesOf = (guests: readonly { readonly name: string }[]) => guests.map(({ name }) => name);

describe('guests of sources that come and go', () => {
  test('are called as their sources call them, and after their source where two have one name', async () => {
    const here = host('web', 'db');
    const merged = mergedControl([
      { label: 'here', control: here },
      { label: 'there', control: host('web', 'mail') },
    ]);
    expect(namesOf(await merged.guests())).toEqual(['here/web', 'db', 'there/web', 'mail']);
    await merged.change('here/web', { targetBytes: 4096 });
    expect(here.calls).toContainEqual(['change', 'web', { targetBytes: 4096 }]);
    await expect(merged.guest('web')).rejects.toThrow(/no guest is called web.*here\/web/);
    expect((await merged.guest('there/web')).name).toBe('there/web');
  });

  test('that a file named keep their names, and are there before any was asked', async () => {
    const named = host('web');
    const merged = mergedControl([
      { label: 'named', control: named, names: ['web'] },
      { label: 'there', control: host('web') },
    ]);
    expect((await merged.guest('web')).name).toBe('web');
    expect(namesOf(await merged.guests())).toEqual(['web', 'there/web']);
  });

  test('are found though they came after the last list', async () => {
    const late = host();
    const merged = mergedControl([{ label: 'late', control: late }]);
    expect(await merged.guests()).toEqual([]);
    late.known.set('new', guestStatus('new'));
    expect((await merged.guest('new')).name).toBe('new');
  });

  test('of a source that cannot be asked are rows with the reason, and the others are listed', async () => {
    const gone = host('vm1');
    const merged = mergedControl([
      { label: 'gone', control: gone },
      { label: 'here', control: host('vm2') },
    ]);
    await merged.guests();
    gone.failure = new UnreachableError('no daemon listens there');
    const rows = (await merged.guests()).map(({ name, lastError }) => [name, lastError]);
    expect(rows).toEqual([
      ['vm1', 'no daemon listens there'],
      ['vm2', null],
    ]);
    expect([...merged.failures().keys()]).toEqual(['vm1']);
    expect(Object.keys(await merged.samples())).toEqual(['vm2']);
  });

  test('of a source that was never reached are one row, called after the source', async () => {
    const gone = host('vm1');
    gone.failure = new UnreachableError('no daemon listens there');
    const merged = mergedControl([{ label: 'host2:8080', control: gone }]);
    expect(await merged.guests()).toMatchObject([
      { name: 'host2:8080', connected: false, lastError: 'no daemon listens there' },
    ]);
  });

  test('of a source that hangs are waited for once, and not again while it hangs', async () => {
    let asked = 0;
    const hanging = Object.assign(host('vm1'), {
      guests: () => {
        asked++;
        return new Promise<never>(() => {});
      },
    });
    const merged = mergedControl(
      [
        { label: 'hanging', control: hanging },
        { label: 'here', control: host('vm2') },
      ],
      { patienceMs: 5 },
    );
    for (let turn = 0; turn < 3; turn++) {
      const rows = await merged.guests();
      expect(namesOf(rows)).toEqual(['hanging', 'vm2']);
      expect(rows[0].lastError).toMatch(/hanging did not answer within/);
    }
    expect(asked).toBe(1);
  });

  test('are heard of under the names that they have here, over one stream a source', async () => {
    const [one, other] = [host('web'), host('web')];
    const merged = mergedControl([
      { label: 'one', control: one },
      { label: 'other', control: other },
    ]);
    await merged.guests();
    const seen: GuestEvent[] = [];
    const leave = merged.subscribe(event => seen.push(event));
    one.emit({ type: 'target', guest: 'web' });
    other.emit({ type: 'target', guest: 'web' });
    leave();
    one.emit({ type: 'target', guest: 'web' });
    expect(seen.map(({ guest }) => guest)).toEqual(['one/web', 'other/web']);
    expect([one.listeners.size, other.listeners.size]).toEqual([0, 0]);
  });
});
