/** Options that may be left out, as the compiler wants them: absent, and not there with the value undefined. */

type Defined<T extends object> = { [K in keyof T]?: Exclude<T[K], undefined> };

/** The fields that have a value, to be spread into an object: `{ ...defined({ port, host }) }`. */
export function defined<T extends object>(fields: T): Defined<T> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as Defined<T>;
}
