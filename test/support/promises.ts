/** Waits until no promise has anything more to do: not a number of turns, however many awaits the code has. */

/**
 * Resolves when every promise that could settle has, and all that followed: Node empties the queue of microtasks before
 * it goes on to what `setImmediate` was given. What waits for a timer or a descriptor still waits.
 */
export const promisesSettled = (): Promise<void> => new Promise(resolve => setImmediate(resolve));
