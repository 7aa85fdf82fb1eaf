/** `aerostat doctor`: what of host and guests is dangerous or costs memory, and what to do about it. */
import { Command, Option } from 'commander';
import { diagnose, type Finding, WEIGHTS, type Weight } from '../../control/diagnosis.ts';
import { AerostatError } from '../../sys/error.ts';
import { type CliContext, printJson, printLine } from '../context.ts';
import { type GuestsChoice, lookAt, withGuestOptions, withGuests } from '../guests.ts';
import { type Style, styleOf } from '../style.ts';
import { wrap } from '../table.ts';

const EXAMPLES = `
Examples:
  aerostat doctor                            the host, and all guests of the daemon
  aerostat doctor web                        one guest, and the host
  aerostat doctor --qmp-dir /var/run/qemu-server
  aerostat doctor --json --fail-on danger    for a script: exit code 8 for dangers, else 0

It looks and changes nothing. What a hypervisor does not tell is not judged. It ends with 8 where something is dangerous,
with 7 where something costs memory, else with 0.`;

interface DoctorChoice extends GuestsChoice {
  readonly failOn: Weight;
}

export function doctorCommand(context: CliContext): Command {
  const command = new Command('doctor')
    .description('say what costs memory or is dangerous, and what to do about it')
    .argument('[guest...]', 'all of them where none is named; a pattern such as web-* is a name too')
    .addOption(
      new Option('--fail-on <weight>', 'the least that ends the command with an exit code of its own')
        .choices(WEIGHTS)
        .default('cost'),
    )
    .addHelpText('after', EXAMPLES)
    .action((words: readonly string[], choice: DoctorChoice) =>
      withGuests(context, choice, async (control, failuresOf) => {
        const [guests, host, samples, daemon] = await Promise.all([
          lookAt(control, words),
          control.host(),
          control.samples(),
          control.daemon().catch(() => undefined),
        ]);
        const findings = diagnose({ host, daemon, guests, samples, failures: failuresOf() });
        if (choice.json) printJson(context.stdout, { guests: guests.map(guest => guest.name), findings });
        else printFindings(context, findings, guests.length);
        failFor(findings, choice.failOn);
      }),
    );
  return withGuestOptions(command);
}

const WIDTH_MAX = 100;

function printFindings({ stdout, env }: CliContext, findings: readonly Finding[], guests: number): void {
  const style = styleOf(stdout, env);
  const width = Math.min(stdout.columns || WIDTH_MAX, WIDTH_MAX);
  for (const { weight, guest, what, remedy } of findings) {
    printLine(stdout, `${paint(style, weight)}  ${style.bold(guest ?? 'host')}`);
    for (const text of [what, `-> ${remedy}`]) {
      for (const line of wrap(text, width - 4)) printLine(stdout, `    ${line}`);
    }
  }
  const looked = `looked at the host and ${guests === 1 ? 'one guest' : `${guests} guests`}`;
  printLine(
    stdout,
    findings.length === 0 ? `Nothing found; ${looked}.` : style.dim(`${countsOf(findings)}; ${looked}`),
  );
}

function paint(style: Style, weight: Weight): string {
  if (weight === 'danger') return style.red(weight);
  return weight === 'cost' ? style.yellow(weight) : style.dim(weight);
}

/** As `2 dangers, 1 cost`. */
function countsOf(findings: readonly Finding[]): string {
  const counts = WEIGHTS.map(weight => ({
    weight,
    count: findings.filter(found => found.weight === weight).length,
  }));
  return counts
    .filter(({ count }) => count > 0)
    .map(({ weight, count }) => `${count} ${weight}${count === 1 ? '' : 's'}`)
    .join(', ');
}

/** @throws AerostatError where the heaviest finding is at least as heavy as `failOn` */
function failFor(findings: readonly Finding[], failOn: Weight): void {
  const [heaviest] = findings;
  if (heaviest === undefined || WEIGHTS.indexOf(heaviest.weight) > WEIGHTS.indexOf(failOn)) return;
  const code = heaviest.weight === 'danger' ? 'AEROSTAT_FOUND_DANGER' : 'AEROSTAT_FOUND_COST';
  throw new AerostatError(code, `found ${countsOf(findings)}; each has a line that says what to do`);
}
