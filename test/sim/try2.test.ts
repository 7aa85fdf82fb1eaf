import { test } from 'vitest';
import { ours } from '../../src/policy/anchors/ours.ts';
import { PolicyRun } from '../../src/sim/policy/run.ts';
import { makeTrace } from '../../src/sim/policy/traces.ts';
test('x', () => {
  const trace = makeTrace('mixture', 1);
  const G=2**30;
  const from = Number(process.env.F ?? 499), to = Number(process.env.U ?? 506);
  const wrapped: any = { ...ours, decide(s: any, st: any, m: any) { const r = ours.decide(s, st, m); const t=(s.atMs-10_000_000)/1000-0.25; if (t>=from && t<to) { const h=r.memory.last.host; console.log(t.toFixed(2), 'avail', (h.availableBytes/G).toFixed(2), 'res', (h.reserveBytes/G).toFixed(2), 'budget', (h.budgetBytes/G).toFixed(2), 'wait', (h.waitingBytes/G).toFixed(2), h.hurry, h.overcommitted); for (const i of (process.env.I??'7').split(',')) { const g=r.memory.last.guests[+i]; console.log('    ', g.name, 'used', (g.usedBytes/G).toFixed(2), 'now', (g.nowBytes/G).toFixed(2), 'need', (g.needBytes/G).toFixed(2), 'want', (g.wantBytes/G).toFixed(2), 'cur', (g.currentBytes/G).toFixed(2), 'keep', (g.keepBytes/G).toFixed(2), 'comm', (g.committedBytes/G).toFixed(2), g.held, g.bound);} } return r; } };
  new PolicyRun(trace, wrapped).run();
});
