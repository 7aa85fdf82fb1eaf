/** What happens to a page on a bad day: guests that vanish or do not answer, addresses and tokens that are broken. */
import type { Page } from 'playwright-core';
import { expect, test } from 'vitest';
import { type GuestState, type GuestStatistics, statusOf } from '../../src/control/contract.ts';
import { SILENCE_MS_MAX } from '../../src/server/event-parser.ts';
import { AerostatError } from '../../src/sys/error.ts';
import { FakeControl, GIB, guestStatus, MIB } from '../server/fake-control.ts';
import { complaints } from './axe.ts';
import { describePages } from './pages.ts';
import { TOKEN } from './world.ts';

const POLL = { timeout: 60_000 } as const;

describePages('a page on a bad day', ({ prepare, open }) => {
  const resident = (page: Page) => page.textContent('[data-figure="resident"]');

  test('the guest that one looks at is gone while it moves: it says so, and the others are there', async () => {
    const control = new FakeControl(
      guestStatus('vm1', { targetBytes: GIB, actualBytes: 0 }),
      guestStatus('vm2'),
    );
    const page = await open(control);
    await page.click('[data-guest="vm1"]');
    await page.waitForSelector('.guest .mark.calm');
    control.known.delete('vm1');
    await expect.poll(() => page.textContent('main'), POLL).toMatch(/serves no guest called vm1/);
    await expect.poll(() => page.textContent('.connection'), POLL).toMatch(/^live/);
    await page.getByRole('link', { name: 'All guests', exact: true }).click();
    await page.waitForSelector('[data-guest="vm2"]');
  });

  test('the hypervisor of a guest does not say whether it can be moved: all else is shown', async () => {
    const control = new FakeControl(guestStatus('vm1'));
    control.migration = async () => {
      throw new AerostatError('AEROSTAT_QMP_TIMEOUT', 'QEMU does not answer');
    };
    const page = await open(control);
    await page.click('[data-guest="vm1"]');
    for (const gib of [2, 3]) {
      control.alter('vm1', { residentBytes: gib * GIB });
      await expect.poll(() => resident(page), POLL).toBe(`${gib} GiB`);
    }
    expect(await page.textContent('.connection')).toMatch(/^live/);
  });

  test('most of a balloon waits for whole huge pages: the list and the guest say so', async () => {
    const balloon = { targetBytes: 31 * MIB, actualBytes: 31 * MIB, balloonedBytes: 31 * MIB };
    const control = new FakeControl(guestStatus('vm1', { ...balloon, incompleteBytes: 31 * MIB }));
    const page = await open(control);
    await expect
      .poll(() => page.getAttribute('[data-guest="vm1"] .mark.noted', 'title'), POLL)
      .toMatch(/31 MiB wait for whole huge pages/);
    await page.click('[data-guest="vm1"]');
    const told = () => page.textContent('[data-figure="incomplete"]');
    await expect.poll(told, POLL).toMatch(/^31 MiB wait for whole huge pages: .*the host keeps them/);
  });

  test('a target that the guest’s memory follows, and memory that was removed with a part of the balloon', async () => {
    const control = new FakeControl(
      guestStatus('vm1', {
        targetBytes: 2 * GIB,
        balloonedBytes: GIB,
        wishedMemoryBytes: 2 * GIB,
        removedBytes: GIB,
      }),
    );
    const page = await open(control);
    const balloon = '[data-guest="vm1"] .figure.balloon';
    expect(await page.textContent(balloon)).toMatch(/1 GiB → 2 GiB/);
    expect(await page.getAttribute(balloon, 'title')).toMatch(/guest keeps 2 GiB; 1 GiB more was in memory/);
    await page.click('[data-guest="vm1"]');
    expect(await page.textContent('[data-figure="kept"]')).toMatch(/Set so that the guest keeps 2 GiB/);
    expect(await page.textContent('[data-figure="removed"]')).toMatch(
      /^1 GiB more was in memory that was removed/,
    );
    control.alter('vm1', { wishedMemoryBytes: null, removedBytes: 0 });
    await expect
      .poll(() => page.locator('[data-figure="kept"], [data-figure="removed"]').count(), POLL)
      .toBe(0);
  });

  test('its memory is a file on a disk: the resident figure says that it is blocks', async () => {
    const control = new FakeControl(guestStatus('vm1', { memoryPlace: 'disk' }), guestStatus('vm2'));
    const page = await open(control);
    const what = /blocks of its file on disk.*page cache comes besides/;
    expect(await page.getAttribute('[data-guest="vm1"] .figure.resident', 'title')).toMatch(what);
    expect(await page.getAttribute('[data-guest="vm2"] .figure.resident', 'title')).toBeNull();
    await page.click('[data-guest="vm1"]');
    expect(await page.textContent('[data-figure="resident-kind"]')).toMatch(what);
  });

  test('the balloon gets no nearer to its target: since when, and where it stands', async () => {
    const stuck = { sinceMs: Date.now() - 90_000, forMs: 90_000, swings: false, retryInMs: null };
    const balloon = { targetBytes: 3 * GIB, actualBytes: 2 * GIB, balloonedBytes: 2 * GIB };
    const control = new FakeControl(guestStatus('vm1', { ...balloon, stuck }));
    const page = await open(control);
    const words = /^stuck since \d\d:\d\d:\d\d \(.*\) at 2 GiB of 3 GiB/;
    expect(await page.textContent('[data-guest="vm1"] .mark')).toBe('stuck');
    expect(await page.getAttribute('[data-guest="vm1"] .mark', 'title')).toMatch(words);
    await page.click('[data-guest="vm1"]');
    expect((await page.textContent('.target .progress'))?.trim()).toMatch(words);
    control.alter('vm1', { stuck: { ...stuck, swings: true, retryInMs: 60_000 }, shownTargetBytes: GIB });
    await expect
      .poll(() => page.textContent('.target .progress'), POLL)
      .toMatch(
        /gave memory and took it back again and again, so its driver is shown 1 GiB; all of it again in/,
      );
    control.alter('vm1', { ...balloon, actualBytes: 3 * GIB, stuck: null });
    await expect.poll(() => page.textContent('.target .progress'), POLL).not.toMatch(/stuck/);
  });

  test('a hint session holds the guest’s free memory: what it holds, until when, and why the guest is in need', async () => {
    const control = new FakeControl(guestStatus('vm1'));
    const hint = { state: 'stopped', commandId: 0x100, hintedBytes: 1.25 * GIB, ranges: 5 } as const;
    control.alter('vm1', { hint: { ...hint, heldBytes: 1.25 * GIB, endsInMs: 42_000 } });
    control.sample = {
      ...control.sample,
      statistics: { ...control.sample?.statistics, availableBytes: MIB },
    } as never;
    const page = await open(control);
    const marks = () => page.locator('[data-guest="vm1"] .mark').allTextContents();
    expect(await marks()).toEqual(['in need', 'hints hold memory']);
    expect(await page.getAttribute('[data-guest="vm1"] .mark.bad', 'title')).toMatch(
      /hint session holds 1.25 GiB/,
    );
    await page.click('[data-guest="vm1"]');
    expect(await page.textContent('.hint .note')).toMatch(
      /keeps 1.25 GiB out of use until Done; the time limit ends the session in 42.0 s/,
    );
    expect(await page.textContent('.hint .now')).toMatch(/holding 1.25 GiB until done/);
    await page.locator('.hint').getByRole('button', { name: 'Done' }).click();
    await expect
      .poll(() => page.textContent('.hint .note'), POLL)
      .toMatch(/Over; the guest may use the pages again/);
    expect(control.calls).toContainEqual(['hint', 'vm1', { action: 'done' }]);
  });

  test('the daemon doubts a target that the page does not: the doubt is asked about, and force is sent only then', async () => {
    const control = new FakeControl(guestStatus('vm1'));
    control.refuse = new AerostatError(
      'AEROSTAT_UNCONFIRMED',
      'vm1 says that it can spare 512M; give --force to take 1G',
    );
    const page = await open(control);
    await page.click('[data-guest="vm1"]');
    const target = page.getByLabel('Target of the balloon', { exact: true });
    await target.fill('1G');
    await target.press('Enter');
    const question = page.getByRole('dialog');
    await question.waitFor();
    expect(await question.textContent()).toMatch(/Take 1 GiB from vm1\?.*can spare 512M/s);
    await page.getByRole('button', { name: 'Leave it' }).click();
    await question.waitFor({ state: 'hidden' });
    const changes = () => control.calls.filter(([call]) => call === 'change');
    expect(changes()).toEqual([]);
    await target.press('Enter');
    await question.waitFor();
    await page.getByRole('button', { name: 'Take 1 GiB' }).click();
    await expect.poll(changes, POLL).toEqual([['change', 'vm1', { targetBytes: GIB, force: true }]]);
  });

  test('guests of QEMU’s own device: the balloon by their own word, their states, and nothing painted that is not told', async () => {
    const states = {
      running: [],
      'no-driver': ['no driver'],
      paused: ['paused'],
      silent: ['silent'],
      unknown: ['connected'],
    };
    const ofQemu = Object.keys(states).map(state =>
      statusOf(state, {
        connected: true,
        state: state === 'unknown' ? null : (state as GuestState),
        profile: 'virtio',
        memoryBytes: 2 * GIB,
        actualBytes: 300 * MIB,
        pendingBytes: 0,
      }),
    );
    const ours = guestStatus('ours', { balloonedBytes: GIB, actualBytes: GIB, targetBytes: GIB });
    const page = await open(new FakeControl(ours, ...(ofQemu as ReturnType<typeof guestStatus>[])));
    for (const [name, marks] of Object.entries(states)) {
      const row = page.locator(`[data-guest="${name}"]`);
      expect(await row.locator('.mark').allTextContents()).toEqual(marks);
      expect(await row.locator('.figure.balloon').textContent()).toMatch(/300 MiB$/);
      expect(await row.locator('.figure.resident').textContent()).toMatch(/–$/);
      expect(await row.locator('.held .resident, .free-held').count()).toBe(0);
    }
    expect(await page.textContent('.sums')).toMatch(/2.46 GiB ballooned .*\(5 not known\)/);
    await page.click('[data-guest="paused"]');
    await page.waitForSelector('.guest h1');
    expect(await page.textContent('[data-figure="actual"]')).toBe('300 MiB');
    expect(await page.textContent('[data-figure="resident"]')).toBe('–');
  });

  test('the guest spoke before its balloon grew: what it can spare is of that moment, is said to be old, and guards', async () => {
    const control = new FakeControl(
      guestStatus('vm1', { targetBytes: 2 * GIB, actualBytes: 2 * GIB, balloonedBytes: 2 * GIB }),
    );
    const statistics = { ...control.sample?.statistics, availableBytes: 3 * GIB } as GuestStatistics;
    control.samples = async () => ({ vm1: { statistics, ageMs: 1500, balloonedBytes: 0 } });
    const page = await open(control);
    // 3 GiB were available with an empty balloon: 1 GiB at least is now, and never 3 and 2.
    expect(await page.textContent('[data-guest="vm1"] .figure.available')).toMatch(/≥ 25\s*%/);
    await page.click('[data-guest="vm1"]');
    expect(await page.textContent('.target')).toMatch(/can spare 2.9\d GiB, before its balloon was changed/);
    const target = page.getByLabel('Target of the balloon', { exact: true });
    await target.fill('3.5G');
    await target.press('Enter');
    expect(await page.getByRole('dialog').textContent()).toMatch(
      /spare 2.9\d GiB, before its balloon was changed/,
    );
    await page.keyboard.press('Escape');
    expect(control.calls.filter(([call]) => call === 'change')).toEqual([]);
  });

  test('the token is wrong: the right one is taken from an address that is opened in the same tab', async () => {
    const { watched, address } = await prepare(new FakeControl(guestStatus('vm1')));
    const { page } = watched;
    await page.goto(`${address.origin}/#token=that-of-the-dashboard-before`);
    await page.waitForSelector('.locked');
    await page.goto(address.href);
    await page.waitForSelector('.guests');
    expect(page.url()).not.toContain(TOKEN);
  });

  test('the token is one that no request can carry: that is said, and another is taken', async () => {
    const { watched, address } = await prepare(new FakeControl(guestStatus('vm1')));
    const { page } = watched;
    await page.goto(`${address.origin}/#token=schl%C3%BCssel%E2%80%A6`);
    await page.getByLabel('Token').fill('a-token-cut-short…');
    await page.keyboard.press('Enter');
    await expect.poll(() => page.textContent('.refused'), POLL).toMatch(/no token/);
    await page.getByLabel('Token').fill(TOKEN);
    await page.keyboard.press('Enter');
    await page.waitForSelector('.guests');
  });

  test('the address is broken, in whatever way: all guests are shown', async () => {
    const { watched, address } = await prepare(new FakeControl(guestStatus('vm1')));
    const { page } = watched;
    await page.goto(address.href);
    await page.waitForSelector('.guests');
    for (const fragment of ['#/guest/%', '#/guest/100%25%', '#token=%']) {
      await page.goto('about:blank');
      await page.goto(`${address.origin}/${fragment}`);
      await page.waitForSelector('[data-guest="vm1"]');
    }
  });

  test('the stream of events fell silent: another is opened', async () => {
    const control = new FakeControl(guestStatus('vm1'));
    const { watched, address } = await prepare(control);
    const { page } = watched;
    let streams = 0;
    page.on('request', request => {
      if (new URL(request.url()).pathname === '/v1/events') streams++;
    });
    await page.clock.install();
    await page.goto(address.href);
    await page.waitForSelector('.guests');
    await expect.poll(() => streams, POLL).toBe(1);
    await page.clock.fastForward(SILENCE_MS_MAX);
    await expect.poll(() => streams, POLL).toBe(2);
  });

  test('a guest has the longest name that there can be, and the screen is small', async () => {
    const name = 'm'.repeat(64);
    const control = new FakeControl(
      guestStatus(name, { targetBytes: 2.25 * GIB, balloonedBytes: 1.25 * GIB, lastError: 'no' }),
    );
    const page = await open(control, { viewport: { width: 320, height: 700 } });
    const excess = (selector: string) =>
      page.evaluate(
        `(element => element.scrollWidth - element.clientWidth)(document.querySelector('${selector}'))`,
      );
    expect(await excess('html')).toBe(0);
    expect(await excess('.guests .row')).toBe(0);
    await page.click(`[data-guest="${name}"]`);
    await page.waitForSelector('.guest h1');
    expect(await excess('html')).toBe(0);
  });

  test('the daemon serves no guest: it says how it would', async () => {
    const { watched, address } = await prepare(new FakeControl());
    const { page } = watched;
    await page.goto(address.href);
    await page.waitForSelector('.overview');
    expect(await page.textContent('.overview')).toMatch(/No guests.*--socket-path/s);
    expect(await page.locator('.legend').count()).toBe(0);
    expect(await complaints(page)).toEqual([]);
  });

  test('something failed once: the page does not say that nothing did', async () => {
    const control = new FakeControl(guestStatus('vm1', { lastError: 'the front-end hung up' }));
    const page = await open(control);
    await page.click('[data-guest="vm1"]');
    const rings = page.getByRole('region', { name: 'Rings and discards' });
    expect(await rings.textContent()).toMatch(/the front-end hung up/);
    expect(await rings.textContent()).not.toMatch(/nothing failed/);
  });

  test('a hypervisor forgot the target of its balloon, which holds memory: it can be emptied', async () => {
    const control = new FakeControl(
      statusOf('qemu', {
        connected: true,
        memoryBytes: 2 * GIB,
        actualBytes: 512 * MIB,
        targetBytes: null,
      }) as ReturnType<typeof guestStatus>,
    );
    const page = await open(control);
    await page.click('[data-guest="qemu"]');
    const target = page.getByLabel('Target of the balloon', { exact: true });
    expect(await target.inputValue()).toBe('512 MiB');
    await target.fill('0');
    await target.press('Enter');
    await expect.poll(() => control.calls, POLL).toContainEqual(['change', 'qemu', { targetBytes: 0 }]);
  });
});
