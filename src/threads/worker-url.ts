/** Where a thread's program is: beside the module that starts it, compiled if that is, source if not. */
export function workerUrl(path: string, from: string): URL {
  return new URL(`${path}${from.endsWith('.ts') ? '.ts' : '.js'}`, from);
}
