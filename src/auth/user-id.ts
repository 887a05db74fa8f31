import { SERVICE_PREFIX } from './credentials.ts';

/** OpenID Connect Core section 2: `sub` has at most 255 characters. */
const MAX_SUBJECT_LENGTH = 255;
/**
 * Characters of a subject that a user id contains as they are. A user id is part of Redis keys, of members that are
 * separated by spaces, of paths and of reports, so the others are percent-encoded as UTF-8.
 */
const PLAIN = /^[\w.@:+|/=~,!$-]*$/;
const ENCODED = /[^\w.@:+|/=~,!$-]/gu;

/**
 * Returns the user id of a subject: different subjects have different user ids, because `%` is encoded too. Undefined
 * for a subject that has no user id: empty, too long, not well-formed Unicode, or with the prefix of services.
 */
export function userIdOf(subject: string, prefix = ''): string | undefined {
  if (subject === '' || subject.length > MAX_SUBJECT_LENGTH || !subject.isWellFormed()) return undefined;
  const id = prefix + (PLAIN.test(subject) ? subject : subject.replace(ENCODED, percentEncoded));
  return id.startsWith(SERVICE_PREFIX) ? undefined : id;
}

function percentEncoded(character: string): string {
  const bytes = Buffer.from(character).toString('hex').toUpperCase();
  return bytes.replace(/../g, (byte) => `%${byte}`);
}
