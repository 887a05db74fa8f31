/**
 * Removes all trailing `characters` from `text` in one pass from the end. The expression `/x+$/` would take quadratic
 * time for a run of x that is followed by another character.
 * @param characters set of UTF-16 units to remove
 */
export function withoutTrailing(text: string, characters: string): string {
  let end = text.length;
  while (end > 0 && characters.includes(text.charAt(end - 1))) end -= 1;
  return text.slice(0, end);
}
