import { isObject } from '../../lib/json.ts';
import type { Fields } from '../../protocol/messages.ts';
import type { AgUiEvent } from './events.ts';

/** Returns undefined for changes of a remote agent that clients would reject together with the run. */
export function stateOf({ snapshot, delta }: Fields): AgUiEvent | undefined {
  if (delta === undefined) return { type: 'STATE_SNAPSHOT', snapshot };
  return isPatch(delta) ? { type: 'STATE_DELTA', delta } : undefined;
}

/** As `stateOf`, for an activity. */
export function activityOf({ activity_type, content, patch }: Fields, messageId: string): AgUiEvent | undefined {
  const activity = { messageId, activityType: text(activity_type) };
  if (patch === undefined) {
    return { type: 'ACTIVITY_SNAPSHOT', ...activity, content: isObject(content) ? content : { value: content } };
  }
  return isPatch(patch) ? { type: 'ACTIVITY_DELTA', ...activity, patch } : undefined;
}

/** Operations of RFC 6902 section 4. */
const OPERATIONS = ['add', 'remove', 'replace', 'move', 'copy', 'test'];

function isPatch(value: unknown): value is readonly unknown[] {
  if (!Array.isArray(value)) return false;
  return value.every((operation) => {
    const { op, path, from } = (operation ?? {}) as { op?: unknown; path?: unknown; from?: unknown };
    const isKnown = OPERATIONS.includes(text(op)) && typeof path === 'string';
    return isKnown && (!['move', 'copy'].includes(text(op)) || typeof from === 'string');
  });
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : '';
}
