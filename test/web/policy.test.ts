/** The memory policy's page in a real browser: its figures are the API's, and what is set there reaches the policy. */
import type { Page } from 'playwright-core';
import { expect, test } from 'vitest';
import { size } from '../../web/src/format.ts';
import { FakeControl, GIB, guestStatus, MIB } from '../server/fake-control.ts';
import { guestPolicy, policyDecision, policyStatus } from '../server/fake-policy.ts';
import { complaints } from './axe.ts';
import { describePages } from './pages.ts';

const POLL = { timeout: 60_000 } as const;
const NOW_MS = 1_700_000_000_000;

/** A policy over two guests, of which the first was moved every ten seconds. */
function steered(): FakeControl {
  const control = new FakeControl(guestStatus('vm1'), guestStatus('vm2'));
  control.memoryPolicy.status = policyStatus(['vm1', 'vm2']);
  const history = Array.from({ length: 30 }, (_, index) => {
    const keepBytes = (2 + 0.05 * Math.floor(index / 5)) * GIB;
    const timeMs = NOW_MS + 2000 * index;
    const moved = index % 5 === 0;
    const sentence = `vm1 keeps ${size(keepBytes)} of 4 GiB, decision ${index}.`;
    return policyDecision('vm1', { timeMs, moved, keepBytes, actualBytes: 4 * GIB - keepBytes, sentence });
  });
  control.memoryPolicy.decisions.set('vm1', history);
  return control;
}

const figure = (page: Page, name: string) => page.textContent(`[data-figure="${name}"]`);
const figureOf = (page: Page, guest: string, name: string) =>
  page.textContent(`[data-policy-guest="${guest}"] [data-figure="${name}"]`);
const called = (control: FakeControl, name: string) => control.calls.filter(([call]) => call === name);

describePages('the page of the memory policy', ({ open }) => {
  async function openPolicy(control: FakeControl, options = {}): Promise<Page> {
    const page = await open(control, options);
    await page.getByRole('link', { name: 'Memory policy' }).click();
    await page.waitForSelector('.policy h1');
    return page;
  }

  test('there is none: it says so, and how to start one', async () => {
    const page = await openPolicy(new FakeControl(guestStatus('vm1')));
    await expect
      .poll(() => page.textContent('.policy'), POLL)
      .toMatch(/No memory policy.*aerostat policy run/s);
    expect(await figure(page, 'policy-state')).toBe('off');
    expect(await complaints(page)).toEqual([]);
  });

  test('its figures are the API’s, of the host and of every guest', async () => {
    const control = steered();
    const page = await openPolicy(control);
    const { budget, guests, decisions } = await control.policy();
    if (budget === null) throw new Error('the fake has a budget');
    await expect.poll(() => page.locator('.budget-bar i').count(), POLL).toBe(9);
    const shown = {
      total: budget.totalBytes,
      budget: budget.budgetBytes,
      reserve: budget.reserveBytes,
      reserved: budget.reservedBytes,
      others: budget.othersBytes,
      fixed: budget.fixedBytes,
      floor: budget.floorsBytes,
      need: budget.needBytes - budget.floorsBytes,
      surplus: budget.surplusBytes,
    };
    for (const [name, bytes] of Object.entries(shown))
      expect([name, await figure(page, name)]).toEqual([name, size(bytes)]);
    expect(await figure(page, 'policy-decisions')).toBe(decisions.toLocaleString('en'));
    // The bar is the host's memory, part by part.
    const widths = (await page.evaluate(
      `[...document.querySelectorAll('.budget-bar i')].map(part => part.getBoundingClientRect().width)`,
    )) as number[];
    const bar = (await page.locator('.budget-bar').boundingBox()) as { width: number };
    expect(widths[0] / bar.width).toBeCloseTo(budget.reserveBytes / budget.totalBytes, 2);
    expect(widths.reduce((sum, width) => sum + width, 0)).toBeCloseTo(bar.width, 0);
    for (const { name, decision } of guests) {
      if (decision === null) throw new Error('the fake has decided');
      expect(await figureOf(page, name, 'needs')).toBe(size(decision.needBytes));
      expect(await figureOf(page, name, 'uses')).toBe(size(decision.usedBytes));
      expect(await figureOf(page, name, 'keeps')).toBe(size(decision.keepBytes));
      expect(await figureOf(page, name, 'has')).toBe(
        size((decision.memoryBytes ?? 0) - (decision.actualBytes ?? 0)),
      );
      expect(await figureOf(page, name, 'why')).toBe(decision.sentence);
    }
    // What is decided next is shown without asking.
    control.memoryPolicy.alter('vm2', { decision: policyDecision('vm2', { needBytes: 3 * GIB }) });
    await expect.poll(() => figureOf(page, 'vm2', 'needs'), POLL).toBe('3 GiB');
    expect(await complaints(page)).toEqual([]);
  });

  test('decisions are marked in the chart, and told where one points or goes with the keyboard', async () => {
    const page = await openPolicy(steered());
    const chart = page.locator('[data-policy-guest="vm1"] .decision-chart');
    const marks = chart.locator('.decision-mark');
    await expect.poll(() => marks.count(), POLL).toBe(6);
    const left = async (at: number) => (await marks.nth(at).boundingBox())?.x ?? 0;
    await expect.poll(async () => (await left(5)) - (await left(0)), POLL).toBeGreaterThan(100);
    await marks.nth(1).hover();
    expect(await chart.locator('.told').textContent()).toMatch(/vm1 keeps .* decision 5\./);
    await page.mouse.move(0, 0);
    await marks.nth(5).focus();
    expect(await chart.locator('.told').textContent()).toMatch(/decision 25\./);
    await page.keyboard.press('ArrowLeft');
    expect(await chart.locator('.told').textContent()).toMatch(/decision 20\./);
    await page.keyboard.press('Home');
    expect(await page.evaluate('document.activeElement.getAttribute("aria-label")')).toMatch(/decision 0\./);
    // One stop for the keyboard among all of them.
    expect(await chart.locator('.decision-mark[tabindex="0"]').count()).toBe(1);
    expect(await page.textContent('[data-policy-guest="vm1"] .decisions ol')).toMatch(
      /decision 25.*decision 0/s,
    );
  });

  test('mode, minimum, maximum and shares are set there, and a switch makes it a dry run', async () => {
    const control = steered();
    const page = await openPolicy(control);
    const vm1 = page.locator('[data-policy-guest="vm1"]');
    await page.getByLabel('Minimum of vm1').fill('nonsense');
    expect(await vm1.getByRole('button', { name: 'Set', exact: true }).isDisabled()).toBe(true);
    await page.getByLabel('Minimum of vm1').fill('512 MiB');
    await page.getByLabel('Shares of vm1').fill('2000');
    await vm1.getByRole('button', { name: 'Set', exact: true }).click();
    await expect
      .poll(() => called(control, 'changeGuestPolicy'), POLL)
      .toEqual([['changeGuestPolicy', 'vm1', { minBytes: 512 * MIB, shares: 2000 }]]);
    await expect.poll(() => page.getByLabel('Minimum of vm1').inputValue(), POLL).toBe('512 MiB');
    await vm1.getByRole('button', { name: 'Hold' }).click();
    await expect.poll(() => vm1.textContent(), POLL).toMatch(/on hold/);
    await vm1.getByRole('button', { name: 'Resume' }).click();
    await expect.poll(() => called(control, 'resumePolicy').length, POLL).toBe(1);
    await expect.poll(() => vm1.getByRole('button', { name: 'Hold' }).count(), POLL).toBe(1);
    const dry = page.getByRole('switch', { name: 'Dry run' });
    expect(await dry.getAttribute('aria-checked')).toBe('false');
    await dry.press('Space');
    await expect.poll(() => dry.getAttribute('aria-checked'), POLL).toBe('true');
    expect(await figure(page, 'policy-state')).toMatch(/dry run/);
    expect((await control.policy()).dryRun).toBe(true);
    control.failure = new Error('the fake fails');
    await dry.press('Space');
    await expect.poll(() => page.textContent('.switch-line .refused'), POLL).not.toBe('');
  });

  test('it is silent, the host is overcommitted, guests suffer: all of it is said, on a narrow screen too', async () => {
    const name = 'm'.repeat(64);
    const control = new FakeControl(guestStatus(name));
    const budget = policyStatus([name]).budget;
    if (budget === null) throw new Error('the fake has a budget');
    control.memoryPolicy.status = policyStatus([name], {
      state: 'silent',
      decidedAgoMs: 30_000,
      settingsError: 'policy.toml:3: minimum is above maximum',
      budget: { ...budget, overcommitted: true, surplusBytes: 0 },
      guests: [
        guestPolicy(name, {
          mode: 'hold',
          heldSinceMs: NOW_MS,
          harms: 2,
          oomKills: 1,
          decision: policyDecision(name, { stuck: true, distress: true, usedBytes: null }),
        }),
      ],
    });
    const page = await openPolicy(control, { viewport: { width: 320, height: 700 } });
    await expect
      .poll(() => page.textContent('.alarms'), POLL)
      .toMatch(/silent: .* 30.0 s ago.*overcommitted.*toml:3/s);
    const said = await page.textContent(`[data-policy-guest="${name}"]`);
    expect(said).toMatch(/on hold since .*stuck.*in distress.*harmed 2 times.*1 program killed/s);
    expect(await figureOf(page, name, 'uses')).toBe('–');
    expect(
      await page.evaluate('document.documentElement.scrollWidth - document.documentElement.clientWidth'),
    ).toBe(0);
    expect(await complaints(page)).toEqual([]);
  });
});
