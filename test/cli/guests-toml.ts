/** An `aerostat.toml` that names guests, for tests. */
export const guestsToml = (
  guests: readonly ({ readonly name: string } & Readonly<Record<string, string>>)[],
): string =>
  guests
    .map(({ name, ...settings }) =>
      [
        `[guests.${name}]`,
        ...Object.entries(settings).map(([key, value]) => `${key} = ${JSON.stringify(value)}`),
      ].join('\n'),
    )
    .join('\n\n');
