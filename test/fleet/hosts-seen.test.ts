/** Ages of reports by our own clock: a host's clock says nothing, and what was found is of unknown age. */
import { beforeEach, describe, expect, test } from 'vitest';
import { HostsSeen } from '../../src/fleet/hosts-seen.ts';
import type { Report } from '../../src/fleet/messages.ts';
import { reportOf } from './samples.ts';

let nowMs = 0;
let told: string[];
let hosts: HostsSeen;

const entry = (report: Report, revision: number, key = report.host) => ({
  key,
  revision,
  bytes: new TextEncoder().encode(JSON.stringify(report)),
});
const ages = () => hosts.all().map(({ report, ageMs }) => [report.host, ageMs]);

beforeEach(() => {
  nowMs = 1000;
  told = [];
  hosts = new HostsSeen(
    () => nowMs,
    (host, why) => told.push(`${host}: ${why}`),
  );
});

describe('a report', () => {
  test('is as old as its revision has stood still, by a clock that is ours', () => {
    hosts.heard(entry(reportOf('host1'), 1));
    nowMs += 700;
    expect(ages()).toEqual([['host1', 700]]);
    hosts.heard(entry(reportOf('host1'), 1));
    expect(ages()).toEqual([['host1', 700]]);
    hosts.heard(entry(reportOf('host1'), 2));
    expect(ages()).toEqual([['host1', 0]]);
  });

  test('of a host whose clock is an hour off is as new as any', () => {
    const hourOff = { ...reportOf('host2'), atMs: reportOf('host1').atMs - 3_600_000 };
    hosts.heard(entry(reportOf('host1'), 1));
    hosts.heard(entry(hourOff, 2));
    nowMs += 10;
    expect(ages()).toEqual([
      ['host1', 10],
      ['host2', 10],
    ]);
  });

  test('that was found stored is of unknown age until it changes, also after a time without a connection', () => {
    hosts.found(entry(reportOf('host1'), 1));
    expect(ages()).toEqual([['host1', null]]);
    hosts.heard(entry(reportOf('host1'), 2));
    expect(ages()).toEqual([['host1', 0]]);
    nowMs += 60_000;
    hosts.found(entry(reportOf('host1'), 50));
    expect(ages()).toEqual([['host1', null]]);
  });

  test('of a stranger is refused and counted, and the one before it stays', () => {
    hosts.heard(entry(reportOf('host1'), 1));
    hosts.heard({ key: 'host1', revision: 2, bytes: new TextEncoder().encode('{"version":1}') });
    hosts.heard({ key: 'host1', revision: 3, bytes: new Uint8Array(8 * 1024 * 1024) });
    hosts.heard(entry({ ...reportOf('host1'), version: 2 } as unknown as Report, 4));
    hosts.heard(entry(reportOf('host9'), 5, 'host1'));
    expect(hosts.all()).toMatchObject([{ revision: 1 }]);
    expect(hosts.refusals).toEqual({ nonsense: 2, 'too-large': 1, newer: 1 });
    expect(told).toHaveLength(4);
  });

  test('of a host that left is gone, and that of one that is silent for long is forgotten', () => {
    hosts.heard(entry(reportOf('host1'), 1));
    hosts.heard(entry(reportOf('host2'), 2));
    hosts.gone('host1');
    expect(ages()).toEqual([['host2', 0]]);
    nowMs += 3_600_000;
    expect(ages()).toEqual([]);
  });
});
