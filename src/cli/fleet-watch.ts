/** The fleet that a page shows, by the options of the fleet and the configuration. */
import type { FleetWatch } from '../fleet/watch.ts';
import { monotonicMs } from '../sys/poll.ts';
import { type CliContext, sleep } from './context.ts';
import { busTo, type FleetChoice, fleetPlace } from './fleet-options.ts';

/** Runs `body` with a fleet that is looked at when it is asked for; its connection is closed afterwards. */
export async function withFleetWatch(
  context: CliContext,
  choice: FleetChoice,
  body: (watch: FleetWatch) => Promise<void>,
): Promise<void> {
  const place = await fleetPlace(context, choice);
  const [{ FleetWatch }, { placementOf }] = await Promise.all([
    import('../fleet/watch.ts'),
    import('../fleet/settings.ts'),
  ]);
  const watch = new FleetWatch({
    fleet: place.fleet,
    openBus: () => busTo(place, 'aerostat dashboard', false),
    placement: placementOf(place.periodMs, {}),
    now: monotonicMs,
    sleep: ms => sleep(ms, context.interrupt).catch(() => {}),
  });
  try {
    await body(watch);
  } finally {
    await watch.close();
  }
}
