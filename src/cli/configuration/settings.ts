/** Every setting of `aerostat.toml` with its words, in the order of the schema: for `config explain` and the document. */
import { configurationJsonSchema } from './schema.ts';

export interface Setting {
  /** As it is written with dots: `policy.period`, `guests.NAME.min`. */
  readonly key: string;
  /** A table of settings, not a value. */
  readonly isTable: boolean;
  /** What may stand there, for people. */
  readonly type: string;
  readonly description: string;
  /** What counts where the file says nothing; absent where nothing does. */
  readonly fallback?: unknown;
  /** As TOML. */
  readonly example?: string;
}

interface JsonSchema {
  readonly type?: string;
  readonly description?: string;
  readonly default?: unknown;
  readonly examples?: readonly unknown[];
  readonly enum?: readonly string[];
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly additionalProperties?: JsonSchema | boolean;
  readonly items?: JsonSchema;
  readonly anyOf?: readonly JsonSchema[];
  readonly minimum?: number;
  readonly maximum?: number;
}

export function settings(): readonly Setting[] {
  return [...below(configurationJsonSchema() as JsonSchema, '')];
}

function* below(schema: JsonSchema, above: string): Generator<Setting> {
  for (const [name, inner] of Object.entries(schema.properties ?? {})) {
    const key = above === '' ? name : `${above}.${name}`;
    yield settingOf(inner, key);
    yield* below(inner, key);
  }
  const named = schema.additionalProperties;
  if (typeof named === 'object' && named.properties !== undefined) yield* below(named, `${above}.NAME`);
}

function settingOf(schema: JsonSchema, key: string): Setting {
  const [example] = schema.examples ?? schema.enum?.slice(-1) ?? [];
  const isTable = schema.type === 'object';
  return {
    key,
    isTable,
    type: isTable ? 'table' : typeOf(schema),
    description: schema.description ?? '',
    ...(schema.default === undefined ? {} : { fallback: schema.default }),
    ...(example === undefined ? {} : { example: tomlOf(example) }),
  };
}

function typeOf({ type, enum: choices, items, minimum, maximum }: JsonSchema): string {
  if (choices !== undefined) return choices.map(choice => `"${choice}"`).join(', ');
  if (type === 'array') return items?.anyOf === undefined ? 'list of texts' : 'list of texts or tables';
  if (type === 'integer') return `number from ${minimum} to ${maximum}`;
  if (type === 'boolean') return 'true or false';
  return 'text';
}

/** A value as TOML writes it in one line. */
export function tomlOf(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(tomlOf).join(', ')}]`;
  if (typeof value === 'object' && value !== null) {
    const pairs = Object.entries(value).map(([name, inner]) => `${name} = ${tomlOf(inner)}`);
    return `{ ${pairs.join(', ')} }`;
  }
  return JSON.stringify(value);
}
