/**
 * What an `aerostat.toml` may say: every setting with its description, its default and its bounds. The JSON schema that is
 * shipped (packaging/aerostat.schema.json), docs/configuration.md, `aerostat config explain` and the checks are all of it.
 */
import { z } from 'zod';
import { DEFAULT_PROFILE, PROFILE_NAMES } from '../../balloon/profiles.ts';
import { DISCARD_MODES } from '../../control/contract.ts';
import { POLL_INTERVAL_MS_MAX, TARGET_BYTES_MAX } from '../../control/limits.ts';
import { POLICY_MODES, SHARES_MAX, SILENCE_RULES } from '../../control/policy.ts';
import { HOST_NAME } from '../../fleet/messages.ts';
import {
  FLEET_DEFAULT,
  FLEET_PERIOD_MS,
  FLEET_PERIOD_MS_MAX,
  FLEET_PERIOD_MS_MIN,
  LINK_DEFAULT,
} from '../../fleet/settings.ts';
import {
  BOOT_GRACE_MS_MAX,
  EVICTION_MS_DEFAULT,
  EVICTION_MS_MAX,
  LOG_LEVELS,
} from '../../hosting/options.ts';
import { SHARES_DEFAULT } from '../../policy/settings.ts';
import { DEFAULT_SETTINGS, PERIOD_MS_MAX, PERIOD_MS_MIN } from '../../steering/settings.ts';
import { AerostatError } from '../../sys/error.ts';
import { formatDuration, parseDuration } from '../duration.ts';
import { LOG_FORMATS } from '../options.ts';
import { parseRate } from '../rate.ts';
import { formatSize, parsePages } from '../size.ts';

export const DEFAULT_POLL_MS = 10_000;

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

const size = (most = Number.MAX_SAFE_INTEGER) =>
  parsed('a size', ['512M', '1.5G'], text => {
    const bytes = parsePages(text);
    if (bytes <= most) return bytes;
    throw new AerostatError('AEROSTAT_SIZE', `the most is ${formatSize(most)}`);
  });

const duration = (what: string, examples: string[], [least, most]: readonly [number, number]) =>
  parsed('a duration', examples, text => {
    const ms = parseDuration(text);
    if (ms >= least && ms <= most) return ms;
    const bounds = [least, most].map(formatDuration);
    throw new AerostatError('AEROSTAT_DURATION', `${what} is ${bounds[0]} at least and ${bounds[1]} at most`);
  });

const name = (pattern: RegExp, what: string) => z.string().regex(pattern, `a name is of ${what}`);
const word = () => z.string().min(1, 'it is empty');
const path = (description: string, example: string) =>
  word()
    .optional()
    .meta({ description, examples: [example] });

/** What the policy may do with a guest. */
const steered = {
  min: size().optional().meta({ description: 'What the guest keeps whatever happens.' }),
  max: size()
    .optional()
    .meta({ description: 'The most memory that the guest gets; its own memory where nothing is said.' }),
  shares: z
    .int()
    .min(1)
    .max(SHARES_MAX)
    .optional()
    .meta({
      description: 'The weight of the guest among all guests.',
      default: SHARES_DEFAULT,
      examples: [2000],
    }),
  mode: z.enum(POLICY_MODES).optional().meta({
    description: 'auto: the policy sets its target. hold: the target stays. off: the guest is left alone.',
    default: 'auto',
  }),
};

/** How `aerostat device` serves a guest; the words of its options. */
const served = {
  target: size(TARGET_BYTES_MAX)
    .optional()
    .meta({ description: 'What the balloon should hold at first.', default: '0', examples: ['1G'] }),
  profile: z
    .enum(PROFILE_NAMES as [string, ...string[]])
    .optional()
    .meta({ description: 'The ABI that is offered.', default: DEFAULT_PROFILE }),
  without: z
    .array(word())
    .optional()
    .meta({ description: 'Features that are not offered.', examples: [['reporting', 'hint']] }),
  discard: z
    .enum(DISCARD_MODES)
    .optional()
    .meta({ description: 'When pages of the balloon go back to the host.', default: 'auto' }),
  'poll-interval': duration('an interval', ['10s', '0'], [0, POLL_INTERVAL_MS_MAX])
    .optional()
    .meta({
      description: 'How often the guest is asked for statistics; "0" for never.',
      default: formatDuration(DEFAULT_POLL_MS),
    }),
  'boot-grace': duration('a boot grace', ['60s'], [0, BOOT_GRACE_MS_MAX]).optional().meta({
    description:
      'A driver that has just started sees its target after this, or once it answers for its statistics.',
    default: '0',
  }),
  'eviction-interval': duration('an interval', ['60s', '0'], [0, EVICTION_MS_MAX])
    .optional()
    .meta({
      description: 'Profile `shared`: how often the memory of all free frames is taken back; "0" for never.',
      default: formatDuration(EVICTION_MS_DEFAULT),
    }),
};

const Daemon = z.union([
  word(),
  z.strictObject({
    api: word().meta({ description: 'Where its API is: a path, HOST:PORT or http://HOST:PORT.' }),
    'token-file': path('The file that holds the token, where the API is reached over TCP.', 'host2.token'),
  }),
]);

const Guest = z.strictObject({
  socket: path('`aerostat device` serves the guest here: where its front-end connects.', '/run/vms/web.sock'),
  qmp: path("The guest is behind this monitor of its QEMU's.", '/run/qemu/web.qmp'),
  api: path('The guest is one of this daemon: a path, HOST:PORT or http://HOST:PORT.', 'host2:8080'),
  guest: path('What that daemon calls the guest, where that is another name.', 'vm2'),
  'token-file': path('The file that holds the token, where that API is reached over TCP.', 'host2.token'),
  ...steered,
  ...served,
});

export const ConfigurationSchema = z
  .strictObject({
    sources: z
      .strictObject({
        daemons: z
          .array(Daemon)
          .optional()
          .meta({
            description:
              'Daemons with all of their guests: the address of the API, or a table of api and token-file.',
            examples: [['/run/aerostat/guests/api.sock', { api: 'host2:8080', 'token-file': 'token' }]],
          }),
        'qmp-dirs': z
          .array(word())
          .optional()
          .meta({
            description: "Folders of QEMU's monitors: all their guests, as they come and go.",
            examples: [['/var/run/qemu-server']],
          }),
        'qmp-names': z.enum(['file', 'vm']).optional().meta({
          description: 'Guests of these folders are called after their sockets, or as QEMU calls them.',
          default: 'file',
        }),
        libvirt: z
          .array(word())
          .optional()
          .meta({
            description: 'Libvirts by their URIs: all domains, as they come and go.',
            examples: [['qemu:///system']],
          }),
      })
      .optional()
      .meta({ description: 'Where guests are that the file does not name one by one.' }),
    api: z
      .strictObject({
        listen: path('Where the API of `aerostat device` is: a path or HOST:PORT.', '127.0.0.1:8080'),
        'token-file': path('The tokens that clients need over TCP.', 'tokens'),
        remote: z
          .boolean()
          .optional()
          .meta({ description: 'listen may be an address that other machines can reach.', default: false }),
      })
      .optional()
      .meta({ description: 'The API of the daemon that this file describes.' }),
    log: z
      .strictObject({
        level: z
          .enum(LOG_LEVELS)
          .optional()
          .meta({ description: 'The least serious that is logged.', default: 'info' }),
        format: z
          .enum(LOG_FORMATS)
          .optional()
          .meta({ description: 'For people, for the journal, or for programs.', default: 'human' }),
      })
      .optional()
      .meta({ description: 'The log of `aerostat device`.' }),
    device: z
      .strictObject({
        ...served,
        keep: path(
          'What guests outlive the daemon by: the socket of an `aerostat keep`, "systemd" for the service manager\'s store of descriptors, or "none".',
          '/run/keep.sock',
        ),
        'state-dir': path(
          'Where targets and the like outlive the daemon also where guests are not kept.',
          '/var/lib/aerostat',
        ),
        policy: z
          .boolean()
          .optional()
          .meta({ description: 'The daemon steers the memory of its guests by [policy].', default: false }),
      })
      .optional()
      .meta({ description: 'What `aerostat device` does for guests that say nothing else.' }),
    policy: z
      .strictObject({
        period: duration('a period', ['2s', '500ms'], [PERIOD_MS_MIN, PERIOD_MS_MAX])
          .optional()
          .meta({
            description: 'How often the policy decides.',
            default: formatDuration(DEFAULT_SETTINGS.periodMs),
          }),
        memory: size().optional().meta({
          description:
            "What guests and reserve have together; all of the host's memory where nothing is said.",
        }),
        reserve: size().optional().meta({
          description:
            'What the host keeps; the larger of 1G and a twentieth of its memory where nothing is said.',
        }),
        'dry-run': z
          .boolean()
          .optional()
          .meta({ description: 'Decide and explain, and move nothing.', default: false }),
        'on-silence': z.enum(SILENCE_RULES).optional().meta({
          description: 'What becomes of targets when the policy is silent for two periods.',
          default: DEFAULT_SETTINGS.onSilence,
        }),
        defaults: z
          .strictObject(steered)
          .optional()
          .meta({ description: 'What holds for guests that say nothing else.' }),
      })
      .optional()
      .meta({ description: 'What `aerostat policy run` and `aerostat device` steer by.' }),
    fleet: z
      .strictObject({
        servers: z
          .array(word())
          .optional()
          .meta({
            description: 'The servers of NATS that the hosts of the fleet share.',
            examples: [['nats://nats1:4222', 'nats://nats2:4222']],
          }),
        name: name(HOST_NAME, 'letters, digits, dashes and underscores, with single dots between them')
          .optional()
          .meta({
            description: 'Which fleet this host is of.',
            default: FLEET_DEFAULT,
            examples: ['berlin'],
          }),
        host: name(HOST_NAME, 'letters, digits, dashes and underscores, with single dots between them')
          .optional()
          .meta({
            description: "How the fleet calls this host; the machine's own name where nothing is said.",
            examples: ['host1'],
          }),
        address: word()
          .optional()
          .meta({
            description: 'Where the other hosts send machines to: a name or address of this host.',
            examples: ['10.0.0.1'],
          }),
        machines: path(
          'The folder of the sockets of the machines (`aerostat vm --api FOLDER/NAME.sock`).',
          '/run/aerostat/machines',
        ),
        memory: size().optional().meta({
          description:
            "What guests and reserve have together; all of the host's memory where nothing is said.",
        }),
        reserve: size().optional().meta({ description: 'What the host keeps for itself.', default: '0' }),
        link: z
          .string()
          .superRefine((text, context) => {
            try {
              parseRate(text);
            } catch (error) {
              context.addIssue({ code: 'custom', message: (error as Error).message });
            }
          })
          .optional()
          .meta({
            description: 'What migrations to and from this host can use together.',
            default: LINK_DEFAULT,
            examples: ['25gbit'],
          }),
        period: duration('a period', ['2s', '500ms'], [FLEET_PERIOD_MS_MIN, FLEET_PERIOD_MS_MAX])
          .optional()
          .meta({
            description: 'How often a host reports and the leader decides.',
            default: formatDuration(FLEET_PERIOD_MS),
          }),
        replicas: z
          .int()
          .min(1)
          .max(5)
          .optional()
          .meta({
            description:
              'Copies of what the fleet keeps, each at another server of NATS; 3 survive the loss of one.',
            default: 1,
            examples: [3],
          }),
        settle: duration('a time to settle', ['25s'], [0, 3_600_000]).optional().meta({
          description:
            'How long a new leader looks on before its first order; 12.5 periods where nothing is said.',
        }),
        patience: duration('a patience', ['10s'], [0, 3_600_000])
          .optional()
          .meta({ description: 'How long a host is short before a guest is moved for it.' }),
        'cool-down': duration('a cool-down', ['15m'], [0, 86_400_000])
          .optional()
          .meta({ description: 'No guest returns within so long to a host that it left.' }),
        drains: z
          .int()
          .min(1)
          .max(64)
          .optional()
          .meta({
            description:
              'How many guests leave a host at a time that is drained; four at most come to one host.',
            default: 8,
            examples: [4],
          }),
        creds: path('Credentials of NATS: a file of a JWT and its seed.', 'host1.creds'),
        nkey: path('Or the file of an nkey seed.', 'host1.nk'),
        'tls-ca': path('The CA whose servers of NATS are trusted.', 'ca.pem'),
        'tls-cert': path('Our certificate, where the servers want one.', 'host1.pem'),
        'tls-key': path('Its key.', 'host1.key'),
      })
      .optional()
      .meta({ description: 'What `aerostat fleet` goes by.' }),
    guests: z.record(z.string(), Guest).optional().meta({
      description: 'Guests by their names: where they are, how they are served, what the policy may do.',
    }),
  })
  .meta({ title: 'aerostat.toml' });

export type ConfigurationText = z.output<typeof ConfigurationSchema>;
export type GuestText = z.output<typeof Guest>;
export type SteeredText = Pick<GuestText, keyof typeof steered>;
export type ServedText = Pick<GuestText, keyof typeof served>;

/** The schema as it is shipped. */
export const configurationJsonSchema = () => z.toJSONSchema(ConfigurationSchema, { io: 'input' });
export type FleetText = NonNullable<ConfigurationText['fleet']>;
