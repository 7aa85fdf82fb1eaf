/**
 * The settings of a policy in a TOML file:
 *
 *     period = "2s"
 *     reserve = "2G"
 *
 *     [guests.web]
 *     qmp = "/run/qemu/web.qmp"
 *     min = "512M"
 *     shares = 2000
 *
 * It is taken whole or refused whole: every error has its line and column. The schema of its values is also shipped as JSON
 * (packaging/policy.schema.json), for editors.
 */
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { type AST, getStaticTOMLValue, ParseError, parseTOML } from 'toml-eslint-parser';
import { z } from 'zod';
import { POLICY_MODES, SHARES_MAX, SILENCE_RULES } from '../control/policy.ts';
import type { GuestSettings } from '../policy/types.ts';
import {
  DEFAULT_SETTINGS,
  PERIOD_MS_MAX,
  PERIOD_MS_MIN,
  type SteeringSettings,
} from '../steering/settings.ts';
import { AerostatError } from '../sys/error.ts';
import { formatDuration, parseDuration } from './duration.ts';
import { GUEST_NAME } from './guest-options.ts';
import type { NamedGuest } from './guests-file.ts';
import { parsePages } from './size.ts';

/** Raised for a file of settings that is refused; those before it stay in force. */
export class PolicyFileError extends AerostatError {
  /** One line for each error: `policy.toml:3:7: …`. */
  constructor(errors: readonly string[], options?: ErrorOptions) {
    super('AEROSTAT_POLICY_SETTINGS', errors.join('\n'), options);
  }
}

/** Text that one of our parsers takes, or what is wrong with it. */
const parsed = (what: string, examples: string[], parse: (text: string) => number) =>
  z
    .string({ error: `must be ${what} in quotes, like "${examples[0]}"` })
    .superRefine((text, context) => {
      try {
        parse(text);
      } catch (error) {
        if (!(error instanceof AerostatError)) throw error;
        context.addIssue({ code: 'custom', message: error.message });
      }
    })
    .meta({ examples });

const size = parsed('a size', ['512M', '1.5G'], parsePages);
const period = parsed('a duration', ['2s', '500ms'], text => {
  const ms = parseDuration(text);
  if (ms >= PERIOD_MS_MIN && ms <= PERIOD_MS_MAX) return ms;
  const [least, most] = [PERIOD_MS_MIN, PERIOD_MS_MAX].map(formatDuration);
  throw new AerostatError('AEROSTAT_DURATION', `a period is ${least} at least and ${most} at most`);
});

const steered = {
  min: size.optional().meta({ description: 'What it keeps whatever happens.' }),
  max: size.optional().meta({ description: 'The most that it gets.' }),
  shares: z
    .int()
    .min(1)
    .max(SHARES_MAX)
    .optional()
    .meta({ description: 'Its weight among the guests; 1000 if left out.' }),
  mode: z
    .enum(POLICY_MODES)
    .optional()
    .meta({ description: 'auto: the policy sets its target. hold: it stays. off: the guest is left alone.' }),
};

const Guest = z.strictObject({
  ...steered,
  qmp: z.string().min(1).optional().meta({ description: "The socket of its QEMU's monitor." }),
  api: z.string().min(1).optional().meta({ description: 'The API of its daemon.' }),
  guest: z.string().min(1).optional().meta({ description: 'What its daemon calls it, if not the same.' }),
  'token-file': z.string().min(1).optional().meta({ description: 'For an API over TCP.' }),
});

const PolicyFileSchema = z
  .strictObject({
    period: period.optional().meta({ description: 'How often it decides; 2s if left out.' }),
    memory: size
      .optional()
      .meta({ description: "What guests and reserve have together; all of the host's memory if left out." }),
    reserve: size
      .optional()
      .meta({ description: 'What the host keeps; the larger of 1G and a twentieth if left out.' }),
    'dry-run': z.boolean().optional().meta({ description: 'Decide and explain, and move nothing.' }),
    'on-silence': z
      .enum(SILENCE_RULES)
      .optional()
      .meta({ description: 'What becomes of targets when the policy is silent for two periods; keep.' }),
    daemons: z
      .array(z.string().min(1))
      .optional()
      .meta({ description: 'APIs of daemons: all their guests.' }),
    defaults: z.strictObject(steered).optional().meta({ description: 'Of guests that say nothing else.' }),
    guests: z.record(z.string(), Guest).optional(),
  })
  .meta({ title: 'Settings of aerostat policy' });

type PolicyText = z.output<typeof PolicyFileSchema>;

export interface PolicyFile {
  readonly settings: SteeringSettings;
  /** Guests of which the file says where they are. */
  readonly guests: readonly NamedGuest[];
  /** Daemons with all of their guests. */
  readonly daemons: readonly string[];
}

/** The schema as it is shipped. */
export const policyFileJsonSchema = () => z.toJSONSchema(PolicyFileSchema, { io: 'input' });

/** @throws PolicyFileError */
export function readPolicyFile(path: string): PolicyFile {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    const missing = (cause as NodeJS.ErrnoException).code === 'ENOENT';
    throw new PolicyFileError([`${path}: ${missing ? 'there is no such file' : (cause as Error).message}`], {
      cause,
    });
  }
  return parsePolicyFile(path, text);
}

/** @throws PolicyFileError */
export function parsePolicyFile(path: string, text: string): PolicyFile {
  const ast = parse(path, text);
  const places = placesIn(ast);
  const at = (keys: readonly PropertyKey[], message: string): string => {
    const { line, column } = placeOf(places, keys);
    const subject = keys.length === 0 ? '' : `${keys.map(String).join('.')}: `;
    return `${path}:${line}:${column + 1}: ${subject}${message}`;
  };
  const checked = PolicyFileSchema.safeParse(getStaticTOMLValue(ast));
  const errors = checked.success
    ? contradictions(checked.data).map(([keys, message]) => at(keys, message))
    : checked.error.issues.flatMap(issue =>
        issue.code === 'unrecognized_keys'
          ? issue.keys.map(key => at([...issue.path, key], 'there is no such setting'))
          : [at(issue.path, issue.message)],
      );
  if (errors.length > 0 || !checked.success) throw new PolicyFileError(errors);
  return asFile(path, checked.data);
}

function parse(path: string, text: string): AST.TOMLProgram {
  try {
    return parseTOML(text);
  } catch (error) {
    if (!(error instanceof ParseError)) throw error;
    const message = error.message.charAt(0).toLowerCase() + error.message.slice(1);
    throw new PolicyFileError([`${path}:${error.lineNumber}:${error.column + 1}: ${message}`], {
      cause: error,
    });
  }
}

interface Place {
  readonly line: number;
  readonly column: number;
}

const keyOf = (keys: readonly PropertyKey[]): string => JSON.stringify(keys.map(String));

/** Where each key is, by its path. */
function placesIn(ast: AST.TOMLProgram): ReadonlyMap<string, Place> {
  const places = new Map<string, Place>();
  const note = (keys: readonly PropertyKey[], place: Place) => {
    if (!places.has(keyOf(keys))) places.set(keyOf(keys), place);
  };
  const pair = ({ key, value }: AST.TOMLKeyValue, above: readonly PropertyKey[]) => {
    let path = above;
    for (const part of key.keys) {
      path = [...path, part.type === 'TOMLBare' ? part.name : part.value];
      note(path, part.loc.start);
    }
    content(value, path);
  };
  const content = (node: AST.TOMLContentNode, path: readonly PropertyKey[]): void => {
    if (node.type === 'TOMLInlineTable') for (const inner of node.body) pair(inner, path);
    if (node.type !== 'TOMLArray') return;
    for (const [index, element] of node.elements.entries()) {
      note([...path, index], element.loc.start);
      content(element, [...path, index]);
    }
  };
  for (const node of ast.body[0].body) {
    if (node.type === 'TOMLKeyValue') {
      pair(node, []);
      continue;
    }
    for (let length = 1; length <= node.resolvedKey.length; length++) {
      note(node.resolvedKey.slice(0, length), node.loc.start);
    }
    for (const inner of node.body) pair(inner, node.resolvedKey);
  }
  return places;
}

/** The place of what has it, or of the nearest thing around it. */
function placeOf(places: ReadonlyMap<string, Place>, keys: readonly PropertyKey[]): Place {
  for (let length = keys.length; length > 0; length--) {
    const place = places.get(keyOf(keys.slice(0, length)));
    if (place !== undefined) return place;
  }
  return { line: 1, column: 0 };
}

/** What each value allows and all together do not. */
function contradictions({ defaults, guests = {} }: PolicyText): [PropertyKey[], string][] {
  const wrong: [PropertyKey[], string][] = [];
  const bounds = (keys: PropertyKey[], { min, max }: { min?: string; max?: string }) => {
    if (min !== undefined && max !== undefined && parsePages(min) > parsePages(max)) {
      wrong.push([[...keys, 'min'], `${min} is above the maximum, ${max}`]);
    }
  };
  bounds(['defaults'], { ...defaults } as { min?: string; max?: string });
  for (const [name, guest] of Object.entries(guests)) {
    const keys = ['guests', name];
    bounds(keys, { ...defaults, ...guest } as { min?: string; max?: string });
    if (!GUEST_NAME.test(name))
      wrong.push([keys, 'no guest can be called that: letters, digits, dots and dashes']);
    if (guest.qmp !== undefined && guest.api !== undefined) {
      wrong.push([[...keys, 'api'], 'a guest is behind a monitor (qmp) or a daemon (api), not both']);
    }
    for (const key of ['guest', 'token-file'] as const) {
      if (guest[key] !== undefined && guest.api === undefined)
        wrong.push([[...keys, key], 'it goes with api']);
    }
  }
  return wrong;
}

function asFile(path: string, text: PolicyText): PolicyFile {
  const from = (relative: string) => resolve(dirname(path), relative);
  // What has no slash is HOST:PORT.
  const address = (api: string) => (api.includes('/') && !api.includes('://') ? from(api) : api);
  const guests: NamedGuest[] = [];
  const settings: Record<string, GuestSettings> = {};
  for (const [name, guest] of Object.entries(text.guests ?? {})) {
    settings[name] = settingsOf(guest);
    const { qmp, api, guest: remote, 'token-file': tokenFile } = guest;
    if (qmp !== undefined) guests.push({ name, qmp: from(qmp) });
    else if (api !== undefined) {
      guests.push({
        name,
        api: address(api),
        ...(remote === undefined ? {} : { guest: remote }),
        ...(tokenFile === undefined ? {} : { tokenFile: from(tokenFile) }),
      });
    }
  }
  return {
    guests,
    daemons: (text.daemons ?? []).map(address),
    settings: {
      periodMs: text.period === undefined ? DEFAULT_SETTINGS.periodMs : parseDuration(text.period),
      dryRun: text['dry-run'] ?? DEFAULT_SETTINGS.dryRun,
      onSilence: text['on-silence'] ?? DEFAULT_SETTINGS.onSilence,
      ...(text.memory === undefined ? {} : { memoryBytes: parsePages(text.memory) }),
      ...(text.reserve === undefined ? {} : { reserveBytes: parsePages(text.reserve) }),
      defaults: settingsOf(text.defaults ?? {}),
      guests: settings,
    },
  };
}

type SettingsText = NonNullable<PolicyText['defaults']>;

const settingsOf = ({ min, max, shares, mode }: SettingsText): GuestSettings => ({
  ...(min === undefined ? {} : { minBytes: parsePages(min) }),
  ...(max === undefined ? {} : { maxBytes: parsePages(max) }),
  ...(shares === undefined ? {} : { shares }),
  ...(mode === undefined ? {} : { mode }),
});
