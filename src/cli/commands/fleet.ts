/** `aerostat fleet`: many hosts as one, over NATS. What is asked and wished is in the files beside this one. */
import { Command } from 'commander';
import type { CliContext } from '../context.ts';
import { fleetAuditCommand } from './fleet-audit.ts';
import { fleetDashboardCommand } from './fleet-dashboard.ts';
import { fleetJoinCommand } from './fleet-join.ts';
import { fleetDrainCommand, fleetMoveCommand, fleetUndrainCommand } from './fleet-moves.ts';
import { fleetPlanCommand, fleetStatusCommand, fleetTopCommand } from './fleet-status.ts';

const EXAMPLES = `
Examples:
  aerostat fleet join nats://nats1:4222 --address 10.0.0.1    on each host
  aerostat fleet status --nats nats://nats1:4222
  aerostat fleet drain host2                                  empty a host; its guests run on elsewhere
  aerostat fleet move web host3
  aerostat fleet plan                                         what would be moved now, and why
  aerostat fleet audit --replay
  aerostat fleet dashboard                                    hosts and guests in a browser

All but join need nothing on the host where they run but a way to NATS: --nats, AEROSTAT_NATS, or [fleet] of an
aerostat.toml. docs/fleet.md says how to set a fleet up, how it works, and what it promises.`;

export function fleetCommand(context: CliContext): Command {
  const command = new Command('fleet')
    .description('move guests between hosts that share servers of NATS')
    .addHelpText('after', EXAMPLES);
  for (const one of [
    fleetJoinCommand,
    fleetStatusCommand,
    fleetTopCommand,
    fleetDashboardCommand,
    fleetDrainCommand,
    fleetUndrainCommand,
    fleetMoveCommand,
    fleetPlanCommand,
    fleetAuditCommand,
  ]) {
    command.addCommand(one(context));
  }
  return command;
}
