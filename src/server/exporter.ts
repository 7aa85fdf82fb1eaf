/**
 * The figures of several daemons at one address, for Prometheus: `/metrics`, and `/healthz` for health checks of this
 * server. It steers nothing. The caller finds out anew at each scrape which daemons there are.
 */
import { Hono } from 'hono';
import { readHost } from '../control/host.ts';
import { defined } from '../sys/defined.ts';
import { HEALTH_PATH } from './access.ts';
import { type ApiServer, type Application, admit, type ListenOptions, listenAt } from './listen.ts';
import { type Manners, teachManners } from './manners.ts';
import { type MeasuredDaemon, metricsOfAll } from './metrics.ts';

const HOME = `Figures of Aerostat's daemons for Prometheus: /metrics. Whether this server lives: ${HEALTH_PATH}.\n`;

export function createExporter(daemons: () => readonly MeasuredDaemon[], manners: Manners): Application {
  const app = new Hono();
  teachManners(app, manners, '/metrics');
  app.get('/', context => context.text(HOME));
  app.get(HEALTH_PATH, context => context.json({ status: 'ok' }));
  app.get('/metrics', async context => {
    const { type, text } = await metricsOfAll(daemons(), await readHost());
    return context.text(text, 200, { 'Content-Type': type });
  });
  return { app, close: () => {} };
}

/** @throws ListenError, TokenError */
export async function serveExporter(
  daemons: () => readonly MeasuredDaemon[],
  options: ListenOptions,
): Promise<ApiServer> {
  const access = await admit(options);
  const { onError } = options;
  return listenAt(
    createExporter(daemons, {
      ...defined({ access, onError }),
    }),
    options,
  );
}
