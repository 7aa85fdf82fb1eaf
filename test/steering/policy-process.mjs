/**
 * A policy in a process of its own that may be killed: over the daemon at argv[2], with its state in argv[3] and its API at
 * argv[4], on a host of argv[5] bytes of which its guests hold what the daemon says. Prints a line when it is up.
 */
import { join } from 'node:path';
import { parseAddress } from '../../dist/server/address.js';
import { remoteControl } from '../../dist/server/client.js';
import { serveApi } from '../../dist/server/listen.js';
import { machineClock } from '../../dist/steering/clock.js';
import { steeredControl } from '../../dist/steering/policy-control.js';
import { PolicyRunner } from '../../dist/steering/runner.js';
import { DEFAULT_SETTINGS } from '../../dist/steering/settings.js';
import { StateFile } from '../../dist/steering/state-file.js';

const MIB = 2 ** 20;
const [daemon, directory, api, total] = process.argv.slice(2);
const control = remoteControl(parseAddress(daemon));
const totalBytes = Number(total);

async function host() {
  const guests = await control.guests();
  const held = guests.reduce((sum, { residentBytes }) => sum + (residentBytes ?? 0), 0);
  return { totalBytes, availableBytes: Math.max(0, totalBytes - held), pressure: null };
}

const runner = new PolicyRunner({
  sources: [{ control }],
  host,
  settings: { ...DEFAULT_SETTINGS, periodMs: 500, reserveBytes: 64 * MIB, defaults: { minBytes: 96 * MIB } },
  clock: machineClock,
  state: new StateFile(join(directory, 'state')),
  onError: error => process.stderr.write(`${error.stack}\n`),
});
await serveApi(steeredControl(control, runner), { version: '0', address: parseAddress(api) });
runner.start();
process.stdout.write('up\n');
