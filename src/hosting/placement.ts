/** Which thread serves the next guest. It knows threads only as places that some guests have already. */

/** The first of the places that fewest guests have. `homes` has an entry for each guest. There is a place at least. */
export function leastLoaded<Place>(places: readonly Place[], homes: Iterable<Place>): Place {
  const load = new Map(places.map(place => [place, 0]));
  for (const home of homes) load.set(home, (load.get(home) ?? 0) + 1);
  const loadOf = (place: Place): number => load.get(place) ?? 0;
  return places.reduce((least, place) => (loadOf(place) < loadOf(least) ? place : least));
}
