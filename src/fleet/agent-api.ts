/** What an agent tells at an address of its own, also while NATS is silent: `/v1/fleet`, `/metrics` and `/healthz`. It steers nothing. */
import { Hono } from 'hono';
import { HEALTH_PATH } from '../server/access.ts';
import { type ApiServer, admit, type ListenOptions, listenAt } from '../server/listen.ts';
import { teachManners } from '../server/manners.ts';
import { metricsOf } from '../server/metrics.ts';
import { defined } from '../sys/defined.ts';
import type { Agent } from './agent.ts';
import { FLEET_METRICS } from './metric-table.ts';

export const AGENT_PATH = '/v1/fleet';

/** @throws ListenError, TokenError */
export async function serveAgent(agent: Agent, options: ListenOptions): Promise<ApiServer> {
  const access = await admit(options);
  const { onError } = options;
  const app = new Hono();
  teachManners(app, { ...defined({ access, onError }) }, AGENT_PATH);
  app.get(HEALTH_PATH, context => context.json({ status: 'ok' }));
  app.get(AGENT_PATH, context => context.json(agent.status()));
  app.get('/metrics', async context => {
    const { type, text } = await metricsOf(FLEET_METRICS, agent.status());
    return context.text(text, 200, { 'Content-Type': type });
  });
  return listenAt({ app, close: () => {} }, options);
}
